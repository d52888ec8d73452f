"""A metric GAN: the discriminator learns the metric, the network learns from it, and neither moves the other."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from tests.conftest import VOICES, make_voice
from wesep_py.common.config import construct
from wesep_py.common.errors import ConfigError
from wesep_py.training.losses import DiscriminatorConfig, MetricGAN
from wesep_py.training.losses.metric_gan import QualityScorer, normalised_pesq

SMALL = DiscriminatorConfig(channels=4, num_layers=3)
LEVELS = (0.001, 0.004, 0.01, 0.03, 0.1, 0.3)
"""Of the noise, from hardly there to hardly anything else."""


class Remembering(QualityScorer):
    """Computes each pair once."""

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
    loss.adversary._scorer = Remembering(16000, workers=0)
    return loss


def examples(voice: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A voice six times, and the same with more and more noise."""
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
    quality = loss.adversary.judge(*heard_anew)
    pairs = zip(*map(torch.Tensor.numpy, heard_anew), strict=True)
    expected = torch.tensor([normalised_pesq(*pair, 16000) for pair in pairs])
    assert quality.argsort(descending=True).tolist() == list(range(len(LEVELS)))
    assert (quality - expected).square().mean() < 0.4 * expected.var()


def test_the_network_learns_from_it_and_moves_no_weight_of_it():
    loss = make()
    target, noisy = examples("anna", 1)
    before, estimate = weights(loss), noisy.clone().requires_grad_()
    value = run(loss, target, estimate)
    assert value.item() == pytest.approx((loss.adversary.judge(target, noisy) - 1).square().mean().item(), abs=1e-6)
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


def test_it_waits_for_its_steps():
    loss = make(start_step=3, head_start_steps=1)
    target, noisy = examples("anna", 1)
    found = []
    for step in range(5):
        loss.update(step)
        before, estimate = weights(loss), noisy.clone().requires_grad_()
        value = run(loss, target, estimate)
        value.backward()
        learn(loss, step)
        found.append((value.item() > 0, bool(estimate.grad.any()), not same(before, weights(loss))))
    idle, both = (False, False, False), (True, True, True)
    assert found == [idle, idle, idle, both, both]  # observes at step 2, learns from it at step 3


def test_items_without_a_score_are_left_out_and_counted():
    loss = make()
    target, noisy = examples("anna", 1)
    noisy[0], noisy[1, 5], target = 0.0, math.nan, target.clone()
    target[2] = 0.0  # an absent target is no item at all
    run(loss, target, noisy)
    learn(loss, 0)
    said = learn(loss, 1)
    assert said["pesq_missing"] == pytest.approx(2 / 5) and 0 < said["pesq_quality"] < 0.5
    assert all(value.isfinite().all() for value in weights(loss).values())
    run(loss, target[2:3], noisy[2:3])
    assert (learn(loss, 2), learn(loss, 3)) == ({}, {})


def test_a_gradient_that_is_not_finite_leaves_the_weights():
    loss = make()
    run(loss, *examples("anna", 1))
    learn(loss, 0)
    before = copy.deepcopy([p.detach() for p in loss.adversary.network.parameters()])
    said = loss.adversary.learn(1, lambda tensor: tensor * (math.nan if len(tensor) > 9 else 1))
    assert said and all(map(torch.equal, before, loss.adversary.network.parameters()))


def test_mixtures_and_earlier_pairs_and_a_limit():
    loss = make(mixture=True, items_per_step=8, replay=10)
    target, noisy = examples("anna", 1)
    for step in range(3):
        run(loss, target, noisy, mixture=noisy + 0.5)
        learn(loss, step)
        assert len(loss.adversary._scorer.waiting) == 8
    memory = loss.adversary.memory()
    assert len(memory["kept"]) == 10 and torch.equal(memory["kept"][-1][0], torch.stack([target[1], noisy[1] + 0.5]))


@pytest.mark.parametrize("replay", [0, 9])
def test_it_goes_on_from_its_state_to_the_bit(replay: int):
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


def test_it_learns_from_different_lengths_and_the_sum_of_all_ranks():
    """Two ranks with the same pairs do what one does: the mean over all of them counts, not the sum."""
    one, two = make(), make()
    for loss, total in ((one, lambda tensor: tensor), (two, lambda tensor: 2 * tensor)):
        # Adam would not see a sum in the place of a mean.
        loss.adversary.optimizer = torch.optim.SGD(loss.adversary.network.parameters(), lr=0.1)
        for step in range(3):
            target, noisy = examples("anna", step)
            run(loss, target[:2], noisy[:2])
            run(loss, target[:2, :8000], noisy[:2, :8000])
            loss.adversary.learn(step, total)
    for left, right in zip(one.adversary.network.parameters(), two.adversary.network.parameters(), strict=True):
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
def test_what_is_refused(arguments: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        construct(MetricGAN, {"sample_rate": 16000, **arguments}, "loss")
