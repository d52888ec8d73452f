"""The level of the estimate in the mixture, on signals that do not correlate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.inference import Extractor
from wesep_py.inference.file_extraction import extract_file
from wesep_py.inference.output_files import ExtractionTarget
from wesep_py.inference.overlap_add import Blocks
from wesep_py.inference.result import level_gain
from wesep_py.network.extraction_network import NetworkOutput, build_network

TWICE = 10 ** (6 / 20)
MODEL = {"backbone": {"name": "bsrnn", "feature_dim": 4, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}

RNG = np.random.default_rng(0)
VOICE = RNG.standard_normal((2, 4000))
OTHER = RNG.standard_normal((2, 4000))
OTHER -= VOICE * (OTHER * VOICE).sum() / (VOICE**2).sum()  # made orthogonal: the answer is exact


@pytest.mark.parametrize("scale", [1.0, -0.25, 1e-4, 30.0])
def test_brings_the_estimate_to_the_level_it_has(scale: float):
    assert level_gain(scale * VOICE, 0.7 * VOICE + OTHER) == pytest.approx(0.7 / scale, rel=1e-9)


def test_is_one_gain_for_all_channels():
    mixture = VOICE * np.array([[1.0], [0.2]])
    expected = (VOICE[0] @ VOICE[0] + 0.2 * VOICE[1] @ VOICE[1]) / (VOICE**2).sum()
    assert level_gain(VOICE, mixture) == pytest.approx(expected)


def test_silence_stays_silence():
    assert level_gain(np.zeros((1, 100), np.float32), np.ones((1, 100))) == 0.0
    assert level_gain(np.full((1, 100), 1e-30, np.float32), np.ones((1, 100))) == 0.0


@pytest.mark.parametrize(
    ("scale", "expected"), [(0.8, 1 / 0.8), (1.5, 1 / 1.5), (0.01, TWICE), (9.0, 1 / TWICE), (-1, 1 / TWICE)]
)
def test_a_level_that_the_network_learned_is_corrected_a_little(scale: float, expected: float):
    assert level_gain(scale * VOICE, VOICE + OTHER, "learned") == pytest.approx(expected)
    assert level_gain(np.zeros((1, 100), np.float32), np.ones((1, 100)), "learned") == 0.0


@pytest.mark.parametrize(("level", "expected"), [("fitted", 1.0), ("learned", 0.05 * TWICE)])
def test_a_model_says_whose_level_counts(level: str, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network = build_network(MODEL | {"level": level})
    monkeypatch.setattr(network, "extract", lambda mixture, prepared, state=None: NetworkOutput((0.05 * mixture,)))
    extractor = Extractor(network)
    mixture = RNG.uniform(-0.3, 0.3, 16000 * 9).astype(np.float32)
    voice = extractor.enroll((mixture[:16000], 16000))
    whole = extractor.extract((mixture, 16000), voice, Blocks.of(4)).waveform
    np.testing.assert_allclose(whole, expected * mixture, atol=1e-6)
    batch = extractor.extract_batch([(mixture, 16000)], [voice])[0].waveform
    np.testing.assert_allclose(batch, expected * mixture, atol=1e-6)
    soundfile.write(tmp_path / "m.wav", mixture, 16000, subtype="FLOAT")
    extract_file(extractor, tmp_path / "m.wav", [ExtractionTarget("a", voice, tmp_path / "a.wav")], blocks=Blocks.of(4))
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], expected * mixture, atol=1e-6)
