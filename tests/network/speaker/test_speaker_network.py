"""Properties of all speaker networks, several voices in a recording, and image layers."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from wesep_py.common.errors import ConfigError, InputError
from wesep_py.network.speaker import SpeakerConfig, SpeakerEncoder
from wesep_py.network.speaker.ecapa import ECAPATDNN
from wesep_py.network.speaker.resnet import GeminiDFResNet, ResNet, SimAMResNet
from wesep_py.network.speaker.speaker_network import (
    ConvNorm,
    PooledNetwork,
    PoolingNetwork,
    SpeakerNetwork,
    count_voices,
    length_mask,
    shortcut,
    speaker_networks,
)
from wesep_py.network.speaker.tcn import TCNSpeakerNetwork
from wesep_py.network.speaker.xvector import DVector, XVector

TCN = {"bottleneck": 6, "hidden": 10, "num_blocks": 3, "embedding_dim": 8}
BLOCKS = {"num_blocks": (1, 2, 1, 1), "embedding_dim": 8}
SMALL = {
    "ecapa": (ECAPATDNN, {"channels": 16, "frame_dim": 32, "embedding_dim": 8}),
    "ecapa_mqmhastp": (ECAPATDNN, {"channels": 16, "frame_dim": 32, "embedding_dim": 8, "pooling": "mqmhastp"}),
    "resnet": (ResNet, {**BLOCKS, "channels": 4, "second_layer": True}),
    "resnet_bottleneck": (ResNet, {**BLOCKS, "channels": 4, "block": "bottleneck", "pooling": "mhastp"}),
    "resnet_ghostvlad": (ResNet, {**BLOCKS, "channels": 4, "pooling": {"name": "ghostvlad", "num_clusters": 3}}),
    "simam_resnet": (SimAMResNet, {**BLOCKS, "channels": 4}),
    "gemini": (GeminiDFResNet, {**BLOCKS, "channels": (2, 4, 4, 6, 8), "pooling": "astp"}),
    "xvector": (XVector, {"channels": 12, "frame_dim": 16, "embedding_dim": 8}),
    "dvector": (DVector, {"hidden_dim": 12, "num_layers": 2, "frame_dim": 6, "embedding_dim": 8}),
    "tcn": (TCNSpeakerNetwork, TCN),
    "tcn_batch": (TCNSpeakerNetwork, {**TCN, "norm": "batch", "skip": False, "activation": "linear"}),
    "tcn_frame": (TCNSpeakerNetwork, {**TCN, "norm": "frame", "conv_bias": False, "kernel": 5}),
}


def small(name: str) -> SpeakerNetwork:
    """Return a network in evaluation mode whose normalisations shift zeros."""
    torch.manual_seed(0)
    kind, arguments = SMALL[name]
    network = kind(num_mel_bins=24, **arguments)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean)
            if module.affine:
                nn.init.normal_(module.bias)
    return network.eval()


@pytest.mark.parametrize("length", [1, 10, 14, 60, 61])
@pytest.mark.parametrize("name", SMALL)
def test_padding_changes_nothing(name, length):
    network = small(name)
    features = torch.randn(2, length + 41, 24)
    mask = length_mask(torch.tensor([length, length + 41]), length + 41)
    masked, alone = network(features, mask), network(features[:1, :length])
    assert alone.embedding.isfinite().all() and masked.embedding.shape == (2, network.embedding_dim)
    torch.testing.assert_close(masked.embedding[:1], alone.embedding, atol=1e-5, rtol=1e-4)
    valid = alone.frames.shape[2]
    assert masked.mask.sum(dim=1)[0] == valid and alone.frames.shape[1] == network.frame_dim
    torch.testing.assert_close(masked.frames[:1, :, :valid], alone.frames, atol=1e-5, rtol=1e-4)
    assert (masked.frames[0, :, valid:] == 0).all()


@pytest.mark.parametrize("name", SMALL)
def test_different_recordings_get_different_embeddings(name):
    embeddings = small(name)(torch.randn(2, 40, 24)).embedding
    assert (embeddings[0] - embeddings[1]).norm() > 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name):
    network = small(name).train()
    network(torch.randn(3, 40, 24)).embedding[:, 0].square().sum().backward()
    silent = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert silent == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.processor
@pytest.mark.parametrize("name", SMALL)
def test_half_precision_changes_little(name):
    network, features = small(name), torch.randn(1, 40, 24)
    expected = network(features).embedding
    with torch.autocast("cpu", torch.bfloat16):
        embedding = network(features).embedding
    assert embedding.dtype == torch.float32
    assert (embedding - expected).norm() / expected.norm() < 0.1


@pytest.mark.parametrize("name", [name for name, (kind, _) in SMALL.items() if issubclass(kind, PooledNetwork)])
def test_first_embedding_is_that_before_the_second_layer(name):
    network = small(name)
    output = network(torch.randn(2, 40, 24), length_mask(torch.tensor([40, 31]), 40))
    first = network.first_embedding(output)
    assert torch.equal(first, output.embedding) == (network.second is None)
    if network.second is not None:
        torch.testing.assert_close(network.second(first), output.embedding)


def test_dropout_is_active_in_training_only():
    network = ResNet(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8, dropout=0.5).eval()
    features = torch.randn(2, 20, 80)
    assert torch.equal(network(features).embedding, network(features).embedding)
    network.dropout.train()
    assert not torch.equal(network(features).embedding, network(features).embedding)


def test_impossible_arguments_of_the_head():
    with pytest.raises(ValueError, match="embedding_dim: is 0"):
        ResNet(embedding_dim=0)
    with pytest.raises(ValueError, match="dropout: is 1"):
        SimAMResNet(num_blocks=(1, 1, 1, 1), channels=2, dropout=1)


def test_all_networks_are_registered():
    names = {"ecapa_tdnn", "resnet", "simam_resnet", "gemini_df_resnet", "xvector", "dvector"}
    assert names <= set(speaker_networks.names())


RECURSIVE = {"name": "recursive", "bottleneck": 8}
NETWORKS = [
    {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 24},
    {"name": "resnet", "channels": 4},
    {"name": "xvector", "frame_dim": 24},
    {"name": "dvector", "hidden_dim": 24, "frame_dim": 16, "num_layers": 1},
    {"name": "campplus", "growth_rate": 4, "bottleneck_factor": 2, "head_channels": 4, "num_layers": [2, 1, 1]},
]


def built(config: dict, pooling: dict | str = RECURSIVE):
    torch.manual_seed(0)
    return speaker_networks.build({**config, "embedding_dim": 8, "pooling": pooling}, "network", num_mel_bins=20)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config["name"])
def test_first_voice_is_the_embedding_whatever_the_padding(config):
    network = built(config).eval()
    features = torch.randn(2, 70, 20)
    out = network(features, length_mask(torch.tensor([70, 45]), 70))
    voices = network.voices(out.frames, out.mask, max_voices=3)
    assert voices.embeddings.shape == (2, 3, 8) and voices.existence_logits.shape == (2, 3)
    torch.testing.assert_close(voices.embeddings[:, 0], out.embedding)
    alone = network(features[1:, :45])
    torch.testing.assert_close(
        voices.embeddings[1:], network.voices(alone.frames, alone.mask, 3).embeddings, atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(voices.embeddings[:, 1], voices.embeddings[:, 0])


@pytest.mark.parametrize("name", speaker_networks.names())
def test_all_networks_with_a_pooling_find_several_voices(name):
    kind = speaker_networks.get(name)
    assert issubclass(kind, PoolingNetwork) == ("pooling" in inspect.signature(kind).parameters)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config["name"])
def test_max_voices_is_that_of_the_pooling(config):
    network = {**config, "embedding_dim": 8, "pooling": {**RECURSIVE, "max_voices": 3}}
    encoder = SpeakerEncoder(SpeakerConfig(network, filterbank={"num_mel_bins": 20}), 16000)
    assert encoder.max_voices == 3


def test_count_ends_at_the_first_voice_that_does_not_exist():
    logits = torch.tensor([[-1.0, 2.0, 2.0], [5.0, -1.0, 2.0], [5.0, 0.1, -2.0]])
    assert count_voices(logits).tolist() == [3, 1, 2] and count_voices(logits, threshold=0.6).tolist() == [3, 1, 1]


def test_batch_normalisation_sees_only_voices_that_exist():
    network = built(NETWORKS[0]).train()
    frames, mask = network.encode(torch.randn(3, 40, 20), torch.ones(3, 40, dtype=torch.bool))
    norm, seen = network.pool_norm, []
    norm.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    voices = network.voices(frames, mask, counts=torch.tensor([1, 2, 1]))
    assert seen == [4] and voices.count.tolist() == [1, 2, 1]
    assert (voices.embeddings[0, 1] == 0).all() and (voices.embeddings[1] != 0).all()


def test_encoder_finds_the_voices_of_waveforms():
    network = {**NETWORKS[0], "embedding_dim": 8, "pooling": {**RECURSIVE, "max_voices": 3}}
    encoder = SpeakerEncoder(SpeakerConfig(network, filterbank={"num_mel_bins": 20}), 16000).eval()
    waveform, lengths = torch.randn(2, 8000), torch.tensor([8000, 6000])
    voices = encoder.voices(waveform, lengths)
    assert encoder.max_voices == 3 and voices.embeddings.shape == (2, 3, 8)
    torch.testing.assert_close(voices.embeddings[:, 0], encoder(waveform, lengths).embedding)


def test_encoder_without_recursive_pooling_is_refused():
    network = {**NETWORKS[0], "embedding_dim": 8}
    encoder = SpeakerEncoder(SpeakerConfig(network, filterbank={"num_mel_bins": 20}), 16000)
    assert encoder.max_voices == 1
    with pytest.raises(InputError, match="finds one voice per recording; one with the pooling 'recursive'"):
        encoder.voices(torch.randn(1, 8000), torch.tensor([8000]))


def test_numbers_out_of_range_are_refused():
    network = built(NETWORKS[0])
    frames, mask = torch.randn(1, 24, 9), torch.ones(1, 9, dtype=torch.bool)
    with pytest.raises(InputError, match="max_voices: is 0"):
        network.voices(frames, mask, 0)
    with pytest.raises(InputError, match=r"threshold: is 1"):
        network.voices(frames, mask, threshold=1.0)
    with pytest.raises(ConfigError, match="frames: is 'last_block'; the pooling 'recursive' needs 'pooled'"):
        built({**NETWORKS[0], "frames": "last_block"})


def test_convolution_ignores_values_after_the_end():
    torch.manual_seed(0)
    for kernel_size, stride in ((3, 1), (3, 2), (3, (2, 1)), (1, 2)):
        layer = ConvNorm(2, 3, kernel_size, stride).eval()
        x = torch.randn(1, 2, 6, 7)
        expected, whole = layer(x, torch.ones(1, 7, dtype=torch.bool))
        padded, mask = layer(torch.cat([x, torch.randn(1, 2, 6, 5)], dim=3), length_mask(torch.tensor([7]), 12))
        assert mask.shape[1] == padded.shape[3]
        assert mask.sum() == whole.sum() == expected.shape[3]
        torch.testing.assert_close(padded[..., : expected.shape[3]], expected)


def test_shortcut_exists_only_if_shapes_differ():
    assert shortcut(4, 4, 1) is None
    assert shortcut(4, 4, (1, 1)) is None
    for in_channels, stride in ((4, 2), (4, (2, 1)), (8, 1)):
        layer = shortcut(in_channels, 4, stride)
        assert layer.conv.kernel_size == (1, 1)
        assert layer(torch.randn(1, in_channels, 6, 6), torch.ones(1, 6, dtype=torch.bool))[0].shape[1] == 4
