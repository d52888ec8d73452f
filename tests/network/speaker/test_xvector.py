"""x-vector and d-vector."""

from __future__ import annotations

import pytest
import torch

from wesep_py.network.speaker.speaker_network import length_mask
from wesep_py.network.speaker.xvector import CONTEXT_FRAMES, DVector, XVector, repeat_short


def test_context_of_a_frame_is_fifteen_frames():
    """If one input frame changes, the output frames with it in their context change, and no others."""
    network = XVector(num_mel_bins=6, channels=8, frame_dim=10, embedding_dim=4).eval()
    features = torch.randn(1, 60, 6)
    changed = features.clone()
    changed[:, 30] += 5.0
    different = (network(features).frames != network(changed).frames).any(dim=1)[0]
    assert CONTEXT_FRAMES == 15 and len(different) == 60 - 14
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


def test_impossible_arguments_of_xvector():
    with pytest.raises(ValueError, match="frame_dim: is 0"):
        XVector(frame_dim=0)


def test_embedding_of_dvector_is_the_projected_mean_of_length_one():
    torch.manual_seed(0)
    network = DVector(num_mel_bins=6, hidden_dim=8, num_layers=2, frame_dim=4, embedding_dim=5)
    output = network(torch.randn(3, 20, 6))
    expected = network.linear(output.frames.mean(dim=2))
    torch.testing.assert_close(output.embedding, expected / expected.norm(dim=1, keepdim=True))
    assert output.frames.shape == (3, 4, 20)


def test_later_frames_do_not_change_a_frame_of_dvector():
    network = DVector(num_mel_bins=6, hidden_dim=8, frame_dim=4, embedding_dim=5)
    features = torch.randn(1, 20, 6)
    changed = features.clone()
    changed[:, 12] += 3.0
    same = (network(features).frames == network(changed).frames).all(dim=1)[0]
    assert same[:12].all() and not same[12:].any()


def test_size_of_dvector_in_the_paper():
    """Three layers of 768 cells projected to 256, from 40 bins: Wan et al."""
    network = DVector(num_mel_bins=40)
    layers = sum(4 * 768 * (bins + 256 + 2) + 256 * 768 for bins in (40, 256, 256))
    assert sum(p.numel() for p in network.parameters()) == layers + 256 * 256 + 256


def test_dvector_of_the_last_frame_without_projection_and_with_relu():
    """The form of Wan et al.'s windows: the last state of the LSTM, linear, ReLU, length one; padding is ignored."""
    torch.manual_seed(0)
    network = DVector(6, hidden_dim=8, num_layers=2, frame_dim=8, embedding_dim=5, pooling="last", activation="relu")
    features = torch.randn(2, 20, 6)
    _, (hidden, _) = network.lstm(features[:1, :13])
    expected = network.linear(hidden[-1]).relu()
    output = network(features, length_mask(torch.tensor([13, 20]), 20))
    torch.testing.assert_close(output.embedding[:1], expected / expected.norm())
    assert (output.embedding >= 0).all() and output.frames.shape == (2, 8, 20)


def test_names_of_dvector_in_checkpoints():
    assert {key.split(".")[0] for key in DVector(hidden_dim=8, frame_dim=4).state_dict()} == {"lstm", "linear"}


def test_impossible_arguments_of_dvector():
    with pytest.raises(ValueError, match=r"frame_dim: is 10; from 1 to hidden_dim \(9\)"):
        DVector(hidden_dim=9, frame_dim=10)
    with pytest.raises(ValueError, match="num_layers: is 0"):
        DVector(num_layers=0)
    with pytest.raises(ValueError, match="dropout: is 1"):
        DVector(dropout=1.0)
