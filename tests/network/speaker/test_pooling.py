from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker.pooling import (
    GhostVLAD,
    MultiHeadAttentivePooling,
    NetVLAD,
    NormalisedAttentivePooling,
    build_pooling,
    poolings,
)
from wesep_py.network.speaker.speaker_network import length_mask

DIM = 16


def built(name: str, **arguments):
    """In evaluation mode, with weights that tell frames apart."""
    torch.manual_seed(0)
    pool = build_pooling({"name": name, **arguments}, DIM).eval()
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter)
    return pool


def everything(frames: torch.Tensor) -> torch.Tensor:
    return torch.ones(frames.shape[0], frames.shape[2], dtype=torch.bool)


@pytest.mark.parametrize("name", poolings.names())
def test_padding_counts_for_nothing(name):
    pool = built(name)
    frames = torch.randn(3, DIM, 40)
    lengths = torch.tensor([40, 23, 1])
    pooled = pool(frames, length_mask(lengths, 40))
    assert pooled.shape == (3, pool.out_dim)
    for item, length in enumerate(lengths):
        alone = frames[item : item + 1, :, :length]
        torch.testing.assert_close(pooled[item : item + 1], pool(alone, everything(alone)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", poolings.names())
def test_gradients_are_finite_and_reach_everything(name):
    pool = built(name)
    frames = torch.randn(2, DIM, 20, requires_grad=True)
    pool(frames, length_mask(torch.tensor([20, 5]), 20)).square().mean().backward()
    assert frames.grad.isfinite().all() and (frames.grad[1, :, 5:] == 0).all()
    assert (frames.grad[0] != 0).any()
    for key, parameter in pool.named_parameters():
        if key.split(".")[0] not in ("coverage", "existence"):  # of later voices: test_recursive.py
            assert parameter.grad.isfinite().all()


@pytest.mark.processor
@pytest.mark.parametrize("name", poolings.names())
def test_half_precision_frames_are_pooled_in_single(name):
    pool = built(name)
    frames = 30 * torch.rand(2, DIM, 200).to(torch.bfloat16)
    expected = pool(frames.float(), everything(frames))
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pool(frames, everything(frames))
    assert pooled.dtype == torch.float32
    if not list(pool.parameters()):
        torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_every_head_weighs_its_own_channels(per_channel, num_layers):
    """Against a loop over recordings, heads and channels."""
    pool = built("mhastp", num_heads=4, num_layers=num_layers, bottleneck=5, per_channel=per_channel)
    frames = torch.randn(2, DIM, 12)
    width, expected = DIM // 4, []
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


def test_queries_stand_beside_each_other():
    pool = built("mqmhastp", num_queries=3, num_heads=2)
    frames = torch.randn(2, DIM, 12)
    pooled = pool(frames, everything(frames))
    assert pool.out_dim == 3 * 2 * DIM
    for number, query in enumerate(pool.queries):
        part = pooled[:, number * 2 * DIM : (number + 1) * 2 * DIM]
        torch.testing.assert_close(part, query(frames, everything(frames)))


def test_vlad_is_the_sum_of_weighted_residuals():
    """Against equation 1 of Xie et al., term by term."""
    pool = built("ghostvlad", num_clusters=3, num_ghosts=2)
    frames = torch.randn(2, DIM, 7)
    weight, bias = pool.assign.weight[:, :, 0], pool.assign.bias
    expected = torch.zeros(2, 3, DIM)
    for item in range(2):
        for t in range(7):
            x = frames[item, :, t]
            exponents = (weight @ x + bias).exp()
            for k in range(3):
                expected[item, k] += exponents[k] / exponents.sum() * (x - pool.centres[k])
    expected = expected / expected.norm(dim=2, keepdim=True)
    torch.testing.assert_close(pool(frames, everything(frames)), expected.flatten(1), atol=1e-5, rtol=1e-4)


def test_a_ghost_takes_frames_away():
    """Frames that the ghost draws hardly count; without ghosts, the same frames do."""
    frames = torch.randn(1, DIM, 10)
    frames[:, 0, :5] = 100.0
    for pool, counts in ((GhostVLAD(DIM, 2, 1), False), (NetVLAD(DIM, 2), True)):
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
    assert NetVLAD(DIM, 5).assign.out_channels == 5
    assert GhostVLAD(DIM, 5, 3).assign.out_channels == 8


def test_normalised_attention_is_attention():
    """With the same scores for all frames it is the plain mean and deviation."""
    pool = NormalisedAttentivePooling(DIM).eval()
    torch.nn.init.zeros_(pool.linear2.weight)
    frames = torch.randn(2, DIM, 50)
    expected = torch.cat([frames.mean(dim=2), frames.std(dim=2, unbiased=False)], dim=1)
    torch.testing.assert_close(pool(frames, everything(frames)), expected, atol=1e-5, rtol=1e-4)
    constant = pool(torch.ones(1, DIM, 5), torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(constant[0, DIM:], torch.full((DIM,), 1e-5**0.5))


def test_impossible_arguments():
    with pytest.raises(ConfigError, match="did you mean 'mhastp'"):
        build_pooling("mhastpp", DIM)
    with pytest.raises(ConfigError, match="num_heads: is 3; a number that divides the 16 channels"):
        build_pooling({"name": "mhastp", "num_heads": 3}, DIM)
    with pytest.raises(ValueError, match="num_layers"):
        MultiHeadAttentivePooling(DIM, num_layers=0)
    with pytest.raises(ConfigError, match="num_queries"):
        build_pooling({"name": "mqmhastp", "num_queries": 0}, DIM)
    with pytest.raises(ConfigError, match="num_clusters"):
        build_pooling({"name": "netvlad", "num_clusters": 0}, DIM)
    with pytest.raises(ConfigError, match="num_ghosts"):
        build_pooling({"name": "ghostvlad", "num_ghosts": -1}, DIM)
