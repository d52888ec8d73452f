"""ResNet, SimAM-ResNet and Gemini DF-ResNet."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker.resnet import GeminiDFResNet, InvertedBottleneck, ResNet, ResNetBlock, SimAM, SimAMResNet
from wesep_py.network.speaker.speaker_network import length_mask


def test_sizes_of_resnet():
    network = ResNet(num_mel_bins=80, num_blocks=(1, 1, 1, 1))
    assert network.frame_dim == 256 * 10
    assert ResNet(num_mel_bins=83, num_blocks=(1, 1, 1, 1)).frame_dim == 256 * 11
    assert ResNet(num_blocks=(1, 1, 1, 1), channels=4, block="bottleneck").frame_dim == 4 * 32 * 10
    output = ResNet(num_blocks=(1, 1, 1, 1), channels=4).eval()(torch.randn(2, 33, 80))
    assert output.frames.shape == (2, 32 * 10, 5) and output.mask.shape == (2, 5)


def test_block_adds_its_input():
    """With a last normalisation that gives zero, a block without shortcut is a ReLU."""
    block = ResNetBlock(4, 4, 1, bottleneck=False).eval()
    torch.nn.init.zeros_(block.norms[-1].weight)
    x, mask = torch.randn(2, 4, 6, 9), torch.ones(2, 9, dtype=torch.bool)
    torch.testing.assert_close(block(x, mask)[0], x.relu())


def test_resnet_takes_astp_with_and_without_context():
    """A regression: it was refused."""
    options = {"num_blocks": (1, 1, 1, 1), "channels": 2, "embedding_dim": 8}
    for context, width in ((False, 160), (True, 480)):
        network = ResNet(**options, pooling={"name": "astp", "global_context": context}).eval()
        assert network.pool.linear1.in_channels == width
        assert network(torch.randn(2, 30, 80)).embedding.shape == (2, 8)


def test_impossible_arguments_of_resnet():
    with pytest.raises(ValueError, match="four numbers"):
        ResNet(num_blocks=(1, 1))
    with pytest.raises(ValueError, match="channels: is 0"):
        ResNet(channels=0)
    with pytest.raises(ConfigError, match="did you mean 'tstp'"):
        ResNet(num_blocks=(1, 1, 1, 1), pooling="tstpp")


def test_simam_weights_are_those_of_the_paper():
    """Equation 5 of Yang et al. in a loop; the second recording is half as long."""
    x = torch.randn(2, 3, 5, 8)
    mask = length_mask(torch.tensor([8, 4]), 8)
    weighed = SimAM(0.01)(x, mask)
    for item, length in enumerate((8, 4)):
        for channel in range(3):
            values = x[item, channel, :, :length]
            energy = (values - values.mean()) ** 2 / (4 * (values.var(unbiased=True) + 0.01)) + 0.5
            expected = values * energy.sigmoid()
            torch.testing.assert_close(weighed[item, channel, :, :length], expected, atol=1e-6, rtol=1e-5)


def test_all_blocks_of_simam_resnet_have_the_attention():
    network = SimAMResNet(num_blocks=(1, 2, 1, 1), channels=2)
    assert sum(isinstance(module, SimAM) for module in network.modules()) == 5
    assert SimAMResNet(num_blocks=(1, 1, 1, 1)).frame_dim == 64 * 8 * 10


def test_simam_does_not_overflow_in_half_precision():
    x = torch.full((1, 1, 80, 2000), 60.0, dtype=torch.float16)
    x[..., ::2] = -60.0
    assert SimAM()(x, torch.ones(1, 2000, dtype=torch.bool)).isfinite().all()


def test_impossible_arguments_of_simam_resnet():
    with pytest.raises(ValueError, match="regularisation: is 0"):
        SimAM(0)


SMALL = {"num_blocks": (1, 1, 1, 1), "channels": (2, 2, 4, 4, 8), "embedding_dim": 8}


def test_gemini_halves_frequency_four_times_and_time_once():
    network = GeminiDFResNet(80, **SMALL).eval()
    output = network(torch.randn(1, 51, 80))
    assert output.frames.shape == (1, 8 * 5, 26)
    assert network.frame_dim == 8 * 5
    assert GeminiDFResNet(73, **SMALL).eval()(torch.randn(1, 51, 73)).frames.shape == (1, 8 * 5, 26)


def test_gemini_halves_time_in_the_second_stage():
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


def test_inverted_bottleneck_is_depthwise():
    block = InvertedBottleneck(3)
    assert block.convs[1].groups == block.convs[1].in_channels == 12
    assert sum(p.numel() for p in block.parameters()) == 3 * 12 + 12 * 9 + 12 * 3 + 2 * (12 + 12 + 3)


def test_impossible_arguments_of_gemini():
    with pytest.raises(ValueError, match=r"num_blocks: is \[1, 1\]; four"):
        GeminiDFResNet(num_blocks=(1, 1))
    with pytest.raises(ValueError, match=r"channels: is \[2, 2\]; five"):
        GeminiDFResNet(channels=(2, 2))
