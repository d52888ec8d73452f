"""Losses on confused chunks, and the residual's: known values, when they begin, and their state."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.metrics import si_sdr
from wesep_py.training.extraction_task import Criterion
from wesep_py.training.losses import ChunkDistribution, ChunkLoss, ChunkScale, ResidualSDR, ThresholdedSDR, losses

RATE = 1000  # chunks of 250 samples, 125 apart
NAMES = ["chunk_scale", "chunk_distribution"]


def output_of(*waveforms: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(waveforms=waveforms)


def build(name: str, **arguments) -> ChunkLoss:
    return losses.build({"name": name, **arguments}, "loss", sample_rate=RATE)


@pytest.fixture
def voices() -> tuple[torch.Tensor, torch.Tensor]:
    """Two voices of two items, 1 s."""
    torch.manual_seed(0)
    return torch.randn(2, 1000), torch.randn(2, 1000)


def swapped(target: torch.Tensor, other: torch.Tensor, samples: int) -> torch.Tensor:
    """Return an estimate that is the other voice in the first samples, and both slightly wrong elsewhere."""
    return torch.cat([other[:, :samples], (target + 0.1 * other)[:, samples:]], dim=1)


def by_hand(estimate, target, mixture, ceiling_db=30.0):
    """Loss and improvement of each chunk of one item, chunk by chunk."""
    result = []
    for start in range(0, len(target) - 250 + 1, 125):
        e, s, y = (signal[start : start + 250] for signal in (estimate, target, mixture))
        error = (s - e).square().sum() + 10 ** (-ceiling_db / 10) * s.square().sum()
        result.append((-10 * torch.log10(s.square().sum() / error), si_sdr(e, s) - si_sdr(y, s)))
    return torch.tensor(result).T


def test_distribution_is_the_weighted_mean_over_the_chunks(voices):
    target, other = voices
    estimate, mixture = swapped(target, other, 400), target + other
    values = []
    for item in range(2):
        chunk_losses, improvements = by_hand(estimate[item], target[item], mixture[item])
        weights = 1 + 3 * torch.sigmoid(-improvements / 2)
        values.append((weights * chunk_losses).sum() / weights.sum())
    loss = build("chunk_distribution", alpha=3, from_db=None)
    assert loss(output_of(estimate), target, {"mixture": mixture}).item() == pytest.approx(
        torch.stack(values).mean().item(), abs=1e-3
    )


def test_scale_is_the_share_of_confused_chunks_times_the_loss(voices):
    target, other = voices
    estimate, mixture = swapped(target, other, 500), target + other
    values = []
    for item in range(2):
        _, improvements = by_hand(estimate[item], target[item], mixture[item])
        assert 0 < (improvements < 0).float().mean() < 1
        whole = ThresholdedSDR(30)(output_of(estimate[item : item + 1]), target[item : item + 1], {})
        values.append((improvements < 0).float().mean() * whole)
    loss = build("chunk_scale", from_db=None)
    assert loss(output_of(estimate), target, {"mixture": mixture}).item() == pytest.approx(
        torch.stack(values).mean().item(), abs=1e-3
    )


def test_confused_chunks_have_a_larger_share_of_the_gradient(voices):
    target, other = voices
    batch, shares = {"mixture": target + other}, []
    for alpha in (0, 3):
        estimate = swapped(target, other, 500).requires_grad_()
        loss = build("chunk_distribution", from_db=None, alpha=alpha)(output_of(estimate), target, batch)
        (gradient,) = torch.autograd.grad(loss, estimate)
        shares.append((gradient[:, :400].norm() / gradient[:, 600:].norm()).item())
    assert shares[1] > 1.5 * shares[0]


@pytest.mark.parametrize("name", NAMES)
def test_only_chunks_with_both_voices_count(name, voices):
    target, other = voices
    other = other.clone()
    other[:, 250:] = 0  # alone from here on, however wrong the estimate is
    mixture, estimate = target + other, target + 0.1 * voices[1]
    loss = build(name, from_db=None, hop_s=0.25, scale_invariant=False)
    value = loss(output_of(estimate), target, {"mixture": mixture})
    wrong = torch.cat([estimate[:, :250], voices[1][:, 250:]], dim=1)
    if name == "chunk_distribution":
        assert loss(output_of(wrong), target, {"mixture": mixture}).item() == pytest.approx(value.item(), abs=1e-4)
    else:
        assert value.item() == 0 == loss(output_of(wrong), target, {"mixture": mixture}).item()


@pytest.mark.parametrize("name", NAMES)
def test_without_overlap_or_target_the_value_is_0_and_gradients_zero(name, voices):
    target, _ = voices
    estimate = torch.randn(2, 1000, requires_grad=True)
    for reference, mixture in ((target, target), (torch.zeros_like(target), target)):
        value = build(name, from_db=None)(output_of(estimate), reference, {"mixture": mixture})
        (gradient,) = torch.autograd.grad(value, estimate)
        assert value.item() == 0 and (gradient == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_when_the_mean_improvement_is_reached(name, voices):
    target, other = voices
    loss, batch = build(name, from_db=5), {"mixture": target + other}
    bad, good = output_of(swapped(target, other, 900)), output_of(swapped(target, other, 100))
    assert loss(bad, target, batch).item() == 0 and loss.improvement_db < 5
    loss.eval()
    assert loss(good, target, batch).item() == 0, "validation moves nothing"
    loss.train()
    first = loss.improvement_db.item()
    steps = 0
    while not loss.is_on and steps < 500:
        loss(good, target, batch)
        steps += 1
    assert 1 < steps < 500 and loss.improvement_db > 5 > first
    assert loss(bad, target, batch).item() != 0
    for _ in range(300):
        loss(bad, target, batch)
    assert loss.improvement_db < 5 and loss.is_on, "it stays on"


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_improvement_is_that_of_all_batches_so_far(name, voices):
    target, other = voices
    loss, batch = build(name), {"mixture": target + other}
    improvements = []
    for samples in (100, 300, 700):
        estimate = swapped(target, other, samples)
        improvements.append((si_sdr(estimate, target) - si_sdr(batch["mixture"], target)).mean().item())
        loss(output_of(estimate), target, batch)
    weights = [0.01 * 0.99 ** (2 - i) for i in range(3)]
    expected = sum(w * i for w, i in zip(weights, improvements, strict=True)) / sum(weights)
    assert loss.improvement_db.item() == pytest.approx(expected, abs=1e-3)
    before = loss.improvement_db.item()
    loss(output_of(torch.full_like(target, torch.nan)), target, batch)
    loss(output_of(other), torch.zeros_like(target), batch)
    assert loss.improvement_db.item() == pytest.approx(before, abs=1e-4), "NaN and absent targets change nothing"


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_saved_and_restored(name, voices):
    target, other = voices
    loss, batch = build(name, from_db=5), {"mixture": target + other}
    loss(output_of(target + 0.01 * other), target, batch)
    assert loss.is_on
    again = build(name, from_db=5)
    again.load_state_dict(loss.state_dict())
    bad = output_of(swapped(target, other, 900))
    assert again(bad, target, batch).item() == loss(bad, target, batch).item() != 0
    assert all(value.is_floating_point() for value in loss.state_dict().values())
    criterion = Criterion([{"name": "snr"}, {"name": name}], {"sample_rate": lambda: RATE})
    assert {key for key in criterion.state_dict() if key.startswith("terms.1.")} == {
        f"terms.1.{key}" for key in ("improvement_db", "seen", "is_on")
    }


@pytest.mark.parametrize("name", NAMES)
def test_recordings_shorter_than_a_chunk_are_one_chunk(name, voices):
    target, other = (voice[:, :40] for voice in voices)
    loss = build(name, from_db=None)
    assert loss(output_of(other), target, {"mixture": target + other}).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_scale_invariant_losses_do_not_depend_on_the_level(name, voices):
    target, other = voices
    estimate, batch = swapped(target, other, 400), {"mixture": target + other}
    values = [
        build(name, from_db=None, scale_invariant=True)(output_of(gain * estimate), target, batch).item()
        for gain in (1, 0.1)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_several_waveforms_need_weights(name, voices):
    target, other = voices
    batch, estimate = {"mixture": target + other}, swapped(target, other, 500)
    single = build(name, from_db=None)(output_of(estimate), target, batch)
    double = build(name, from_db=None, weights=[0.75, 0.25])(output_of(estimate, estimate), target, batch)
    assert double.item() == pytest.approx(single.item(), abs=1e-4)
    with pytest.raises(ValueError, match="gives 2 waveforms"):
        build(name)(output_of(estimate, estimate), target, batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hop_s": 0.5}, "hop_s: is 0.5"),
        ({"chunk_s": 0}, "hop_s"),
        ({"active_db": 0}, "active_db: is 0"),
        ({"ceiling_db": -1}, "ceiling_db is -1"),
        ({"alpha": -1}, "alpha"),
        ({"softness_db": 0}, "softness_db"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build("chunk_distribution", **arguments)


def test_residual_sdr_compares_what_the_estimate_leaves(voices):
    target, other = voices
    mixture, estimate = target + other, 0.7 * target + 0.2 * other
    value = ResidualSDR(30)(output_of(estimate), target, {"mixture": mixture}).item()
    assert value == pytest.approx(ThresholdedSDR(30)(output_of(mixture - estimate), other, {}).item(), abs=1e-4)


def test_residual_sdr_of_an_absent_target_wants_silence(voices):
    mixture, silence = voices[0], torch.zeros(2, 1000)
    loss, batch = ResidualSDR(30), {"mixture": voices[0], "present": torch.zeros(2)}
    assert loss(output_of(silence), silence, batch).item() == pytest.approx(-30, abs=0.01)
    assert loss(output_of(mixture), silence, batch).item() > -0.01


def test_residual_sdr_skips_mixtures_of_the_target_alone(voices):
    target, other = voices
    mixture = torch.stack([target[0] + other[0], target[1]])
    estimate = (target + 0.1 * other).requires_grad_()
    value = ResidualSDR()(output_of(estimate), target, {"mixture": mixture})
    one = ResidualSDR()(output_of(estimate[:1]), target[:1], {"mixture": mixture[:1]})
    assert value.item() == pytest.approx(one.item(), abs=1e-5)
    (gradient,) = torch.autograd.grad(value, estimate)
    assert (gradient[1] == 0).all() and gradient[0].any()


def test_all_three_are_in_the_registry():
    assert {"chunk_scale", "chunk_distribution", "residual_sdr"} <= set(losses.names())
    assert isinstance(build("chunk_scale"), ChunkScale) and isinstance(build("chunk_distribution"), ChunkDistribution)
