"""The loop over bands that `bench/bsrnn_bands.py` measures against computes what the package computes."""

from __future__ import annotations

import pytest
import torch

from bench.bsrnn_bands import EMBEDDING_DIM, LoopedBSRNN, compare, largest_difference, networks


@pytest.fixture
def pair():
    return networks(feature_dim=8, num_blocks=2)


def test_both_compute_the_same_with_as_many_weights(pair):
    ours, loop = pair
    assert largest_difference(ours, loop) < 1e-5
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in loop.parameters())
    assert len(loop.split) == len(loop.masks) == 32


def test_both_have_the_same_gradients(pair):
    ours, loop = pair
    mixture, embedding = torch.randn(1, 4000), torch.randn(1, EMBEDDING_DIM)
    for network in pair:
        network(mixture, embedding).square().mean().backward()
    first, last = ours.network.backbone.split[0].linear, ours.network.backbone.masks[-1].layers[1]
    assert torch.allclose(first.weight.grad[3].T, loop.split[3][1].weight.grad[:, :, 0], rtol=1e-3, atol=1e-7)
    assert torch.allclose(last.weight.grad[-1].T, loop.masks[-1][1].weight.grad[:, :, 0], rtol=1e-3, atol=1e-7)
    rnn = ours.network.backbone.blocks[1].across_bands.rnn.weight_hh_l0
    assert torch.allclose(rnn.grad, loop.blocks[3].rnn.weight_hh_l0.grad, rtol=1e-3, atol=1e-7)
    assert rnn.grad.any() and first.weight.grad[3].any()


@pytest.mark.parametrize("part", ["split.20.1", "masks.31.5", "blocks.2.linear", "fusion"])
def test_another_weight_is_seen(pair, part):
    ours, loop = pair
    assert isinstance(loop, LoopedBSRNN)
    with torch.no_grad():
        loop.get_submodule(part).weight.mul_(1.5)
    assert largest_difference(ours, loop) > 1e-5


def test_a_ratio_is_ours_to_the_loops():
    matrix, calls = torch.randn(200, 200), []

    def work(name: str, times: int) -> None:
        calls.append(name)
        for _ in range(times):
            matrix @ matrix

    found = compare(lambda: work("ours", 10), lambda: work("loop", 200), rounds=3)
    assert len(found.ratios) == 3 and max(found.computed_ratios) < 0.5 and found.ours_s < found.loop_s
    assert calls == ["ours", "loop", "loop", "ours", "ours", "loop", "loop", "ours"]
