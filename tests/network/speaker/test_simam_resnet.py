from __future__ import annotations

import pytest
import torch

from wesep_py.network.speaker.resnet import SimAM, SimAMResNet
from wesep_py.network.speaker.speaker_network import length_mask


def test_weights_are_those_of_the_paper():
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


def test_every_block_has_it():
    network = SimAMResNet(num_blocks=(1, 2, 1, 1), channels=2)
    assert sum(isinstance(module, SimAM) for module in network.modules()) == 5
    assert SimAMResNet(num_blocks=(1, 1, 1, 1)).frame_dim == 64 * 8 * 10


def test_half_precision_does_not_overflow():
    x = torch.full((1, 1, 80, 2000), 60.0, dtype=torch.float16)
    x[..., ::2] = -60.0
    assert SimAM()(x, torch.ones(1, 2000, dtype=torch.bool)).isfinite().all()


def test_impossible_arguments():
    with pytest.raises(ValueError, match="regularisation: is 0"):
        SimAM(0)
