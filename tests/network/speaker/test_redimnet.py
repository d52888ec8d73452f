from __future__ import annotations

import pytest
import torch
from torch import nn

from wesep_py.network.speaker.redimnet import (
    AttentionLayer,
    ConvNeXtBlock,
    ReDimNet,
    ReDimNetResidualBlock,
    ReDimNetStage,
)
from wesep_py.network.speaker.speaker_network import length_mask

TENSORS = ("weight", "bias")
NORM = (*TENSORS, "running_mean", "running_var", "num_batches_tracked")
STAGES = (ReDimNetStage(1, 1, 2, 8), ReDimNetStage(2, 1), ReDimNetStage(2, 1, 1, 4))


def lively(network: nn.Module) -> nn.Module:
    """Set evaluation mode, and normalisations that are not the identity."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.eval()


def small(**arguments) -> ReDimNet:
    torch.manual_seed(0)
    options = {"num_mel_bins": 16, "channels": 4, "stages": STAGES, "embedding_dim": 8, "group_size": 2, **arguments}
    network = lively(ReDimNet(**options))
    for mix in network.mixes:
        nn.init.normal_(mix)
    return network


@pytest.mark.parametrize(
    "arguments",
    [
        {"block": "convnext"},
        {"block": "resnet"},
        {"block": "resnet_se", "pooling": {"name": "astp", "global_context": True}},
        {"block": "resnet", "group_size": None, "frame_dim": 24, "second_layer": True},
    ],
)
def test_padding_changes_nothing(arguments):
    network, length = small(**arguments), 60
    features = torch.randn(1, length, 16)
    batch = torch.cat([features, torch.randn(1, 41, 16)], dim=1).repeat(2, 1, 1)
    alone, padded = network(features), network(batch, length_mask(torch.tensor([length, length + 41]), length + 41))
    torch.testing.assert_close(padded.embedding[:1], alone.embedding, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded.frames[:1, :, :length], alone.frames, atol=1e-4, rtol=1e-4)
    assert padded.mask.sum(dim=1).tolist() == [length, length + 41]
    assert (padded.frames[0, :, length:] == 0).all()
    assert not torch.allclose(padded.embedding[1], alone.embedding[0], atol=1e-3)


@pytest.mark.parametrize("length", [1, 10])
def test_short_recordings(length):
    output = small(block="resnet_se")(torch.randn(2, length, 16))
    assert output.embedding.shape == (2, 8)
    assert output.embedding.isfinite().all()
    assert output.frames.shape == (2, 4 * 16, length)


@pytest.mark.parametrize("block", ["convnext", "resnet", "resnet_se"])
def test_gradients_reach_every_parameter(block):
    network = small(block=block, channels=16, frame_dim=24, second_layer=True)
    network(torch.randn(2, 40, 16)).embedding.square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # Softmax ignores a value that is added to all frames; its gradient is nothing but rounding.
    assert [name for name in idle if not name.endswith(("attention.key.bias", "pool.linear2.bias"))] == []


@pytest.mark.processor
def test_half_precision():
    network, features = small(block="resnet_se"), torch.randn(2, 50, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(features).embedding
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, network(features).embedding, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("excite", [False, True])
def test_residual_block_by_its_formula(excite):
    """Against its formula, on a recording without padding."""
    torch.manual_seed(0)
    block, x = lively(ReDimNetResidualBlock(6, 5, 2, excite)), torch.randn(2, 6, 5, 9)
    (conv1, point1), (conv2, point2) = block.convs
    assert conv1.groups == conv2.groups == 3
    out = block.norms[1](point2(conv2(block.norms[0](torch.relu(point1(conv1(x)))))))
    if excite:
        hidden = torch.relu(block.excite.linear1(out.mean(dim=(1, 3))))
        out = out * torch.sigmoid(block.excite.linear2(hidden))[:, None, :, None]
    expected = torch.relu(x + out)
    torch.testing.assert_close(block(x, torch.ones(2, 9, dtype=torch.bool)), expected)


def test_convnext_block_by_its_formula():
    torch.manual_seed(0)
    block, x = lively(ConvNeXtBlock(6, 3, 3, axes=2)), torch.randn(2, 6, 5, 9)
    assert block.conv.groups == 2
    expected = x + block.pointwise(nn.functional.gelu(block.norm(block.conv(x))))
    torch.testing.assert_close(block(x, torch.ones(2, 9, dtype=torch.bool)), expected)


def test_attention_is_over_valid_frames():
    """Four heads; each frame is the average of the valid ones, weighted by the softmax of scaled products."""
    torch.manual_seed(0)
    layer, x, valid = AttentionLayer(8), torch.randn(1, 7, 8), 4
    query, key, value = (part(x)[0] for part in (layer.query, layer.key, layer.value))
    heads = []
    for head in range(4):
        dims = slice(2 * head, 2 * head + 2)
        weights = (query[:, dims] @ key[:valid, dims].T / 2**0.5).softmax(dim=1)
        heads.append(weights @ value[:valid, dims])
    seen = layer.attention_norm(x + layer.project(torch.cat(heads, dim=1)))
    expected = layer.norm(seen + layer.linear2(nn.functional.gelu(layer.linear1(seen), approximate="tanh")))
    torch.testing.assert_close(layer(x, length_mask(torch.tensor([valid]), 7)), expected)


def test_impossible_arguments():
    with pytest.raises(ValueError, match="context_reduction: is 10, of 64"):
        small(stages=(ReDimNetStage(1, 1, 1, 10),))
    with pytest.raises(ValueError, match="group_size: is 3; one that divides 10"):
        small(channels=10, group_size=3, stages=(ReDimNetStage(1, 1),))
    with pytest.raises(ValueError, match="group_size: is 0"):
        small(group_size=0)
    with pytest.raises(ValueError, match="frame_dim: is 0"):
        small(frame_dim=0)
    with pytest.raises(ValueError, match="stride: is 0"):
        ReDimNetStage(0, 1)
