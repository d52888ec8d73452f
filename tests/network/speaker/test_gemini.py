from __future__ import annotations

import pytest
import torch

from wesep_py.network.speaker.resnet import GeminiDFResNet, InvertedBottleneck

SMALL = {"num_blocks": (1, 1, 1, 1), "channels": (2, 2, 4, 4, 8), "embedding_dim": 8}


def test_frequency_is_halved_four_times_and_time_once():
    network = GeminiDFResNet(80, **SMALL).eval()
    output = network(torch.randn(1, 51, 80))
    assert output.frames.shape == (1, 8 * 5, 26)
    assert network.frame_dim == 8 * 5
    assert GeminiDFResNet(73, **SMALL).eval()(torch.randn(1, 51, 73)).frames.shape == (1, 8 * 5, 26)


def test_time_is_halved_in_the_second_stage():
    network = GeminiDFResNet(80, **SMALL).eval()
    shapes = []
    for stage in network.stages:
        stage.register_forward_hook(lambda _module, _given, out: shapes.append((out[0].shape[2:], out[1].shape[1])))
    network(torch.randn(1, 40, 80))
    assert [(tuple(shape), frames) for shape, frames in shapes] == [
        ((40, 40), 40),
        ((20, 20), 20),
        ((10, 20), 20),
        ((5, 20), 20),
    ]


def test_a_block_convolves_each_channel_by_itself():
    block = InvertedBottleneck(3)
    assert block.convs[1].groups == block.convs[1].in_channels == 12
    assert sum(p.numel() for p in block.parameters()) == 3 * 12 + 12 * 9 + 12 * 3 + 2 * (12 + 12 + 3)


def test_impossible_arguments():
    with pytest.raises(ValueError, match=r"num_blocks: is \[1, 1\]; four"):
        GeminiDFResNet(num_blocks=(1, 1))
    with pytest.raises(ValueError, match=r"channels: is \[2, 2\]; five"):
        GeminiDFResNet(channels=(2, 2))
