"""Poolings over time, against their formulas and with padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker.pooling import (
    VARIANCE_FLOOR,
    GhostVLAD,
    MultiHeadAttentivePooling,
    NetVLAD,
    NormalisedAttentivePooling,
    RecursiveAttentivePooling,
    build_pooling,
    poolings,
)
from wesep_py.network.speaker.speaker_network import length_mask

POOLING_DIM = 16


def built(name: str, **arguments):
    """Return a pooling in evaluation mode whose weights differ between frames."""
    torch.manual_seed(0)
    pool = build_pooling({"name": name, **arguments}, POOLING_DIM).eval()
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter)
    return pool


def everything(frames: torch.Tensor) -> torch.Tensor:
    return torch.ones(frames.shape[0], frames.shape[2], dtype=torch.bool)


@pytest.mark.parametrize("name", poolings.names())
def test_padding_changes_nothing(name):
    pool = built(name)
    frames = torch.randn(3, POOLING_DIM, 40)
    lengths = torch.tensor([40, 23, 1])
    pooled = pool(frames, length_mask(lengths, 40))
    assert pooled.shape == (3, pool.out_dim)
    for item, length in enumerate(lengths):
        alone = frames[item : item + 1, :, :length]
        torch.testing.assert_close(pooled[item : item + 1], pool(alone, everything(alone)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", poolings.names())
def test_gradients_are_finite_and_reach_all_parameters(name):
    pool = built(name)
    frames = torch.randn(2, POOLING_DIM, 20, requires_grad=True)
    pool(frames, length_mask(torch.tensor([20, 5]), 20)).square().mean().backward()
    assert frames.grad.isfinite().all() and (frames.grad[1, :, 5:] == 0).all()
    assert (frames.grad[0] != 0).any()
    for key, parameter in pool.named_parameters():
        if key.split(".")[0] not in ("coverage", "existence"):  # of later voices: test_recursive.py
            assert parameter.grad.isfinite().all()


@pytest.mark.processor
@pytest.mark.parametrize("name", poolings.names())
def test_half_precision_frames_are_pooled_in_float32(name):
    pool = built(name)
    frames = 30 * torch.rand(2, POOLING_DIM, 200).to(torch.bfloat16)
    expected = pool(frames.float(), everything(frames))
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pool(frames, everything(frames))
    assert pooled.dtype == torch.float32
    if not list(pool.parameters()):
        torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_each_head_weights_its_own_channels(per_channel, num_layers):
    """Against a loop over recordings, heads and channels."""
    pool = built("mhastp", num_heads=4, num_layers=num_layers, bottleneck=5, per_channel=per_channel)
    frames = torch.randn(2, POOLING_DIM, 12)
    width, expected = POOLING_DIM // 4, []
    for recording in frames:
        parts = []
        for number, head in enumerate(pool.heads):
            part = recording[number * width : (number + 1) * width]
            scores = head(part[None])[0].expand(width, -1)
            weights = torch.stack([row.softmax(dim=0) for row in scores])
            mean = torch.stack([w @ channel for w, channel in zip(weights, part, strict=True)])
            second = torch.stack([w @ channel**2 for w, channel in zip(weights, part, strict=True)])
            parts += [mean, (second - mean**2).clamp_min(1e-7).sqrt()]
        expected.append(torch.cat(parts))
    torch.testing.assert_close(pool(frames, everything(frames)), torch.stack(expected), atol=1e-5, rtol=1e-4)
    assert sum(isinstance(layer, torch.nn.Conv1d) for layer in pool.heads[0]) == num_layers


def test_queries_are_concatenated():
    pool = built("mqmhastp", num_queries=3, num_heads=2)
    frames = torch.randn(2, POOLING_DIM, 12)
    pooled = pool(frames, everything(frames))
    assert pool.out_dim == 3 * 2 * POOLING_DIM
    for number, query in enumerate(pool.queries):
        part = pooled[:, number * 2 * POOLING_DIM : (number + 1) * 2 * POOLING_DIM]
        torch.testing.assert_close(part, query(frames, everything(frames)))


def test_vlad_is_the_sum_of_weighted_residuals():
    """Against equation 1 of Xie et al., term by term."""
    pool = built("ghostvlad", num_clusters=3, num_ghosts=2)
    frames = torch.randn(2, POOLING_DIM, 7)
    weight, bias = pool.assign.weight[:, :, 0], pool.assign.bias
    expected = torch.zeros(2, 3, POOLING_DIM)
    for item in range(2):
        for t in range(7):
            x = frames[item, :, t]
            exponents = (weight @ x + bias).exp()
            for k in range(3):
                expected[item, k] += exponents[k] / exponents.sum() * (x - pool.centres[k])
    expected = expected / expected.norm(dim=2, keepdim=True)
    torch.testing.assert_close(pool(frames, everything(frames)), expected.flatten(1), atol=1e-5, rtol=1e-4)


def test_ghosts_take_frames_from_the_centres():
    """Frames that are assigned to the ghost have almost no weight; without ghosts they have."""
    frames = torch.randn(1, POOLING_DIM, 10)
    frames[:, 0, :5] = 100.0
    for pool, counts in ((GhostVLAD(POOLING_DIM, 2, 1), False), (NetVLAD(POOLING_DIM, 2), True)):
        torch.manual_seed(0)
        torch.nn.init.zeros_(pool.assign.weight)
        torch.nn.init.zeros_(pool.assign.bias)
        torch.nn.init.normal_(pool.centres)
        if not counts:
            pool.assign.weight.data[2, 0] = 10.0
        changed = frames.clone()
        changed[:, 3, :5] += 5.0
        before, after = pool(frames, everything(frames)), pool(changed, everything(frames))
        assert ((before - after).norm() > 1e-3) == counts


def test_netvlad_has_no_ghosts():
    assert NetVLAD(POOLING_DIM, 5).assign.out_channels == 5
    assert GhostVLAD(POOLING_DIM, 5, 3).assign.out_channels == 8


def test_normalised_attention_is_attention():
    """With the same scores for all frames it is the plain mean and deviation."""
    pool = NormalisedAttentivePooling(POOLING_DIM).eval()
    torch.nn.init.zeros_(pool.linear2.weight)
    frames = torch.randn(2, POOLING_DIM, 50)
    expected = torch.cat([frames.mean(dim=2), frames.std(dim=2, unbiased=False)], dim=1)
    torch.testing.assert_close(pool(frames, everything(frames)), expected, atol=1e-5, rtol=1e-4)
    constant = pool(torch.ones(1, POOLING_DIM, 5), torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(constant[0, POOLING_DIM:], torch.full((POOLING_DIM,), 1e-5**0.5))


def test_impossible_arguments():
    with pytest.raises(ConfigError, match="did you mean 'mhastp'"):
        build_pooling("mhastpp", POOLING_DIM)
    with pytest.raises(ConfigError, match="num_heads: is 3; a number that divides the 16 channels"):
        build_pooling({"name": "mhastp", "num_heads": 3}, POOLING_DIM)
    with pytest.raises(ValueError, match="num_layers"):
        MultiHeadAttentivePooling(POOLING_DIM, num_layers=0)
    with pytest.raises(ConfigError, match="num_queries"):
        build_pooling({"name": "mqmhastp", "num_queries": 0}, POOLING_DIM)
    with pytest.raises(ConfigError, match="num_clusters"):
        build_pooling({"name": "netvlad", "num_clusters": 0}, POOLING_DIM)
    with pytest.raises(ConfigError, match="num_ghosts"):
        build_pooling({"name": "ghostvlad", "num_ghosts": -1}, POOLING_DIM)


RECURSIVE_DIM, FRAMES = 6, 30


@pytest.fixture
def pool() -> RecursiveAttentivePooling:
    """Return a pooling whose weights differ between frames."""
    torch.manual_seed(0)
    pool = RecursiveAttentivePooling(RECURSIVE_DIM, bottleneck=5, max_voices=3)
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter)
    return pool.eval()


def written_out(pool: RecursiveAttentivePooling, h: np.ndarray, voices: int, train_frames: int):
    """Compute the paper's equations for one recording `[dim, frames]`; its W_c is ours over `train_frames`."""
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
def test_recursive_pooling_by_its_equations(pool, train_frames):
    frames = torch.randn(2, RECURSIVE_DIM, FRAMES)
    with torch.no_grad():
        voices = pool.voices(frames, everything(frames), max_voices=3)
    for item in range(2):
        statistics, existence = written_out(pool, frames[item].numpy().astype(np.float64), 3, train_frames)
        np.testing.assert_allclose(voices.statistics[item].numpy(), statistics, atol=1e-4)
        np.testing.assert_allclose(voices.existence_logits[item].numpy(), existence, rtol=1e-4)


def test_pooling_is_that_of_the_first_voice(pool):
    frames = torch.randn(2, RECURSIVE_DIM, FRAMES)
    torch.testing.assert_close(pool(frames, everything(frames)), pool.voices(frames, everything(frames))[0][:, 0])


def test_number_of_voices_is_that_of_the_constructor(pool):
    frames = torch.randn(1, RECURSIVE_DIM, FRAMES)
    statistics, logits = pool.voices(frames, everything(frames))
    assert statistics.shape == (1, 3, 2 * RECURSIVE_DIM) and logits.shape == (1, 3)
    assert (statistics[:, 0] - statistics[:, 1]).abs().max() > 0.05


def test_padding_changes_no_voice(pool):
    frames, lengths = torch.randn(3, RECURSIVE_DIM, 40), torch.tensor([40, 23, 1])
    together = pool.voices(frames, length_mask(lengths, 40))
    for item, length in enumerate(lengths):
        alone = frames[item : item + 1, :, :length]
        for ours, theirs in zip(together, pool.voices(alone, everything(alone)), strict=True):
            torch.testing.assert_close(ours[item : item + 1], theirs, atol=1e-4, rtol=1e-4)


def test_repeated_recording_has_the_same_voices(pool):
    """The length correction: the coverage of each frame halves, and its effect stays the same."""
    torch.nn.init.zeros_(pool.linear1.weight[:, 2 * RECURSIVE_DIM :])  # the unbiased deviation depends on length
    frames = torch.randn(1, RECURSIVE_DIM, FRAMES)
    twice = frames.repeat(1, 1, 2)
    once, again = pool.voices(frames, everything(frames)), pool.voices(twice, everything(twice))
    torch.testing.assert_close(again.statistics, once.statistics, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again.existence_logits, once.existence_logits, atol=1e-4, rtol=1e-4)


def test_gradients_of_the_second_voice_reach_all_parameters(pool):
    frames = torch.randn(2, RECURSIVE_DIM, 20, requires_grad=True)
    statistics, logits = pool.voices(frames, length_mask(torch.tensor([20, 5]), 20), max_voices=2)
    (statistics[:, 1].square().mean() + logits[:, 1].sum()).backward()
    assert frames.grad.isfinite().all() and (frames.grad[1, :, 5:] == 0).all()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in pool.parameters())


def test_fewer_than_two_voices_are_refused():
    with pytest.raises(ConfigError, match="max_voices: is 1; 2 or more"):
        build_pooling({"name": "recursive", "max_voices": 1}, RECURSIVE_DIM)
