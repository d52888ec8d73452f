"""Self-estimated augmentation: levels, gradients, drawn items, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.runs import assert_same, lines, stop_after, weights
from wesep_py.common.errors import ConfigError
from wesep_py.network.extraction_network import NetworkOutput
from wesep_py.training import TrainingInterrupted, load_config, train
from wesep_py.training.extraction_task import SelfEnrollmentStep, TrainingStep, enroll_estimates
from wesep_py.training.step import seed_step
from wesep_py.training.training_config import SelfEnrollmentConfig

SAMPLES = 6


class Network(nn.Module):
    """Scales the mixture by a value of the enrollment; records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.norm = nn.BatchNorm1d(1)
        self.calls: list[dict[str, Any]] = []

    def forward(self, mixture: torch.Tensor, enrollment: torch.Tensor, lengths: torch.Tensor) -> NetworkOutput:
        self.calls.append({
            "items": len(mixture), "enrollment": enrollment, "lengths": lengths.tolist(), "training": self.training,
            "grad": torch.is_grad_enabled(), "tracked": int(self.norm.num_batches_tracked),
        })  # fmt: skip
        mean = enrollment.sum(dim=1, keepdim=True) / lengths[:, None]
        return NetworkOutput((self.gain * mixture * (2 + self.norm(mean)),))


class Square(nn.Module):
    def forward(self, output: NetworkOutput, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": (output.waveforms[0] - batch["target"]).square().mean()}


def batch(items: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([3, 5, 4, 5][:items])
    enrollment = torch.rand(items, 5, generator=generator) + 0.1
    enrollment = enrollment * (torch.arange(5) < lengths[:, None])
    mixture = torch.rand(items, SAMPLES, generator=generator) + 0.1
    return {
        "mixture": mixture, "target": mixture.flip(1), "enrollment": enrollment, "enrollment_lengths": lengths,
        "present": torch.ones(items, dtype=torch.int64),
    }  # fmt: skip


def step(**named: Any) -> SelfEnrollmentStep:
    return SelfEnrollmentStep(Network(), Square(), SelfEnrollmentConfig(**{"probability": 1.0, **named})).train()


def test_the_estimate_is_joined_at_the_level_of_the_enrollment():
    items, estimate = batch(), torch.arange(1.0, 7.0).repeat(2, 1)
    enrolled = enroll_estimates(items, torch.tensor([0, 3]), estimate, "joined")
    assert enrolled["enrollment_lengths"].tolist() == [3 + SAMPLES, 5, 4, 5 + SAMPLES]
    assert enrolled["enrollment"].shape == (4, 5 + SAMPLES)
    for item, length in ((0, 3), (3, 5)):
        torch.testing.assert_close(enrolled["enrollment"][item, :length], items["enrollment"][item, :length])
        added = enrolled["enrollment"][item, length : length + SAMPLES]
        torch.testing.assert_close(added / added[0], estimate[0])
        power = items["enrollment"][item, :length].square().mean()
        torch.testing.assert_close(added.square().mean(), power)
        assert not enrolled["enrollment"][item, length + SAMPLES :].any()
    for item in (1, 2):
        torch.testing.assert_close(enrolled["enrollment"][item, :5], items["enrollment"][item])
        assert not enrolled["enrollment"][item, 5:].any()


def test_the_estimate_replaces_the_enrollment():
    items, estimate = batch(), torch.arange(1.0, 4.0).repeat(4, 1)
    enrolled = enroll_estimates(items, torch.arange(4), estimate, "instead")
    assert enrolled["enrollment_lengths"].tolist() == [3] * 4 and enrolled["enrollment"].shape == (4, 3)
    torch.testing.assert_close(enrolled["enrollment"] / enrolled["enrollment"][:, :1], estimate)
    single = enroll_estimates(items, torch.tensor([1]), estimate[:1], "instead")
    assert single["enrollment_lengths"].tolist() == [3, 3, 4, 5] and not single["enrollment"][1, 3:].any()


def test_a_silent_estimate_stays_silent():
    enrolled = enroll_estimates(batch(), torch.arange(4), torch.zeros(4, 2), "instead")
    assert not enrolled["enrollment"].any() and enrolled["enrollment"].isfinite().all()


def test_the_first_pass_has_no_gradient_and_moves_no_statistics():
    trained = step()
    losses = trained(batch())
    first, second = trained.network.calls
    assert (first["grad"], first["training"]) == (False, False)
    assert (second["grad"], second["training"], second["tracked"]) == (True, True, 0)
    assert int(trained.network.norm.num_batches_tracked) == 1 and trained.network.norm.training
    assert second["lengths"] == [length + SAMPLES for length in first["lengths"]]
    assert losses["self_enrolled"] == 1.0
    losses["loss"].backward()
    gradient = trained.network.gain.grad.clone()
    again = TrainingStep(Network(), Square()).train()
    items = {**batch(), "enrollment": second["enrollment"], "enrollment_lengths": torch.tensor(second["lengths"])}
    again(items)["loss"].backward()
    torch.testing.assert_close(gradient, again.network.gain.grad)


def test_absent_targets_and_early_steps_keep_the_enrollment():
    trained, items = step(from_step=5), batch()
    assert trained(items)["self_enrolled"] == 0.0 and len(trained.network.calls) == 1
    trained.begin_step(5)
    items["present"][1] = 0
    assert trained(items)["self_enrolled"] == 0.75
    first, second = trained.network.calls[1:]
    assert first["items"] == 3 and second["lengths"][1] == 5


def test_items_are_drawn_by_probability_and_seed():
    def chosen(seed: int, at: int) -> list[int]:
        trained = step(probability=0.3)
        seed_step(seed, at, 1, 0)
        return [length > 5 for length in (trained(batch()), trained.network.calls[-1]["lengths"])[1]]

    drawn = [chosen(1, at) for at in range(100)]
    assert drawn == [chosen(1, at) for at in range(100)] != [chosen(2, at) for at in range(100)]
    assert sum(map(sum, drawn)) / 400 == pytest.approx(0.3, abs=0.07)


def test_both_passes_have_a_loss_and_their_weights():
    trained, items = step(loss_on="both", weights=(0.25, 0.5)), batch()
    losses = trained(items)
    first, second = trained.network.calls
    assert first["grad"] and first["training"] and not second["enrollment"].requires_grad
    plain = TrainingStep(Network(), Square()).train()
    first_loss = plain(items)["loss"]
    enrolled = {**items, "enrollment": second["enrollment"], "enrollment_lengths": torch.tensor(second["lengths"])}
    second_loss = plain(enrolled)["loss"]
    torch.testing.assert_close(losses["loss"], 0.25 * first_loss + 0.5 * second_loss)
    torch.testing.assert_close(losses["loss_first"], first_loss)
    losses["loss"].backward()
    (0.25 * first_loss + 0.5 * second_loss).backward()
    torch.testing.assert_close(trained.network.gain.grad, plain.network.gain.grad)
    trained = step(loss_on="both", from_step=9)
    losses = trained(items)
    torch.testing.assert_close(losses["loss"], losses["loss_first"])


@pytest.mark.processor
def test_gradient_reaches_the_weights_under_mixed_precision():
    """Autocast caches cast weights; those of a pass without gradient have none."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(SAMPLES, SAMPLES)

        def forward(self, mixture, enrollment, lengths):
            return NetworkOutput((self.layer(mixture) + enrollment.sum(dim=1, keepdim=True),))

    torch.manual_seed(0)
    trained = SelfEnrollmentStep(Layer(), Square(), SelfEnrollmentConfig(probability=1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained(batch())["loss"].backward()
    assert trained.network.layer.weight.grad is not None and trained.network.layer.weight.grad.any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probability": 0.0}, "probability is 0.0; it must be above 0"),
        ({"probability": 1.5}, "probability is 1.5"),
        ({"from_step": -1}, "from_step is -1"),
        ({"weights": [0.0, 1.0]}, r"weights are \[0.0, 1.0\]; both must be above 0"),
        ({"use": "mixed"}, "use"),
    ],
)
def test_impossible_values_are_refused(settings, values: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(settings(self_enrollment=values))


@pytest.mark.parametrize("loss_on", ["second", "both"])
def test_a_run_resumes_bit_exactly(settings, tmp_path: Path, monkeypatch, loss_on: str):
    named = {
        "self_enrollment": {"probability": 0.6, "from_step": 1, "loss_on": loss_on}, "train__steps": 3,
        "log__every_steps": 1, "log__to": [], "log__audio_samples": 0,
    }  # fmt: skip
    train(settings(experiment=str(tmp_path / "unbroken"), **named))
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted, match="stopped at step 2"):
        stop_after(patch, 2)
        train(settings(**named))
    train(settings(**named))
    uninterrupted, resumed = weights(tmp_path / "unbroken"), weights(tmp_path / "exp")
    assert_same(uninterrupted, resumed)
    shares = [record["self_enrolled"] for record in lines(tmp_path / "unbroken", "train")]
    assert shares[0] == 0.0 and max(shares) > 0.0
    train(settings(experiment=str(tmp_path / "plain"), **{**named, "self_enrollment": None}))
    plain = weights(tmp_path / "plain")
    assert any(not torch.equal(uninterrupted[key], plain[key]) for key in uninterrupted)
