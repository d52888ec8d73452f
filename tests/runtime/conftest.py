"""Small random networks, exported once, and the same in torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.inference.networks import BSRNN, CAUSAL_BSRNN, COUNTING_ENCODER, noise, random_extractor
from wesep_py.inference import Extractor, Voice
from wesep_py.inference.presence_decision.presence import Calibration

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

LIVE = {
    "backbone": {**BSRNN, "live": True, "norm": "frame", "window": "asymmetric"},
    "cues": [{"name": "tf_map"}],
    "live_presence": {"smoothing": "lstm"},
}
MODELS = {
    "live": LIVE,
    "causal": {"backbone": CAUSAL_BSRNN, "cues": [{"name": "tf_map"}], "normalise": "none"},
    "embedding": {
        "backbone": BSRNN,
        "speaker": {**COUNTING_ENCODER, "network": {**COUNTING_ENCODER["network"], "pooling": "astp"}},
        "cues": [{"name": "embedding", "fusion": "concat"}, {"name": "tf_map"}],
    },
    "conv_tasnet": {
        "backbone": {
            "name": "conv_tasnet", "num_filters": 16, "bottleneck": 8, "hidden": 16, "blocks_per_stack": 2,
            "num_stacks": 1, "basis_bias": True, "causal": True,
        },
        "speaker": {**COUNTING_ENCODER, "network": {**COUNTING_ENCODER["network"], "pooling": "astp"}},
        "cues": [{"name": "embedding", "fusion": "concat"}],
        "normalise": "tracked",
    },
}  # fmt: skip
STREAMS = ("live", "causal", "conv_tasnet")


@dataclass(frozen=True)
class ExportedPair:
    """A model in torch and its exported folder."""

    torch: Extractor
    folder: Path
    voice: Voice


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportedPair]:
    """Models by name."""
    from wesep_py.export import export

    exported = {}
    for name, config in MODELS.items():
        config = dict(config)
        if name == "live":
            config["presence"] = {}
        extractor, _ = random_extractor(config)
        if name == "live":
            extractor.live_calibration = Calibration(frame_scale=0.5, frame_offset=1.0)
        folder = tmp_path_factory.mktemp("exported") / name
        export(extractor, folder, stream=name in STREAMS)
        exported[name] = ExportedPair(extractor, folder, extractor.enroll((noise(16000)[0], 16000)))
    return exported


def spoken(num_samples: int, channels: int = 1) -> np.ndarray:
    """Return noise that comes and goes, with a constant, `[channels, samples]`."""
    return noise(num_samples, channels) * (1 + np.sin(np.arange(num_samples) / 3000)).astype(np.float32) + 0.02
