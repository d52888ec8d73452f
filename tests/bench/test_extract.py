"""What `bench/extract.py` measures, on a model of a moment."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.extract import mixture_of, precision, table, write_mixture
from wesep_py import audio
from wesep_py.common.half_precision import unsupported


@pytest.mark.processor
def test_smaller_numbers_cost_a_little(tiny_model: Path):
    rng = np.random.default_rng(0)
    pair = SimpleNamespace(**{name: rng.standard_normal(16000) for name in ("mixture", "enrollment", "reference")})
    rows = {row["name"]: row for row in precision(str(tiny_model), 2.0, 1, [pair])}
    assert list(rows) == ["float32", "int8", *([] if unsupported("cpu") else ["bf16"])]
    full, integer = rows["float32"], rows["int8"]
    assert full["to_float32_db"] is None and 5 < integer["to_float32_db"] < 120
    if brain := rows.get("bf16"):
        assert 5 < brain["to_float32_db"] < 80 and full["bytes"] == brain["bytes"]
    assert full["largest_loss_db"] == 0 != integer["largest_loss_db"]
    assert integer["largest_loss_db"] == pytest.approx(full["si_sdri_db"] - integer["si_sdri_db"])
    assert integer["bytes"] < full["bytes"]


@pytest.mark.processor
def test_without_trials_nothing_is_said_of_them(tiny_model: Path):
    assert {one["si_sdri_db"] for one in precision(str(tiny_model), 0.5, 1, [])} == {None}


def test_mixtures_of_any_length(tmp_path: Path):
    write_mixture(tmp_path / "a.wav", 31.5, 16000)
    assert audio.info(tmp_path / "a.wav").num_samples == 504000
    assert 0 < np.abs(mixture_of(1.0, 16000)).max() < 1.5
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
