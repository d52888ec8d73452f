from __future__ import annotations

import torch

from wesep_py.network.speaker import length_mask
from wesep_py.network.speaker.speaker_network import ConvNorm, shortcut


def test_what_stands_past_the_end_is_not_heard():
    torch.manual_seed(0)
    for kernel_size, stride in ((3, 1), (3, 2), (3, (2, 1)), (1, 2)):
        layer = ConvNorm(2, 3, kernel_size, stride).eval()
        x = torch.randn(1, 2, 6, 7)
        expected, whole = layer(x, torch.ones(1, 7, dtype=torch.bool))
        padded, mask = layer(torch.cat([x, torch.randn(1, 2, 6, 5)], dim=3), length_mask(torch.tensor([7]), 12))
        assert mask.shape[1] == padded.shape[3]
        assert mask.sum() == whole.sum() == expected.shape[3]
        torch.testing.assert_close(padded[..., : expected.shape[3]], expected)


def test_a_shortcut_only_where_something_changes():
    assert shortcut(4, 4, 1) is None
    assert shortcut(4, 4, (1, 1)) is None
    for in_channels, stride in ((4, 2), (4, (2, 1)), (8, 1)):
        layer = shortcut(in_channels, 4, stride)
        assert layer.conv.kernel_size == (1, 1)
        assert layer(torch.randn(1, in_channels, 6, 6), torch.ones(1, 6, dtype=torch.bool))[0].shape[1] == 4
