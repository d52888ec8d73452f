"""SpecAugment: masks in training only, of the configured number and width, reproducible with a seed."""

from __future__ import annotations

import pytest
import torch

from wesep_py.features import SpecAugment


def _widths(masked: torch.Tensor) -> list[int]:
    """Return the lengths of the runs of true values."""
    text = "".join("1" if value else "0" for value in masked.tolist())
    return [len(run) for run in text.split("0") if run]


def test_features_are_unchanged_in_evaluation_mode():
    features = torch.randn(2, 50, 80)
    assert SpecAugment(2, 10, 2, 10).eval()(features) is features


def test_a_mask_covers_whole_frames_or_bins_up_to_its_maximum_width():
    torch.manual_seed(0)
    masked = SpecAugment(1, 10, 1, 8)(torch.ones(400, 50, 80)) == 0
    frames, bins = masked.all(dim=2), masked.all(dim=1)
    assert torch.equal(masked, frames[:, :, None] | bins[:, None, :])
    frame_widths = [_widths(row) for row in frames]
    bin_widths = [_widths(row) for row in bins]
    assert all(len(widths) <= 1 for widths in frame_widths + bin_widths)
    # Every width from 0 to the maximum is drawn, and every position is masked at least once.
    assert {sum(widths) for widths in frame_widths} == set(range(11))
    assert {sum(widths) for widths in bin_widths} == set(range(9))
    assert frames.any(dim=0).all() and bins.any(dim=0).all()


def test_widths_are_distributed_uniformly():
    torch.manual_seed(1)
    masked = SpecAugment(1, 4, 0, 0)(torch.ones(5000, 50, 1))[:, :, 0] == 0
    shares = torch.bincount(masked.sum(dim=1), minlength=5) / 5000
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.03, rtol=0)


def test_each_utterance_has_its_own_masks():
    torch.manual_seed(0)
    augmented = SpecAugment(1, 20, 0, 0)(torch.ones(8, 50, 80))
    assert len({tuple(row[:, 0].tolist()) for row in augmented}) > 4


def test_the_number_of_masks_is_the_configured_one():
    torch.manual_seed(0)
    masked = SpecAugment(3, 5, 0, 0)(torch.ones(200, 200, 4))[:, :, 0] == 0
    counts = [len(_widths(row)) for row in masked]
    assert max(counts) == 3
    assert masked.sum(dim=1).max() <= 15


def test_masks_lie_within_the_utterance():
    torch.manual_seed(0)
    lengths = torch.tensor([50, 6, 1])
    masked = SpecAugment(2, 10, 0, 0)(torch.ones(3, 50, 80).repeat(100, 1, 1), lengths.repeat(100))[:, :, 0] == 0
    for row, length in zip(masked, lengths.repeat(100), strict=True):
        assert not row[length:].any()
    assert masked[1::3, :6].any() and masked[2::3, 0].any()


def test_features_may_be_shorter_than_a_mask():
    torch.manual_seed(0)
    assert SpecAugment(1, 100, 1, 200)(torch.ones(4, 3, 5)).shape == (4, 3, 5)


def test_the_same_seed_gives_the_same_masks_and_the_input_stays():
    augment, features = SpecAugment(2, 10, 2, 10), torch.ones(4, 50, 80)
    torch.manual_seed(5)
    first = augment(features)
    torch.manual_seed(5)
    assert torch.equal(augment(features), first)
    assert (features == 1).all()


def test_gradients_pass_where_nothing_is_masked():
    features = torch.ones(2, 50, 80, requires_grad=True)
    augmented = SpecAugment(1, 10, 1, 8)(features)
    augmented.sum().backward()
    assert torch.equal(features.grad, (augmented != 0).float())


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="max_freq_bins: is -1"):
        SpecAugment(max_freq_bins=-1)
    with pytest.raises(ValueError, match=r"\[batch, frames, bins\]"):
        SpecAugment()(torch.zeros(50, 80))
