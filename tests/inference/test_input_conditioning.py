"""A constant in the recording, and its level, do not change what is extracted, offline and live."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.inference import Extractor
from wesep_py.network.extraction_network import build_network

BACKBONE = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "norm": "frame", "live": True}


@pytest.fixture(scope="module", params=["offline", "live"])
def extractor(request: pytest.FixtureRequest) -> Extractor:
    torch.manual_seed(0)
    network = build_network({"backbone": BACKBONE, "cues": [{"name": "tf_map"}]})
    whole = Extractor(network, "cpu")
    return whole if request.param == "offline" else whole.live()


def signal(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(32000)
    envelope = 1.0 + 0.9 * np.sin(2 * np.pi * 3 * np.arange(32000) / 16000)
    return (0.05 * noise * envelope).astype(np.float32)


def difference_db(first: np.ndarray, second: np.ndarray) -> float:
    # Behind the first half second: a causal filter has to begin.
    first, second = (np.asarray(w, np.float64)[8000:] for w in (first, second))
    return float(10 * np.log10(np.mean((first - second) ** 2) / np.mean(first**2)))


@pytest.mark.parametrize("where", ["mixture", "enrollment"])
def test_a_constant_changes_little(extractor: Extractor, where: str):
    mixture, enrollment = signal(0), signal(1)
    plain = extractor.extract((mixture, 16000), extractor.enroll((enrollment, 16000))).waveform
    if where == "mixture":
        mixture = mixture + np.float32(0.1)
    else:
        enrollment = enrollment + np.float32(0.1)
    shifted = extractor.extract((mixture, 16000), extractor.enroll((enrollment, 16000))).waveform
    assert difference_db(plain, shifted) < -35


@pytest.mark.parametrize("level_db", [-60.0, -30.0, 0.0])
def test_the_level_changes_nothing(extractor: Extractor, level_db: float):
    mixture, enrollment = signal(0), signal(1)
    plain = extractor.extract((mixture, 16000), extractor.enroll((enrollment, 16000))).waveform
    gain = np.float32(10 ** (level_db / 20) / np.sqrt(np.mean(mixture**2)))
    voice = extractor.enroll((gain * enrollment, 16000))
    scaled = extractor.extract((gain * mixture, 16000), voice).waveform
    assert difference_db(gain * plain, scaled) < -60
