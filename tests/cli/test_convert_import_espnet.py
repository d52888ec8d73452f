"""`wesep import-checkpoint` of an ESPnet model, and what can be done with the result."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import wesep_py
from tests.interop.espnet_reference import SlowReference, espnet_config, espnet_weights
from wesep_py import audio, checkpoint
from wesep_py.common.config import dump_yaml
from wesep_py.network.extraction_network import load_network

RATE = 8000


@pytest.fixture
def public(tmp_path):
    """Write a checkpoint in ESPnet's layout with its configuration beside it; returns the arguments of the command."""

    def write(config, weights=None):
        (tmp_path / "exp").mkdir(exist_ok=True)
        torch.save(espnet_weights(config) if weights is None else weights, tmp_path / "exp" / "99epoch.pth")
        (tmp_path / "exp" / "config.yaml").write_text(dump_yaml(config))
        return tmp_path / "exp" / "99epoch.pth", "-o", tmp_path / "model"

    return write


def write_noise(path, seconds, seed):
    """Write noise, and return the samples as they are in the file."""
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    audio.write(path, samples[None], RATE, subtype="FLOAT")
    return torch.from_numpy(samples)[None]


def test_extract_writes_what_the_public_network_returns(wesep, public, tmp_path):
    """Import, enroll and extract through the command line: the samples of ESPnet's own inference, at its level."""
    config = espnet_config()
    ran = wesep("import-checkpoint", *public(config))
    assert ran.status == 0 and "extractor td_speakerbeam" in ran.out
    mixture = write_noise(tmp_path / "mixture.wav", 1.003, 0)
    enrollment = write_noise(tmp_path / "enrollment.wav", 3, 1)
    ran = wesep(
        *("extract", tmp_path / "mixture.wav", "--enroll", tmp_path / "enrollment.wav", "-o", tmp_path / "voice.wav"),
        *("--model", tmp_path / "model"),
    )
    assert ran.status == 0, ran.err
    expected, _ = SlowReference(config, espnet_weights(config))(mixture, enrollment)
    written, rate = audio.read(tmp_path / "voice.wav")
    assert rate == RATE
    np.testing.assert_allclose(written, expected.numpy(), atol=1e-4)
    assert np.abs(written).max() > 0.01


def test_a_causal_model_streams(wesep, public, tmp_path):
    config = espnet_config(causal=True, norm_type="cLN")
    assert wesep("import-checkpoint", *public(config)).status == 0
    extractor = wesep_py.load(tmp_path / "model", device="cpu")
    assert extractor.mode == "offline" and extractor.network.latency == 15
    voice = extractor.enroll((write_noise(tmp_path / "enrollment.wav", 3, 1)[0].numpy(), RATE))
    mixture = write_noise(tmp_path / "mixture.wav", 1, 0)[0].numpy()
    stream = extractor.stream(voice, sample_rate=RATE)
    streamed = np.concatenate([*(stream.process(block) for block in np.split(mixture, 10)), stream.flush()])
    whole = extractor.extract((mixture, RATE), voice).waveform
    delay = len(streamed) - len(mixture)
    np.testing.assert_allclose(streamed[delay:], whole, atol=1e-4)


def test_a_model_with_embeddings_from_elsewhere(wesep, public, tmp_path):
    config = espnet_config(use_spk_emb=True, spk_emb_dim=5)
    assert wesep("import-checkpoint", *public(config)).status == 0
    assert "it has no speaker encoder" in (tmp_path / "model" / "card.md").read_text()
    write_noise(tmp_path / "mixture.wav", 1, 0)
    np.save(tmp_path / "anna.npy", np.ones(5, np.float32))
    ran = wesep(
        *("extract", tmp_path / "mixture.wav", "--enroll", tmp_path / "anna.npy", "-o", tmp_path / "voice.wav"),
        *("--model", tmp_path / "model"),
    )
    assert ran.status == 0, ran.err


def test_provenance_and_configuration(wesep, public, tmp_path):
    assert wesep("import-checkpoint", *public(espnet_config(norm_type="BN"))).status == 0
    source = json.loads((tmp_path / "model/provenance.json").read_text())["imported_from"]
    assert (source["toolkit"], source["model"], source["file"]) == ("ESPnet", "td_speakerbeam", "99epoch.pth")
    assert source["arguments"]["extractor_conf"]["norm_type"] == "BN"
    saved = checkpoint.load(tmp_path / "model")
    assert saved.config["level"] == "kept" and saved.config["highpass_hz"] == 0
    network = load_network(tmp_path / "model")
    assert network.sample_rate == RATE and network.backbone.kernels == [16]


def test_sample_rate_option(wesep, public, tmp_path):
    config = {key: value for key, value in espnet_config().items() if key != "fs"}
    arguments = public(config)
    ran = wesep("import-checkpoint", *arguments)
    assert ran.status == 2 and "sample_rate: the configuration does not say" in ran.err
    assert wesep("import-checkpoint", *arguments, "--sample-rate", 16000).status == 0
    assert load_network(tmp_path / "model").sample_rate == 16000
    ran = wesep("import-checkpoint", *arguments, "--sample-rate", 4000, "--overwrite")
    assert ran.status == 2 and "8000" in ran.err


def test_everything_that_cannot_be_mapped_is_listed(wesep, public, tmp_path):
    config = espnet_config()
    weights = espnet_weights(config) | {"extractor.surplus": torch.ones(1)}
    missing = ("extractor.tcn.network.2.0.1.net.1.weight", "extractor.auxiliary_net.network.1.weight")
    weights = {name: value for name, value in weights.items() if name not in missing}
    ran = wesep("import-checkpoint", *public({**config, "speed": 2, "model_conf": {"masks": 1}}, weights))
    lines = ran.err.splitlines()
    assert ran.status == 2 and not (tmp_path / "model").exists()
    for start in ("speed: is no option", "model_conf.masks:", "not used: extractor.surplus", f"missing: {missing[0]}"):
        assert any(line.startswith(start) for line in lines), start
    assert f"missing: {missing[1]}" in lines and "thing(s) could not be mapped" in lines[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extractor": "spex"}, "extractor: no network is called 'spex'"),
        ({"encoder": "stft"}, "encoder: 'stft' (the magnitudes of a Fourier transform"),
        ({"extractor_conf": 3}, "extractor_conf: is 3"),
        ({"extractor_conf": {"layer": 10**9}}, "layer"),
    ],
)
def test_configurations_that_cannot_be_mapped(wesep, public, tmp_path, change, message):
    ran = wesep("import-checkpoint", *public({**espnet_config(), **change}, espnet_weights(espnet_config())))
    assert ran.status == 2 and message in ran.err and "Traceback" not in ran.err
    assert not (tmp_path / "model").exists()


def test_a_sample_rate_for_a_model_of_another_toolkit(wesep, tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "avg_model.pt")
    (tmp_path / "config.yaml").write_text("model: XVEC\nmodel_args: {}\ndataset_args: {resample_rate: 16000}\n")
    ran = wesep("import-checkpoint", tmp_path / "avg_model.pt", "-o", tmp_path / "model", "--sample-rate", 8000)
    assert ran.status == 2 and "dataset_args.resample_rate: is 16000, but a sample_rate of 8000 Hz" in ran.err
