"""What all networks promise that end in a pooling and linear layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wesep_py.network.speaker.ecapa import ECAPATDNN
from wesep_py.network.speaker.resnet import GeminiDFResNet, ResNet, SimAMResNet
from wesep_py.network.speaker.speaker_network import PooledNetwork, SpeakerNetwork, length_mask, speaker_networks
from wesep_py.network.speaker.xvector import DVector, XVector

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
}


def small(name: str) -> SpeakerNetwork:
    """In evaluation mode, with normalisations that move zero."""
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
def test_other_voices_get_other_embeddings(name):
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
def test_the_first_of_two_embeddings(name):
    network = small(name)
    output = network(torch.randn(2, 40, 24), length_mask(torch.tensor([40, 31]), 40))
    first = network.first_embedding(output)
    assert torch.equal(first, output.embedding) == (network.second is None)
    if network.second is not None:
        torch.testing.assert_close(network.second(first), output.embedding)


def test_dropout_is_for_training():
    network = ResNet(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8, dropout=0.5).eval()
    features = torch.randn(2, 20, 80)
    assert torch.equal(network(features).embedding, network(features).embedding)
    network.dropout.train()
    assert not torch.equal(network(features).embedding, network(features).embedding)


def test_impossible_heads():
    with pytest.raises(ValueError, match="embedding_dim: is 0"):
        ResNet(embedding_dim=0)
    with pytest.raises(ValueError, match="dropout: is 1"):
        SimAMResNet(num_blocks=(1, 1, 1, 1), channels=2, dropout=1)


def test_all_are_registered():
    names = {"ecapa_tdnn", "resnet", "simam_resnet", "gemini_df_resnet", "xvector", "dvector"}
    assert names <= set(speaker_networks.names())
