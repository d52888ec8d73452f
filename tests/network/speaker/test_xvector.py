from __future__ import annotations

import pytest
import torch

from wesep_py.network.speaker.speaker_network import length_mask
from wesep_py.network.speaker.xvector import CONTEXT, XVector, repeat_short


def test_a_frame_has_seen_fifteen():
    """Change one input frame: those that change are the ones whose context holds it."""
    network = XVector(num_mel_bins=6, channels=8, frame_dim=10, embedding_dim=4).eval()
    features = torch.randn(1, 60, 6)
    changed = features.clone()
    changed[:, 30] += 5.0
    different = (network(features).frames != network(changed).frames).any(dim=1)[0]
    assert CONTEXT == 15 and len(different) == 60 - 14
    assert set(different.nonzero()[:, 0].tolist()) <= set(range(16, 31))
    assert different[16] and different[30]


def test_short_recordings_are_repeated():
    features = torch.arange(2 * 4, dtype=torch.float32).reshape(2, 4, 1)
    repeated, mask = repeat_short(features, length_mask(torch.tensor([3, 4]), 4), 5)
    assert repeated[:, :, 0].tolist() == [[0, 1, 2, 0, 1], [4, 5, 6, 7, 4]]
    assert mask.all()
    long = torch.randn(2, 9, 1)
    repeated, mask = repeat_short(long, length_mask(torch.tensor([3, 9]), 9), 5)
    assert torch.equal(repeated[1], long[1]) and mask.sum(dim=1).tolist() == [5, 9]
    assert repeated[0, :5, 0].tolist() == [*long[0, :3, 0].tolist(), *long[0, :2, 0].tolist()]


def test_impossible_arguments():
    with pytest.raises(ValueError, match="frame_dim: is 0"):
        XVector(frame_dim=0)
