from __future__ import annotations

import pytest
import torch

from wesep_py.network.speaker import ECAPATDNN, AttentiveStatisticsPooling, length_mask


@pytest.mark.parametrize("global_context", [False, True])
def test_padding_changes_nothing(global_context):
    torch.manual_seed(0)
    network = ECAPATDNN(channels=16, frame_dim=32, embedding_dim=8, global_context=global_context).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.normal_(module.bias)
    features = torch.randn(1, 60, 80)
    padded = torch.cat([features, torch.randn(1, 40, 80)], dim=1)
    alone, masked = network(features), network(padded, length_mask(torch.tensor([60]), 100))
    torch.testing.assert_close(masked.embedding, alone.embedding, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(masked.frames[:, :, :60], alone.frames, atol=1e-5, rtol=1e-4)
    assert (masked.frames[:, :, 60:] == 0).all()


def test_uniform_attention_gives_mean_and_deviation():
    pooling = AttentiveStatisticsPooling(4)
    torch.nn.init.zeros_(pooling.linear2.weight)
    torch.nn.init.zeros_(pooling.linear2.bias)
    frames = torch.randn(2, 4, 50)
    pooled = pooling(frames, torch.ones(2, 50, dtype=torch.bool))
    expected = torch.cat([frames.mean(dim=2), frames.std(dim=2, unbiased=False)], dim=1)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "in_channels"),
    [
        ({}, 96),
        ({"global_context": False}, 32),
        ({"pooling": {"name": "astp"}}, 32),
        ({"pooling": {"name": "astp", "global_context": True}}, 96),
    ],
)
def test_global_context_of_the_attention(arguments, in_channels):
    assert ECAPATDNN(channels=16, frame_dim=32, **arguments).pool.linear1.in_channels == in_channels


@pytest.mark.parametrize(("pooling", "out_dim"), [("tap", 32), ("tstp", 64), ("mhastp", 64), ("mqmhastp", 128)])
def test_other_poolings(pooling, out_dim):
    network = ECAPATDNN(channels=16, frame_dim=32, embedding_dim=8, pooling=pooling).eval()
    assert network.pool_norm.num_features == network.linear.in_features == out_dim
    assert network(torch.randn(2, 20, 80)).embedding.shape == (2, 8)
    with pytest.raises(ValueError, match="remove it"):
        ECAPATDNN(channels=16, frame_dim=32, pooling=pooling, global_context=True)


def test_res2_scale_must_divide_the_channels():
    with pytest.raises(ValueError, match="multiple of res2_scale"):
        ECAPATDNN(channels=20)


def test_frames_of_the_last_block():
    torch.manual_seed(0)
    pooled = ECAPATDNN(channels=16, frame_dim=32, embedding_dim=8).eval()
    last = ECAPATDNN(channels=16, frame_dim=32, embedding_dim=8, frames="last_block").eval()
    last.load_state_dict(pooled.state_dict())
    features = torch.randn(2, 60, 80)
    assert torch.equal(last(features).embedding, pooled(features).embedding)
    assert last(features).frames.shape == (2, last.frame_dim, 60) == (2, 16, 60)
    assert pooled(features).frames.shape == (2, pooled.frame_dim, 60) == (2, 32, 60)
