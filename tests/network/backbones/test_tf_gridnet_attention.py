"""The full-band attention of TF-GridNet: windows, blocks of queries, and its streaming memory."""

from __future__ import annotations

import pytest
import torch

from tests.network.backbones.largest_tensor import largest_tensor
from wesep_py.network.backbones import tf_gridnet as full_band_attention
from wesep_py.network.backbones.tf_gridnet import FullBandAttention, windowed_attention


def every_pair(query, key, value, causal, window):
    """Slow reference: the scores of all pairs of frames, then a mask."""
    frames, keys = query.shape[2], key.shape[2]
    distance = torch.arange(keys - frames, keys)[:, None] - torch.arange(keys)
    hidden = torch.zeros(frames, keys, dtype=torch.bool)
    if causal:
        hidden |= distance < 0
    if window is not None:
        hidden |= distance.abs() > window
    scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
    return scores.masked_fill(hidden, -torch.inf).softmax(dim=3) @ value


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 7, 100])
@pytest.mark.parametrize("earlier", [0, 3])
def test_blocks_of_queries_equal_the_whole_attention(monkeypatch, causal, window, earlier):
    monkeypatch.setattr(full_band_attention, "MAX_QUERIES_PER_BLOCK", 8)
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 2, 41, 6), torch.randn(2, 2, 41 + earlier, 6), torch.randn(2, 2, 41 + earlier, 3)
    expected = every_pair(query, key, value, causal, window)
    torch.testing.assert_close(windowed_attention(query, key, value, causal, window), expected)


def test_keys_beyond_the_window_have_no_influence(monkeypatch):
    """Keys far away may be not-a-number, because they are part of no product."""
    monkeypatch.setattr(full_band_attention, "MAX_QUERIES_PER_BLOCK", 4)
    x = torch.randn(1, 1, 40, 4)
    poisoned = x.clone()
    poisoned[:, :, 20:] = torch.nan
    out = windowed_attention(x, poisoned, poisoned, False, 5)
    assert torch.isfinite(out[:, :, :8]).all()
    out = windowed_attention(x, poisoned.flip(2), poisoned.flip(2), False, 5)
    assert torch.isfinite(out[:, :, 32:]).all()


@pytest.mark.parametrize("causal", [False, True])
def test_memory_grows_linearly_with_the_frames(monkeypatch, causal):
    attention = FullBandAttention(2, 3, 1, 3, causal, window=40)

    def needed(frames: int) -> int:
        return largest_tensor(lambda: attention(torch.randn(1, frames, 3, 2)))

    monkeypatch.setattr(full_band_attention, "MAX_QUERIES_PER_BLOCK", 2**30)
    assert needed(1600) == 16 * needed(400)
    monkeypatch.setattr(full_band_attention, "MAX_QUERIES_PER_BLOCK", 16)
    assert needed(1600) == 4 * needed(400)


def test_a_single_frame_attends_to_itself():
    """With one frame the softmax is 1, so the output is the value."""
    value = torch.randn(1, 2, 1, 3)
    assert torch.equal(windowed_attention(torch.randn(1, 2, 1, 4), torch.randn(1, 2, 1, 4), value, True, None), value)


def test_query_size_is_divided_among_the_bins():
    """512 over 65 bins: 8 channels per bin, so queries of 520 numbers; values of 128 / 4 channels per bin."""
    attention = FullBandAttention(128, 65, 4, 512, causal=False, window=None)
    x = torch.randn(1, 3, 65, 128)
    assert attention.query(x).shape == (1, 4, 3, 520)
    assert attention.value(x).shape == (1, 4, 3, 32 * 65)
    out, memory = attention(x)
    assert out.shape == x.shape
    assert memory is None


def test_heads_are_normalised_in_each_frame():
    torch.manual_seed(0)
    heads = FullBandAttention(8, 5, 2, 20, causal=False, window=None).query(torch.randn(2, 4, 5, 8) * 3)
    torch.testing.assert_close(heads.mean(dim=3), torch.zeros(2, 2, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(heads.var(dim=3, unbiased=False), torch.ones(2, 2, 4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("window", [None, 3])
def test_causal_attention_of_blocks_equals_that_of_the_whole(window):
    torch.manual_seed(0)
    attention = FullBandAttention(8, 5, 2, 20, causal=True, window=window)
    x = torch.randn(2, 20, 5, 8)
    whole, memory = attention(x)
    assert memory is not None
    assert memory[0].shape[2] == (20 if window is None else window)
    outputs, memory = [], None
    for block in x.split([1, 2, 9, 8], dim=1):
        out, memory = attention(block, memory)
        outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole)


def test_num_heads_has_to_divide_the_features():
    with pytest.raises(ValueError, match="a divisor of feature_dim"):
        FullBandAttention(8, 5, 3, 20, causal=False, window=None)
