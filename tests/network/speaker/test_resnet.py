from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker.resnet import ResidualBlock, ResNet


def test_sizes():
    network = ResNet(num_mel_bins=80, num_blocks=(1, 1, 1, 1))
    assert network.frame_dim == 256 * 10
    assert ResNet(num_mel_bins=83, num_blocks=(1, 1, 1, 1)).frame_dim == 256 * 11
    assert ResNet(num_blocks=(1, 1, 1, 1), channels=4, block="bottleneck").frame_dim == 4 * 32 * 10
    output = ResNet(num_blocks=(1, 1, 1, 1), channels=4).eval()(torch.randn(2, 33, 80))
    assert output.frames.shape == (2, 32 * 10, 5) and output.mask.shape == (2, 5)


def test_a_block_passes_its_input_on():
    """With a last normalisation that gives zero, a block without shortcut is a ReLU."""
    block = ResidualBlock(4, 4, 1, bottleneck=False).eval()
    torch.nn.init.zeros_(block.norms[-1].weight)
    x, mask = torch.randn(2, 4, 6, 9), torch.ones(2, 9, dtype=torch.bool)
    torch.testing.assert_close(block(x, mask)[0], x.relu())


def test_astp_is_translated():
    """It was refused once; with or without the recording's statistics, it is a pooling of ours."""
    given = {"num_blocks": (1, 1, 1, 1), "channels": 2, "embedding_dim": 8}
    for context, width in ((False, 160), (True, 480)):
        network = ResNet(**given, pooling={"name": "astp", "global_context": context}).eval()
        assert network.pool.linear1.in_channels == width
        assert network(torch.randn(2, 30, 80)).embedding.shape == (2, 8)


def test_impossible_arguments():
    with pytest.raises(ValueError, match="four numbers"):
        ResNet(num_blocks=(1, 1))
    with pytest.raises(ValueError, match="channels: is 0"):
        ResNet(channels=0)
    with pytest.raises(ConfigError, match="did you mean 'tstp'"):
        ResNet(num_blocks=(1, 1, 1, 1), pooling="tstpp")
