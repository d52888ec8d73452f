"""Res2Net and ERes2Net."""

from __future__ import annotations

import pytest
import torch

from wesep_py.network.speaker import length_mask
from wesep_py.network.speaker.res2net import AttentiveFusion, ERes2Net, Res2Block, Res2Net, clipped_relu

BOTH = pytest.mark.parametrize("kind", [Res2Net, ERes2Net])


def small(kind: type[Res2Net] = Res2Net, **arguments) -> Res2Net:
    """Return a small network in evaluation mode whose normalisations shift zeros."""
    torch.manual_seed(0)
    network = kind(**{"num_blocks": (1, 2, 1, 1), "channels": 4, "embedding_dim": 8, "scale": 3, **arguments}).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.normal_(module.bias, std=0.3)
    return network


@BOTH
@pytest.mark.parametrize("length", [1, 10, 61, 64])
def test_padding_changes_nothing(kind, length):
    network = small(kind)
    features = torch.randn(1, length, 80)
    padded = torch.cat([features, torch.full((1, 41, 80), 3.0)], dim=1)
    with torch.no_grad():
        alone, masked = network(features), network(padded, length_mask(torch.tensor([length]), length + 41))
    assert alone.embedding.isfinite().all()
    torch.testing.assert_close(masked.embedding, alone.embedding, atol=1e-5, rtol=1e-4)
    valid = alone.frames.shape[2]
    assert valid == -(-length // 8) == masked.mask.sum()
    torch.testing.assert_close(masked.frames[:, :, :valid], alone.frames, atol=1e-5, rtol=1e-4)
    assert (masked.frames[:, :, valid:] == 0).all()


@BOTH
def test_gradients_reach_every_parameter(kind):
    network = small(kind, second_layer=True, pooling="astp")
    network(torch.randn(3, 20, 80)).embedding.square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.processor
@BOTH
def test_half_precision(kind):
    network, features = small(kind), torch.randn(2, 40, 80)
    with torch.no_grad():
        expected = network(features).embedding
        with torch.autocast("cpu", torch.bfloat16):
            embedding = network(features).embedding
    assert embedding.dtype == torch.float32
    assert (embedding - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("variant", ["pass_last", "plain", "attentive"])
def test_res2_block_by_its_formula(variant, stride):
    """Three parts, against a computation step by step."""
    torch.manual_seed(0)
    block = Res2Block(6, 6, stride, 4, 3, 2, pass_last=variant == "pass_last", attentive=variant == "attentive").eval()
    x, mask = torch.randn(2, 6, 8, 9), torch.ones(2, 9, dtype=torch.bool)

    def layer(conv_norm, image):
        return conv_norm.norm(conv_norm.conv(image))

    a, b, c = clipped_relu(layer(block.reduce, x)).chunk(3, dim=1)
    first = clipped_relu(layer(block.convs[0], a))
    joined = block.fusions[0](first, b) if variant == "attentive" else first + b
    second = clipped_relu(layer(block.convs[1], joined))
    joined = block.fusions[1](second, c) if variant == "attentive" else second + c
    third = c if variant == "pass_last" else clipped_relu(layer(block.convs[2], joined))
    expected = clipped_relu(layer(block.expand, torch.cat([first, second, third], 1)) + layer(block.shortcut, x))
    out, strided = block(x, mask)
    torch.testing.assert_close(out, expected)
    assert out.shape == (2, 12, 8 // stride, -(-9 // stride))
    assert strided.shape == (2, out.shape[3])


def test_activations_are_clipped():
    out, _ = Res2Block(4, 4, 1, 2, 2, 1, pass_last=True).eval()(
        torch.full((1, 4, 3, 3), 1e4), torch.ones(1, 3, dtype=torch.bool)
    )
    assert out.max() == 20
    assert out.min() >= 0


def test_attentive_fusion_balances():
    """With an attention of 0 the two are added; at its ends one of them is doubled and the other is not used."""
    fusion = AttentiveFusion(4).eval()
    x, y = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    for bias, expected in ((0.0, x + y), (50.0, 2 * x), (-50.0, 2 * y)):
        torch.nn.init.zeros_(fusion.attention[4].weight)
        torch.nn.init.constant_(fusion.attention[4].bias, bias)
        torch.testing.assert_close(fusion(x, y), expected)


@BOTH
def test_impossible_sizes(kind):
    with pytest.raises(ValueError, match="four numbers"):
        small(kind, num_blocks=(1, 1))
    with pytest.raises(ValueError, match="2 or more parts"):
        small(kind, scale=1)
    with pytest.raises(ValueError, match="expansion: is 0"):
        small(kind, expansion=0)
    with pytest.raises(ValueError, match="base_width: is 8, which with 4 channels"):
        small(kind, base_width=8)


def test_fusion_is_global_from_stage_two_and_local_from_stage_three():
    network = ERes2Net(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8)
    assert [stage[0].fusions is not None for stage in network.stages] == [False, False, True, True]
    seen = []
    for fusion in network.fusions:
        fusion.register_forward_hook(lambda _, images, fused: seen.append((images[0].shape, fused)))
    output = network.eval()(torch.randn(2, 60, 80))
    assert [tuple(shape) for shape, _ in seen] == [(2, 16, 40, 30), (2, 32, 20, 15), (2, 64, 10, 8)]
    torch.testing.assert_close(output.frames, seen[-1][1].flatten(1, 2))


def test_too_few_channels_to_fuse_are_refused():
    with pytest.raises(ValueError, match="channels: attentive fusion of 2 channels"):
        ERes2Net(num_blocks=(1, 1, 1, 1), channels=1, base_width=64, expansion=1)
