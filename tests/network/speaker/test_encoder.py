from __future__ import annotations

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.config import construct
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder, build_encoder

NETWORK = {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8}


def encoder(sample_rate: int = 16000, **config) -> SpeakerEncoder:
    torch.manual_seed(0)
    made = build_encoder({"network": NETWORK, **config}, sample_rate)
    assert made is not None
    return made


def save(encoder: SpeakerEncoder, folder) -> str:
    checkpoint.save(folder, {"network": NETWORK}, {f"network.{k}": v for k, v in encoder.network.state_dict().items()})
    return str(folder)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_any_rate_and_length(sample_rate):
    made = encoder(sample_rate).eval()
    for size in (10, sample_rate):
        out = made(torch.randn(2, size), torch.tensor([size, size]))
        assert out.embedding.shape == (2, made.embedding_dim)
        assert torch.isfinite(out.embedding).all()


def test_padding_changes_nothing():
    made, waveform = encoder().eval(), torch.randn(1, 16000)
    padded = torch.cat([waveform, torch.zeros(1, 8000)], dim=1)
    alone = made(waveform, torch.tensor([16000])).embedding
    torch.testing.assert_close(made(padded, torch.tensor([16000])).embedding, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("front_end", ["filterbank", "mel"])
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_either_filterbank_takes_any_rate_and_passes_over_padding(front_end, sample_rate):
    made = encoder(sample_rate, front_end=front_end, filterbank={"num_mel_bins": 24}).eval()
    waveform = torch.randn(2, sample_rate)
    padded = torch.cat([waveform, torch.zeros(2, 3000)], dim=1)
    lengths = torch.full((2,), sample_rate)
    alone = made(waveform, lengths).embedding
    torch.testing.assert_close(made(padded, lengths).embedding, alone, atol=1e-4, rtol=1e-3)


def test_the_front_ends_have_arguments_of_their_own():
    made = encoder(front_end="mel", filterbank={"window_ms": 16.0, "hop_ms": 4.0})
    assert (made.filterbank.window_length, made.filterbank.hop_length) == (256, 64)
    with pytest.raises(ConfigError, match=r"speaker.filterbank.frame_length_ms: unknown key; .*window_ms"):
        encoder(front_end="mel", filterbank={"frame_length_ms": 25.0})


def test_frozen_is_frozen(tmp_path):
    """No parameter and no buffer moves, whatever the model around it does."""
    made = encoder(mode="frozen", checkpoint=save(encoder(), tmp_path / "encoder"))
    model = torch.nn.ModuleList([made, torch.nn.Linear(8, 1)])
    before = {k: v.clone() for k, v in made.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0, weight_decay=0.1)
    for _ in range(3):
        model.train()
        model[1](made(torch.randn(4, 8000), torch.full((4,), 8000)).embedding).sum().backward()
        optimiser.step()
    assert not any(p.requires_grad for p in made.parameters())
    assert all(torch.equal(before[k], v) for k, v in made.state_dict().items())


@pytest.mark.parametrize("mode", ["joint", "finetune"])
def test_joint_and_fine_tuned_encoders_learn_from_where_they_start(tmp_path, mode):
    source = encoder()
    torch.nn.init.ones_(source.network.linear.bias)
    made = encoder(mode=mode, checkpoint=save(source, tmp_path / "encoder"))
    assert torch.equal(made.network.linear.bias, source.network.linear.bias)
    made.train()(torch.randn(4, 8000), torch.full((4,), 8000)).embedding.sum().backward()
    assert all(p.grad is not None for p in made.network.parameters())
    assert made.training


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="needs a checkpoint"):
        construct(SpeakerConfig, {"network": NETWORK, "mode": "frozen"}, "speaker")
    with pytest.raises(ConfigError, match=r"speaker.filterbank.num_mel_bin: unknown key; did you mean 'num_mel_bins'"):
        encoder(filterbank={"num_mel_bin": 40})
    with pytest.raises(ConfigError, match="needs a key 'name'"):
        build_encoder({"network": {}}, 16000)
    path = save(encoder(), tmp_path / "encoder")
    with pytest.raises(CheckpointError, match="does not fit"):
        encoder(network={**NETWORK, "channels": 32}, checkpoint=path)
