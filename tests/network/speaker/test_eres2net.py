from __future__ import annotations

import pytest
import torch

from wesep_py.network.speaker.res2net import ERes2Net


def test_fuses_globally_from_the_second_stage_on_and_locally_from_the_third():
    network = ERes2Net(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8)
    assert [stage[0].fusions is not None for stage in network.stages] == [False, False, True, True]
    seen = []
    for fusion in network.fusions:
        fusion.register_forward_hook(lambda _, images, fused: seen.append((images[0].shape, fused)))
    output = network.eval()(torch.randn(2, 60, 80))
    assert [tuple(shape) for shape, _ in seen] == [(2, 16, 40, 30), (2, 32, 20, 15), (2, 64, 10, 8)]
    torch.testing.assert_close(output.frames, seen[-1][1].flatten(1, 2))


def test_impossible():
    with pytest.raises(ValueError, match="channels: attentive fusion of 2 channels"):
        ERes2Net(num_blocks=(1, 1, 1, 1), channels=1, base_width=64, expansion=1)
