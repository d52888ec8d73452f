"""Voice and residual, in the sample formats of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wesep_py.inference import Blocks, Extractor
from wesep_py.inference.file_extraction import extract_file
from wesep_py.inference.inputs_outputs.output_files import ExtractionTarget, split_mixture
from wesep_py.network.extraction_network import build_network


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
def test_voice_and_residual_sum_to_the_mixture(subtype: str):
    rng = np.random.default_rng(0)
    bits = {"PCM_16": 16, "PCM_24": 24, "PCM_U8": 8, "FLOAT": 24}[subtype]
    mixture = (rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 5000)) / 2 ** (bits - 1)).astype(np.float32)
    voice, residual, altered = split_mixture(mixture, rng.uniform(-1, 1, (2, 5000)).astype(np.float32), subtype)
    np.testing.assert_array_equal(voice + residual, mixture)
    if subtype == "FLOAT":
        assert altered == 0
    else:
        assert 0 < altered < 5000 and max(np.abs(voice).max(), np.abs(residual).max()) <= 1
        np.testing.assert_array_equal(residual * 2 ** (bits - 1), np.rint(residual * 2 ** (bits - 1)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("block_s", [2.0, 30.0])
def test_constant_is_in_the_residual_and_not_in_the_voice(tmp_path: Path, causal: bool, block_s: float):
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "causal": causal}
    network = build_network(
        {"backbone": backbone, "cues": [{"name": "tf_map"}], "normalise": "none" if causal else "rms"}
    )
    extractor = Extractor(network, "cpu", "tiny", "hash")
    rng = np.random.default_rng(0)
    voice = extractor.enroll((0.1 * rng.standard_normal(16000).astype(np.float32), 16000))
    plain = 0.05 * rng.standard_normal(5 * 16000)
    written = {}
    for name, constant in (("plain", 0.0), ("shifted", 0.1)):
        soundfile.write(tmp_path / f"{name}.wav", plain + constant, 16000, "PCM_16")
        target = ExtractionTarget("a", voice, tmp_path / f"{name}_voice.wav", tmp_path / f"{name}_residual.wav")
        extract_file(extractor, tmp_path / f"{name}.wav", [target], blocks=Blocks.of(block_s))
        written[name] = [soundfile.read(path)[0] for path in (target.output, target.residual, tmp_path / f"{name}.wav")]
    estimate, residual, mixture = written["shifted"]
    assert abs(estimate.mean()) < 1e-3 and residual.mean() == pytest.approx(0.1, abs=1e-3)
    np.testing.assert_array_equal(estimate + residual, mixture)
    difference = estimate - written["plain"][0]
    assert np.sqrt((difference**2).mean()) < 0.02 * np.sqrt((estimate**2).mean())
