"""Recursive attentive pooling, against its equations written out frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker.pooling import VARIANCE_FLOOR, RecursiveAttentivePooling, build_pooling
from wesep_py.network.speaker.speaker_network import length_mask

DIM, FRAMES = 6, 30


@pytest.fixture
def pool() -> RecursiveAttentivePooling:
    """With weights that tell frames apart."""
    torch.manual_seed(0)
    pool = RecursiveAttentivePooling(DIM, bottleneck=5, max_voices=3)
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter)
    return pool.eval()


def everything(frames: torch.Tensor) -> torch.Tensor:
    return torch.ones(frames.shape[0], frames.shape[2], dtype=torch.bool)


def written_out(pool: RecursiveAttentivePooling, h: np.ndarray, voices: int, train_frames: int):
    """The equations of the paper for one recording `[dim, frames]`, with its own W_c: ours over `train_frames`."""
    w = {key: value.numpy().astype(np.float64) for key, value in pool.state_dict().items()}
    w1, w2, wc = w["linear1.weight"][..., 0], w["linear2.weight"][..., 0], w["coverage.weight"][..., 0] * train_frames
    dim, frames = h.shape
    mean, deviation = h.mean(axis=1), h.std(axis=1, ddof=1)
    taken, statistics, existence = np.zeros((dim, frames)), [], []
    for _ in range(voices):
        scores = np.zeros((dim, frames))
        for t in range(frames):
            e = np.concatenate([h[:, t], mean, deviation])
            corrected = wc @ taken[:, t] * frames / train_frames
            scores[:, t] = w2 @ np.maximum(w1 @ e + w["linear1.bias"] + corrected, 0) + w["linear2.bias"]
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        taken += weights
        average = (weights * h).sum(axis=1)
        variance = (weights * h * h).sum(axis=1) - average**2
        statistics.append(np.concatenate([average, np.sqrt(np.maximum(variance, VARIANCE_FLOOR))]))
        existence.append(np.mean([w["existence.weight"][0] @ scores[:, t] for t in range(frames)]))
    return np.array(statistics), np.array(existence) + w["existence.bias"]


@pytest.mark.parametrize("train_frames", [FRAMES, 7])
def test_the_equations(pool, train_frames):
    frames = torch.randn(2, DIM, FRAMES)
    with torch.no_grad():
        found = pool.voices(frames, everything(frames), max_voices=3)
    for item in range(2):
        statistics, existence = written_out(pool, frames[item].numpy().astype(np.float64), 3, train_frames)
        np.testing.assert_allclose(found.statistics[item].numpy(), statistics, atol=1e-4)
        np.testing.assert_allclose(found.existence_logits[item].numpy(), existence, rtol=1e-4)


def test_the_first_voice_is_the_pooling(pool):
    frames = torch.randn(2, DIM, FRAMES)
    torch.testing.assert_close(pool(frames, everything(frames)), pool.voices(frames, everything(frames))[0][:, 0])


def test_the_voices_differ_and_are_as_many_as_constructed(pool):
    frames = torch.randn(1, DIM, FRAMES)
    statistics, logits = pool.voices(frames, everything(frames))
    assert statistics.shape == (1, 3, 2 * DIM) and logits.shape == (1, 3)
    assert (statistics[:, 0] - statistics[:, 1]).abs().max() > 0.05


def test_padding_counts_for_nothing(pool):
    frames, lengths = torch.randn(3, DIM, 40), torch.tensor([40, 23, 1])
    together = pool.voices(frames, length_mask(lengths, 40))
    for item, length in enumerate(lengths):
        alone = frames[item : item + 1, :, :length]
        for ours, theirs in zip(together, pool.voices(alone, everything(alone)), strict=True):
            torch.testing.assert_close(ours[item : item + 1], theirs, atol=1e-4, rtol=1e-4)


def test_a_recording_said_twice_has_the_same_voices(pool):
    """What the correction for another length is for: the coverage of each frame halves, and what it does stays."""
    torch.nn.init.zeros_(pool.linear1.weight[:, 2 * DIM :])  # the unbiased deviation does depend on the length
    frames = torch.randn(1, DIM, FRAMES)
    twice = frames.repeat(1, 1, 2)
    once, again = pool.voices(frames, everything(frames)), pool.voices(twice, everything(twice))
    torch.testing.assert_close(again.statistics, once.statistics, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again.existence_logits, once.existence_logits, atol=1e-4, rtol=1e-4)


def test_gradients_reach_everything_through_the_second_voice(pool):
    frames = torch.randn(2, DIM, 20, requires_grad=True)
    statistics, logits = pool.voices(frames, length_mask(torch.tensor([20, 5]), 20), max_voices=2)
    (statistics[:, 1].square().mean() + logits[:, 1].sum()).backward()
    assert frames.grad.isfinite().all() and (frames.grad[1, :, 5:] == 0).all()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in pool.parameters())


def test_fewer_than_two_voices_are_refused():
    with pytest.raises(ConfigError, match="max_voices: is 1; 2 or more"):
        build_pooling({"name": "recursive", "max_voices": 1}, DIM)
