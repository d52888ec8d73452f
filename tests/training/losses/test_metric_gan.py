"""Metric GAN: the discriminator, PESQ in background processes, and the loss."""

from __future__ import annotations

import copy
import math
import os
import signal
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from tests.conftest import VOICES, make_voice
from wesep_py.common.config import construct
from wesep_py.common.errors import ConfigError
from wesep_py.metrics import pesq
from wesep_py.training.losses import DiscriminatorConfig, MetricDiscriminator, MetricGAN
from wesep_py.training.losses.metric_gan import BEST_PESQ, QualityScorer, normalised_pesq

SMALL = DiscriminatorConfig(channels=4, num_layers=3)


@pytest.fixture
def network() -> MetricDiscriminator:
    torch.manual_seed(0)
    return MetricDiscriminator(SMALL).eval()


@pytest.mark.parametrize("samples", [1, 300, 4000])
def test_the_discriminator_takes_any_length(network, samples: int):
    quality = network(torch.randn(3, samples), torch.randn(3, samples))
    assert quality.shape == (3,) and quality.min() > 0 and quality.max() < 1


def test_the_discriminator_ignores_gain_but_not_the_order(network):
    clean, noisy = torch.randn(2, 1, 4000)
    once = network(clean, noisy)
    torch.testing.assert_close(network(0.1 * clean, 5 * noisy), once, rtol=1e-4, atol=1e-5)
    assert (network(noisy, clean) - once).abs() > 1e-5


def test_the_discriminators_gradient_of_silence_is_finite(network):
    estimate = torch.zeros(1, 4000, requires_grad=True)
    network(torch.randn(1, 4000), estimate).sum().backward()
    assert estimate.grad.isfinite().all()


def test_the_discriminators_layers_are_lipschitz(network):
    """Spectral normalisation: no layer stretches its input by more than 1, however large the weights are."""
    with torch.no_grad():
        network.head[0].parametrizations.weight.original.mul_(100)
    network.train()
    for _ in range(30):
        network(torch.randn(1, 4000), torch.randn(1, 4000))
    assert torch.linalg.matrix_norm(network.head[0].weight, 2).item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("key", "value"), [("channels", 0), ("num_layers", 0), ("power", 0.0), ("power", 1.5)])
def test_the_discriminator_refuses_impossible_sizes(key: str, value: float):
    with pytest.raises(ConfigError, match=f"{key}: is {value}"):
        construct(DiscriminatorConfig, {key: value}, "discriminator")


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return make_voice(*VOICES["anna"], 1.0, seed=1)


def with_noise(voice: np.ndarray, level: float) -> np.ndarray:
    return (voice + level * np.random.default_rng(0).standard_normal(len(voice))).astype(np.float32)


def test_pesq_is_normalised_by_a_signal_against_itself(voice):
    assert normalised_pesq(voice, voice, 16000) == pytest.approx(1.0, abs=1e-4)
    assert normalised_pesq(voice[::2].copy(), voice[::2].copy(), 8000) == pytest.approx(1.0, abs=1e-4)
    estimate = with_noise(voice, 0.02)
    assert normalised_pesq(voice, estimate, 16000) == pytest.approx(
        (pesq(estimate, voice, 16000) - 1) / (BEST_PESQ[16000] - 1)
    )


def test_a_pair_without_pesq_has_no_score(voice):
    broken = voice.copy()
    broken[3] = np.nan
    assert math.isnan(normalised_pesq(voice, broken, 16000))
    assert math.isnan(normalised_pesq(voice, np.zeros_like(voice), 16000))


def test_background_scores_are_the_same_even_if_a_process_dies(voice):
    pairs = [(voice, with_noise(voice, level)) for level in (0.001, 0.02, 0.1)]
    here, there = QualityScorer(16000, workers=0), QualityScorer(16000, workers=1)
    here.submit(pairs)
    expected = here.collect()
    assert expected[0] > expected[1] > expected[2] and here.waiting == []
    try:
        there.submit(pairs)
        assert len(there.waiting) == 3
        os.kill(next(iter(there._pool._processes)), signal.SIGKILL)
        assert there.collect() == expected
        there.submit(pairs[:1])
        assert there.collect() == expected[:1]
    finally:
        there.close()


def test_the_scorer_refuses_impossible_arguments():
    with pytest.raises(ValueError, match="sample_rate: is 44100; PESQ is defined at 16000 and 8000 Hz"):
        QualityScorer(44100)
    with pytest.raises(ValueError, match="workers: is -1"):
        QualityScorer(16000, workers=-1)


LEVELS = (0.001, 0.004, 0.01, 0.03, 0.1, 0.3)
"""Levels of the noise, from nearly none to nearly only noise."""


class CachingScorer(QualityScorer):
    """A scorer that computes each pair once."""

    scores: ClassVar[dict[tuple[bytes, bytes], float]] = {}

    def collect(self) -> list[float]:
        known = [(reference.tobytes(), estimate.tobytes()) for reference, estimate in self.waiting]
        if not all(key in self.scores for key in known):
            self.scores |= dict(zip(known, super().collect(), strict=True))
        self._waiting = []
        return [self.scores[key] for key in known]


def make(**arguments) -> MetricGAN:
    torch.manual_seed(0)
    loss = MetricGAN(16000, **{"workers": 0, "discriminator": SMALL, **arguments})
    loss.adversary._scorer = CachingScorer(16000, workers=0)
    return loss


def examples(voice: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a voice six times, and the same with increasing noise."""
    target = torch.from_numpy(make_voice(*VOICES[voice], 1.0, seed)).expand(len(LEVELS), -1)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(seed))
    return target, target + torch.tensor(LEVELS)[:, None] * noise


def run(loss: MetricGAN, target: torch.Tensor, estimate: torch.Tensor, **batch) -> torch.Tensor:
    return loss(SimpleNamespace(waveforms=(estimate,)), target, batch)


def weights(loss: MetricGAN) -> dict[str, torch.Tensor]:
    return copy.deepcopy(loss.adversary.network.state_dict())


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[key], right[key]) for key in left)


def learn(loss: MetricGAN, step: int) -> dict[str, float]:
    return loss.adversary.learn(step, lambda tensor: tensor)


def test_the_discriminator_learns_the_order_of_pesq():
    loss = make(lr=0.01)
    seen, heard_anew = [examples("anna", 1), examples("bert", 2)], examples("carl", 3)
    errors = []
    for step in range(24):
        run(loss, *seen[step % 2])
        errors.append(learn(loss, step).get("discriminator", math.nan))
    assert sum(errors[-5:]) < 0.25 * sum(errors[1:6])
    quality = loss.adversary.predict_quality(*heard_anew)
    pairs = zip(*map(torch.Tensor.numpy, heard_anew), strict=True)
    expected = torch.tensor([normalised_pesq(*pair, 16000) for pair in pairs])
    assert quality.argsort(descending=True).tolist() == list(range(len(LEVELS)))
    assert (quality - expected).square().mean() < 0.4 * expected.var()


def test_the_network_learns_without_moving_the_discriminator():
    loss = make()
    target, noisy = examples("anna", 1)
    before, estimate = weights(loss), noisy.clone().requires_grad_()
    value = run(loss, target, estimate)
    assert value.item() == pytest.approx(
        (loss.adversary.predict_quality(target, noisy) - 1).square().mean().item(), abs=1e-6
    )
    value.backward()
    assert estimate.grad.abs().sum(1).min() > 0
    assert all(p.grad is None for p in loss.adversary.network.parameters())
    assert same(weights(loss), before) and list(loss.parameters()) == [] and loss.state_dict() == {}
    gradient = estimate.grad.clone()
    assert learn(loss, 0) == {} and same(weights(loss), before)  # scores come a step later
    run(loss, target, noisy)
    assert learn(loss, 1)["pesq_missing"] == 0
    assert not same(weights(loss), before)
    assert torch.equal(estimate.grad, gradient) and torch.equal(estimate, noisy)
    assert not any(p.requires_grad for p in loss.adversary.network.parameters())


def test_the_loss_begins_at_its_step():
    loss = make(start_step=3, head_start_steps=1)
    target, noisy = examples("anna", 1)
    phases = []
    for step in range(5):
        loss.update(step)
        before, estimate = weights(loss), noisy.clone().requires_grad_()
        value = run(loss, target, estimate)
        value.backward()
        learn(loss, step)
        phases.append((value.item() > 0, bool(estimate.grad.any()), not same(before, weights(loss))))
    idle, both = (False, False, False), (True, True, True)
    assert phases == [idle, idle, idle, both, both]  # observes at step 2, learns from it at step 3


def test_items_without_a_score_are_skipped_and_counted():
    loss = make()
    target, noisy = examples("anna", 1)
    noisy[0], noisy[1, 5], target = 0.0, math.nan, target.clone()
    target[2] = 0.0  # an absent target is no item at all
    run(loss, target, noisy)
    learn(loss, 0)
    numbers = learn(loss, 1)
    assert numbers["pesq_missing"] == pytest.approx(2 / 5) and 0 < numbers["pesq_quality"] < 0.5
    assert all(value.isfinite().all() for value in weights(loss).values())
    run(loss, target[2:3], noisy[2:3])
    assert (learn(loss, 2), learn(loss, 3)) == ({}, {})


def test_a_gradient_that_is_not_finite_leaves_the_weights():
    loss = make()
    run(loss, *examples("anna", 1))
    learn(loss, 0)
    before = copy.deepcopy([p.detach() for p in loss.adversary.network.parameters()])
    numbers = loss.adversary.learn(1, lambda tensor: tensor * (math.nan if len(tensor) > 9 else 1))
    assert numbers and all(map(torch.equal, before, loss.adversary.network.parameters()))


def test_mixtures_replay_and_items_per_step():
    loss = make(mixture=True, items_per_step=8, replay=10)
    target, noisy = examples("anna", 1)
    for step in range(3):
        run(loss, target, noisy, mixture=noisy + 0.5)
        learn(loss, step)
        assert len(loss.adversary._scorer.waiting) == 8
    memory = loss.adversary.memory()
    assert len(memory["kept"]) == 10 and torch.equal(memory["kept"][-1][0], torch.stack([target[1], noisy[1] + 0.5]))


@pytest.mark.parametrize("replay", [0, 9])
def test_resuming_from_the_state_is_bit_exact(replay: int):
    def steps(loss: MetricGAN, numbers: range) -> None:
        for step in numbers:
            run(loss, *examples("anna", step))
            learn(loss, step)

    unbroken, broken, resumed = (make(replay=replay) for _ in range(3))
    steps(unbroken, range(5))
    steps(broken, range(3))
    state, memory = copy.deepcopy([broken.adversary.state_dict(), broken.adversary.memory()])
    resumed.adversary.load_state_dict(state)
    resumed.adversary.load_memory(memory)
    steps(resumed, range(3, 5))
    assert same(weights(unbroken), weights(resumed)) and not same(weights(broken), weights(resumed))


def test_lengths_may_differ_and_ranks_are_averaged():
    """Two ranks with the same pairs do the same as one: the mean over all pairs counts, not the sum."""
    single, double = make(), make()
    for loss, total in ((single, lambda tensor: tensor), (double, lambda tensor: 2 * tensor)):
        # Adam would not see a sum in the place of a mean.
        loss.adversary.optimizer = torch.optim.SGD(loss.adversary.network.parameters(), lr=0.1)
        for step in range(3):
            target, noisy = examples("anna", step)
            run(loss, target[:2], noisy[:2])
            run(loss, target[:2, :8000], noisy[:2, :8000])
            loss.adversary.learn(step, total)
    for left, right in zip(single.adversary.network.parameters(), double.adversary.network.parameters(), strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_step": -1}, "start_step: is -1"),
        ({"start_step": 5, "head_start_steps": 6}, r"head_start_steps: is 6; 0 to start_step \(5\)"),
        ({"lr": 0.0}, "lr: is 0.0"),
        ({"replay": -1}, "replay: is -1"),
        ({"items_per_step": 0}, "items_per_step: is 0"),
        ({"sample_rate": 44100}, "sample_rate: is 44100"),
        ({"discriminator": {"channel": 3}}, r"loss\.discriminator\.channel: unknown key"),
    ],
)
def test_the_loss_refuses_impossible_arguments(arguments: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        construct(MetricGAN, {"sample_rate": 16000, **arguments}, "loss")
