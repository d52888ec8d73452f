"""A run in which the voice that is asked for is sometimes not there."""

from __future__ import annotations

import math
from pathlib import Path

from tests.training.runs import lines, weights
from wesep_py.training import train

LOSS = [
    {"name": "thresholded_sdr"},
    {"name": "multi_resolution_spectral", "weight": 0.3, "window_lengths": [256, 512]},
    {"name": "absent_energy"},
    {"name": "presence", "weight": 0.2},
]


def test_present_and_absent_targets_are_learned_together(settings, tmp_path: Path):
    result = train(
        settings(
            loss=LOSS, simulation__absent_probability=0.5, simulation__num_speakers=2, model__presence={"hidden": 4},
            train__steps=6, train__batch_size=4, log__every_steps=1,
        )
    )  # fmt: skip
    logged = lines(tmp_path / "exp", "train")
    names = [loss["name"] for loss in LOSS]
    assert result.skipped == 0 and all(math.isfinite(line[name]) for line in logged for name in names)
    for line in logged:
        total = sum(loss.get("weight", 1.0) * line[loss["name"]] for loss in LOSS)
        assert abs(line["loss"] - total) < 1e-3 * max(1.0, abs(total))
    assert any(line["absent_energy"] != 0 for line in logged) and any(line["thresholded_sdr"] != 0 for line in logged)
    assert any(key.startswith("presence.") for key in weights(tmp_path / "exp"))
