from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker import length_mask, speaker_networks
from wesep_py.network.speaker.campplus import SEGMENT_LENGTH, CAMPlusPlus, DenseLayer, segment_context


def small(**arguments) -> CAMPlusPlus:
    """Return a small network in evaluation mode whose normalisations shift zeros."""
    torch.manual_seed(0)
    sizes = {"embedding_dim": 8, "growth_rate": 4, "bottleneck_factor": 2, "init_channels": 8, "head_channels": 4}
    network = CAMPlusPlus(**{**sizes, "num_layers": (2, 2, 1), **arguments}).eval()
    for module in network.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            if module.affine:
                torch.nn.init.normal_(module.bias, std=0.3)
    return network


@pytest.mark.parametrize("length", [1, 10, 99, 230])
def test_padding_changes_nothing(length):
    """230 frames are two segments at the network's rate; the padding makes them three."""
    network = small()
    features = torch.randn(1, length, 80)
    padded = torch.cat([features, torch.full((1, 201, 80), 3.0)], dim=1)
    with torch.no_grad():
        alone, masked = network(features), network(padded, length_mask(torch.tensor([length]), length + 201))
    assert alone.embedding.isfinite().all()
    torch.testing.assert_close(masked.embedding, alone.embedding, atol=1e-5, rtol=1e-4)
    valid = alone.frames.shape[2]
    assert valid == -(-length // 2) == masked.mask.sum()
    torch.testing.assert_close(masked.frames[:, :, :valid], alone.frames, atol=1e-5, rtol=1e-4)
    assert (masked.frames[:, :, valid:] == 0).all()


@pytest.mark.parametrize("frames", [3, 100, 250])
def test_mask_by_its_formula(frames):
    torch.manual_seed(0)
    layer, x = DenseLayer(6, 8, 4, 2, ("relu",)), torch.randn(2, 6, frames)
    inner = torch.relu(layer.reduce(torch.relu(x)))
    segments = functional.avg_pool1d(inner, SEGMENT_LENGTH, SEGMENT_LENGTH, ceil_mode=True)
    context = inner.mean(2, keepdim=True) + segments[:, :, torch.arange(frames) // SEGMENT_LENGTH]
    expected = layer.conv(inner) * torch.sigmoid(layer.linear2(torch.relu(layer.linear1(context))))
    torch.testing.assert_close(layer(x, torch.ones(2, frames, dtype=torch.bool)), expected)


def test_context_does_not_overflow_in_half_precision():
    context = segment_context(torch.full((1, 1, 300), 3e4, dtype=torch.float16), torch.ones(1, 300, dtype=torch.bool))
    torch.testing.assert_close(context, torch.full((1, 1, 3), 6e4), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("nonlinearity", [("batchnorm", "relu"), ("prelu", "batchnorm_")])
def test_gradients_reach_every_parameter(nonlinearity):
    network = small(nonlinearity=nonlinearity, bottleneck_factor=8, pooling="astp")
    network(torch.randn(3, 10, 80)).embedding.square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.processor
def test_half_precision():
    network, features = small(), torch.randn(2, 60, 80)
    with torch.no_grad():
        expected = network(features).embedding
        with torch.autocast("cpu", torch.bfloat16):
            embedding = network(features).embedding
    assert embedding.dtype == torch.float32
    assert (embedding - expected).norm() / expected.norm() < 0.05


def test_sizes():
    """WeSpeaker's CAM++ of 512-dimensional embeddings has 7.18 M parameters, and 512 frame-level channels."""
    network = CAMPlusPlus()
    assert network.frame_dim == 512
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(7.18e6, rel=1e-3)
    assert small(num_mel_bins=23)(torch.randn(2, 20, 23)).embedding.shape == (2, 8)


def test_impossible_arguments():
    with pytest.raises(ValueError, match="three numbers"):
        CAMPlusPlus(num_layers=(1, 1))
    with pytest.raises(ValueError, match="growth_rate"):
        CAMPlusPlus(growth_rate=1, bottleneck_factor=1)
    with pytest.raises(ValueError, match="listed once"):
        small(nonlinearity=("batchnorm", "batchnorm_"))
    with pytest.raises(ValueError, match="is empty"):
        small(nonlinearity=())
    with pytest.raises(ConfigError, match=r"nonlinearity\[0\]"):
        speaker_networks.build({"name": "campplus", "nonlinearity": ["gelu"]}, "network")
