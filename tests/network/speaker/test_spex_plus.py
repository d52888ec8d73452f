from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones import BSRNN
from wesep_py.network.backbones.conv_tasnet import ConvTasNet
from wesep_py.network.cues import SignalFeatures
from wesep_py.network.speaker import SpeakerEncoder, build_encoder
from wesep_py.network.speaker.spex_plus import SpExPlusNetwork

SPEAKER = {"front_end": "backbone", "network": {"name": "spex_plus", "channels": 8, "embedding_dim": 4}}


def network() -> SpExPlusNetwork:
    torch.manual_seed(0)
    return SpExPlusNetwork(num_mel_bins=12, channels=8, embedding_dim=4).eval()


def of_backbone() -> tuple[ConvTasNet, SpeakerEncoder]:
    torch.manual_seed(0)
    backbone = ConvTasNet(num_filters=6, kernels_ms=(2.0, 4.0), bottleneck=4, hidden=4, num_stacks=1).eval()
    encoder = build_encoder(SPEAKER, 16000, backbone=backbone)
    assert encoder is not None
    return backbone, encoder.eval()


@pytest.mark.parametrize("frames", [1, 26, 27, 100])
def test_any_number_of_frames(frames):
    out = network()(torch.randn(2, frames, 12))
    assert out.embedding.shape == (2, 4)
    assert out.frames.shape == (2, 16, max(frames // 27, 1))
    assert torch.isfinite(out.embedding).all()


def test_padding_changes_nothing():
    features, mask = torch.randn(2, 120, 12), torch.ones(2, 120, dtype=torch.bool)
    mask[0, 60:] = False
    out = network()(features, mask)
    torch.testing.assert_close(out.embedding[:1], network()(features[:1, :60]).embedding)
    assert out.mask.sum(dim=1).tolist() == [2, 4]
    assert (out.frames[0, :, 2:] == 0).all()


def test_short_recording_is_repeated():
    """Alone, and in a batch with a longer one."""
    features, mask = torch.randn(2, 40, 12), torch.ones(2, 40, dtype=torch.bool)
    mask[0, 10:] = False
    repeated = features[:1, :10].repeat(1, 3, 1)[:, :27]
    torch.testing.assert_close(network()(features, mask).embedding[:1], network()(repeated).embedding)
    torch.testing.assert_close(network()(features[:1, :10]).embedding, network()(repeated).embedding)


def test_embedding_is_the_mean_of_pooled_frames():
    """One frame repeated has the embedding of the frame alone."""
    frame = torch.randn(1, 1, 12)
    speaker_network = network()
    torch.testing.assert_close(speaker_network(frame.expand(1, 81, 12)).embedding, speaker_network(frame).embedding)


def test_front_end_is_the_backbone():
    backbone, encoder = of_backbone()
    waveform, lengths = torch.randn(2, 4000), torch.tensor([4000, 2000])
    seen = SignalFeatures(waveform, lengths, backbone, encoder).speaker
    features = backbone.analyse(waveform).features
    assert encoder.network.norm.normalized_shape == (12,)
    expected = encoder.network(features[:, 0].transpose(1, 2), torch.arange(249)[None] < torch.tensor([[249], [124]]))
    torch.testing.assert_close(seen.embedding, expected.embedding)


def test_backbone_is_not_part_of_the_encoder():
    _, encoder = of_backbone()
    assert all(key.startswith("network.") for key in encoder.state_dict())


def test_spectrum_as_input():
    backbone = BSRNN(feature_dim=4, num_blocks=1)
    encoder = build_encoder(SPEAKER, 16000, backbone=backbone)
    out = SignalFeatures(torch.randn(1, 8000), torch.tensor([8000]), backbone, encoder).speaker
    assert out.embedding.shape == (1, 4)


def test_frozen_encoder_does_not_change(tmp_path):
    from wesep_py import checkpoint

    backbone, encoder = of_backbone()
    weights = {f"network.{key}": value for key, value in encoder.network.state_dict().items()}
    checkpoint.save(tmp_path / "voice", {"network": SPEAKER["network"]}, weights)
    config = {**SPEAKER, "mode": "frozen", "checkpoint": str(tmp_path / "voice")}
    frozen = build_encoder(config, 16000, backbone=backbone)
    assert frozen is not None
    frozen.train()
    out = SignalFeatures(torch.randn(2, 4000), torch.tensor([4000, 4000]), backbone, frozen).speaker
    assert not out.embedding.requires_grad
    assert all(torch.equal(value, weights[f"network.{key}"]) for key, value in frozen.network.state_dict().items())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SPEAKER, "front_end"),
        ({**SPEAKER, "filterbank": {"num_mel_bins": 40}}, "filterbank: is not used"),
        ({**SPEAKER, "front_end": "ears"}, "front_end"),
    ],
)
def test_impossible_front_ends(config, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder(config, 16000)


def test_impossible_sizes():
    with pytest.raises(ValueError, match="1 or more"):
        SpExPlusNetwork(channels=0)
