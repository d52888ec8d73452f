"""SkiM: its equations, the causal shift of its memory, streams cut anywhere, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from wesep_py.network.backbones import SkiM

SIZES = {"num_filters": 12, "dim": 6, "hidden": 5, "num_blocks": 3, "segment": 7, "kernel_ms": 4, "hop_ms": 2}


def build(causal: bool = True, **changes) -> SkiM:
    torch.manual_seed(0)
    return SkiM(**{**SIZES, "causal": causal, **changes}).eval()


def same(point: int, latent: torch.Tensor) -> torch.Tensor:
    return latent


def reference(network: SkiM, latent: torch.Tensor) -> torch.Tensor:
    """Run the blocks segment by segment and step by step, as the paper describes the causal form: `[1, dim, T]`."""
    x = latent[0].T
    starts = range(0, len(x), network.segment)
    initials = [(torch.zeros(5), torch.zeros(5)) for _ in starts]
    for i, block in enumerate(network.blocks):
        outputs, finals = [], []
        for start, (h, c) in zip(starts, initials, strict=True):
            part = x[start : start + network.segment][None]
            out, (h, c) = block.rnn(part, (h[None, None], c[None, None]))
            outputs.append((part + block.norm(block.linear(out)))[0])
            finals.append((h[0, 0], c[0, 0]))
        x = torch.cat(outputs)
        if i < len(network.memories):
            memory = network.memories[i]
            remembered = []
            for k in (0, 1):
                states = torch.stack([final[k] for final in finals])
                out, _ = memory.rnns[k](states[None])
                remembered.append(states + memory.norms[k](memory.linears[k](out[0])))
            shifted = [torch.cat([torch.zeros(1, 5), each[:-1]]) for each in remembered]
            initials = list(zip(*shifted, strict=True))
    return x.T[None]


@pytest.mark.parametrize("num_frames", [1, 6, 7, 8, 21, 40])
def test_the_causal_form_is_that_of_the_paper(num_frames: int):
    network = build()
    features = torch.randn(1, 1, 12, num_frames)
    with torch.no_grad():
        latent, _ = network.encode(features, same)
        expected = reference(network, network.input(features[:, 0]))
    torch.testing.assert_close(latent, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("cuts", [(1, 2, 3), (6, 7, 8), (7, 14), (3, 24), (30, 31), (20, 22, 35)])
def test_frames_cut_anywhere_give_the_same_latent(cuts: tuple[int, ...]):
    network = build()
    features = torch.randn(2, 1, 12, 40)
    with torch.no_grad():
        whole, _ = network.encode(features, same)
        parts, state = [], None
        for block in features.tensor_split(cuts, dim=3):
            latent, state = network.encode(block, same, state)
            parts.append(latent)
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-6, rtol=1e-5)


def test_memory_reaches_over_segments_and_never_back():
    network = build()
    features = torch.randn(1, 1, 12, 40)
    later = features.clone()
    later[..., 21:] += torch.randn(12, 19)  # the same number for all channels would be removed by the norm
    early = features.clone()
    early[..., :7] += torch.randn(12, 7)
    with torch.no_grad():
        whole, of_later, of_early = (network.encode(each, same)[0] for each in (features, later, early))
    assert torch.equal(whole[..., :21], of_later[..., :21]) and not torch.equal(whole[..., 21:], of_later[..., 21:])
    assert ((whole - of_early)[..., -1].abs() > 1e-7).any(), "the first segment is forgotten at the end"


def test_the_form_for_whole_recordings_looks_ahead():
    network = build(causal=False)
    features = torch.randn(2, 1, 12, 40)
    changed = features.clone()
    changed[..., 39:] += torch.randn(12, 1)
    with torch.no_grad():
        (whole, state), (other, _) = (network.encode(each, same) for each in (features, changed))
    assert state is None and network.latency is None
    assert ((whole - other)[..., 0].abs() > 1e-9).any()


def test_every_parameter_learns():
    for causal in (True, False):
        network = build(causal)
        analysis = network.analyse(torch.randn(2, 2000))
        latent, _ = network.encode(analysis.features, same)
        network.synthesise(latent, analysis, 2000)[0].square().mean().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("wrong", [{"hop_ms": 5}, {"hop_ms": 0}, {"segment": 0}, {"num_blocks": 0}])
def test_wrong_sizes_are_refused(wrong: dict):
    with pytest.raises(ValueError):
        build(**wrong)
