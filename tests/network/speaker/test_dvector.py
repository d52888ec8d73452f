from __future__ import annotations

import pytest
import torch

from wesep_py.network.speaker.xvector import DVector


def test_the_embedding_is_the_frames_mean_projected_and_of_length_one():
    torch.manual_seed(0)
    network = DVector(num_mel_bins=6, hidden_dim=8, num_layers=2, frame_dim=4, embedding_dim=5)
    output = network(torch.randn(3, 20, 6))
    expected = network.linear(output.frames.mean(dim=2))
    torch.testing.assert_close(output.embedding, expected / expected.norm(dim=1, keepdim=True))
    assert output.frames.shape == (3, 4, 20)


def test_a_frame_does_not_hear_what_follows():
    network = DVector(num_mel_bins=6, hidden_dim=8, frame_dim=4, embedding_dim=5)
    features = torch.randn(1, 20, 6)
    changed = features.clone()
    changed[:, 12] += 3.0
    same = (network(features).frames == network(changed).frames).all(dim=1)[0]
    assert same[:12].all() and not same[12:].any()


def test_size_of_the_papers_network():
    """Three layers of 768 cells projected to 256, from 40 bins: Wan et al."""
    network = DVector(num_mel_bins=40)
    layers = sum(4 * 768 * (bins + 256 + 2) + 256 * 768 for bins in (40, 256, 256))
    assert sum(p.numel() for p in network.parameters()) == layers + 256 * 256 + 256


def test_names_in_checkpoints():
    assert {key.split(".")[0] for key in DVector(hidden_dim=8, frame_dim=4).state_dict()} == {"lstm", "linear"}


def test_impossible_arguments():
    with pytest.raises(ValueError, match=r"frame_dim: is 9; from 1 to below hidden_dim \(9\)"):
        DVector(hidden_dim=9, frame_dim=9)
    with pytest.raises(ValueError, match="num_layers: is 0"):
        DVector(num_layers=0)
    with pytest.raises(ValueError, match="dropout: is 1"):
        DVector(dropout=1.0)
