"""A metric GAN's discriminator in a run: state, log, ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.runs import assert_same, lines, stop_after, weights
from wesep_py.common.config import dump_yaml
from wesep_py.common.errors import CheckpointError
from wesep_py.training import TrainingInterrupted, train
from wesep_py.training.dry_run import dry_run
from wesep_py.training.losses import Adversary
from wesep_py.training.losses.metric_gan import MetricAdversary
from wesep_py.training.state import adversary_states, load_adversaries, load_state

GAN = {
    "name": "metric_gan", "workers": 0, "lr": 0.01, "replay": 3, "discriminator": {"channels": 4, "num_layers": 2},
}  # fmt: skip
LOSS = [{"name": "si_sdr"}, {**GAN, "weight": 10.0, "start_step": 1, "head_start_steps": 1}]
MODEL = {"model__speaker": None, "model__cues": [{"name": "tf_map"}], "model__normalise": "rms"}


@pytest.fixture
def run_settings(settings):
    """Return the settings of a run of a small network with a metric GAN."""

    def make(**replaced: Any) -> dict[str, Any]:
        return settings(**{"loss": LOSS, "train__steps": 4, "checkpoint__average": 1, **MODEL, **replaced})

    return make


def discriminator(experiment: Path) -> dict[str, torch.Tensor]:
    return load_state(experiment / "state").adversaries["metric_gan"]["network"]["network"]


def test_resuming_restores_network_and_discriminator(run_settings, tmp_path: Path, monkeypatch):
    train(run_settings(experiment=str(tmp_path / "unbroken")))
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted, match="stopped at step 2 of 4"):
        stop_after(patch, 2)
        train(run_settings())
    half = discriminator(tmp_path / "exp")
    memory = load_state(tmp_path / "exp" / "state").adversaries["metric_gan"]["memories"][0]
    assert len(memory["waiting"]) == len(memory["kept"]) == 2
    train(run_settings())
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "exp"))
    assert_same(discriminator(tmp_path / "unbroken"), discriminator(tmp_path / "exp"))
    assert not torch.equal(half["head.2.weight"], discriminator(tmp_path / "exp")["head.2.weight"])


def test_the_discriminator_is_logged_but_in_no_checkpoint(run_settings, tmp_path: Path):
    train(run_settings(log__every_steps=1, train__steps=3))
    logged = lines(tmp_path / "exp", "train")
    assert logged[0]["metric_gan"] == 0 < logged[1]["metric_gan"] < 1
    assert "metric_gan_discriminator" not in logged[0] and 0 < logged[2]["metric_gan_discriminator"] < 1
    assert logged[2]["metric_gan_pesq_missing"] == 0 <= logged[2]["metric_gan_pesq_quality"] < 1
    train(run_settings(experiment=str(tmp_path / "plain"), loss={"name": "si_sdr"}, train__steps=3))
    assert weights(tmp_path / "exp").keys() == weights(tmp_path / "plain").keys()
    assert not torch.equal(*(next(iter(weights(tmp_path / name).values())) for name in ("exp", "plain")))
    kinds = [set(torch.load(tmp_path / name / "state" / "last.pt")) for name in ("exp", "plain")]
    assert kinds[0] - kinds[1] == {"adversaries"}
    step, optimizer = (load_state(tmp_path / "exp" / "state"), load_state(tmp_path / "plain" / "state"))
    assert step.model.keys() == optimizer.model.keys()


def test_before_its_first_step_a_run_is_unchanged(run_settings, tmp_path: Path):
    late = [LOSS[0], {**GAN, "start_step": 9}]
    train(run_settings(loss=late, train__steps=2))
    train(run_settings(experiment=str(tmp_path / "plain"), loss={"name": "si_sdr"}, train__steps=2))
    assert_same(weights(tmp_path / "plain"), weights(tmp_path / "exp"))


@pytest.mark.processor
@pytest.mark.parametrize("precision", ["auto", "32-true", "bf16-mixed"])
def test_accumulated_batches_in_every_precision(
    precision: str, run_settings, tmp_path: Path, monkeypatch, request: pytest.FixtureRequest
):
    if precision == "bf16-mixed":
        request.getfixturevalue("bfloat16_lstm")
    taken, learn = [], MetricAdversary.learn
    monkeypatch.setattr(
        MetricAdversary, "learn", lambda self, *given: (taken.append(len(self._observed)), learn(self, *given))[1]
    )
    result = train(run_settings(train__accumulate=2, train__precision=precision, train__steps=2))
    assert result.skipped == 0 and taken == [2, 2]
    assert {value.dtype for value in discriminator(tmp_path / "exp").values()} == {torch.float32}


def test_dry_run_and_a_state_of_another_discriminator(run_settings, tmp_path: Path):
    assert "metric_gan" in dry_run(run_settings()).losses
    train(run_settings(train__steps=2))
    path = tmp_path / "exp" / "state" / "last.pt"
    content = torch.load(path)
    del content["adversaries"]["metric_gan"]["network"]["network"]["head.2.weight"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="does not fit the configuration's network"):
        train(run_settings())


def test_two_ranks_share_one_discriminator(run_settings, tmp_path: Path):
    """Both ranks learn from the pairs of both: the discriminator equals that of one process with all pairs."""
    loss = [LOSS[0], {key: value for key, value in GAN.items() if key != "replay"}]
    single, double = (
        run_settings(experiment=str(tmp_path / name), train__batch_size=size, train__steps=3, loss=loss, optim__lr=1e-4)
        for name, size in (("one", 4), ("two", 2))
    )
    train(single)
    config = tmp_path / "two.yaml"
    config.write_text(dump_yaml(double))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "wesep_py.cli.train", str(config)],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    memories = load_state(tmp_path / "two" / "state").adversaries["metric_gan"]["memories"]
    assert [len(memory["waiting"]) for memory in memories] == [2, 2]
    assert not torch.equal(memories[0]["waiting"][0], memories[1]["waiting"][0])
    for key, value in discriminator(tmp_path / "one").items():
        torch.testing.assert_close(discriminator(tmp_path / "two")[key], value, atol=3e-3, rtol=0)


def test_each_rank_resumes_with_its_own_memory():
    adversary, fabric = RecordingAdversary(), SimpleNamespace(world_size=1, global_rank=0)
    assert adversary_states({"it": adversary}, fabric) == {"it": {"network": {"w": 1}, "memories": [{"rank": 0}]}}
    states = {"it": {"network": {"w": 2}, "memories": [{"rank": 0}, {"rank": 1}]}}
    for rank, expected in ((1, {"rank": 1}), (2, None)):
        adversary = RecordingAdversary()
        load_adversaries({"it": adversary}, states, SimpleNamespace(world_size=3, global_rank=rank))
        assert (adversary.network, adversary.remembered) == ({"w": 2}, expected)


class RecordingAdversary(Adversary):
    """Records its calls."""

    def __init__(self) -> None:
        self.network: dict[str, Any] = {"w": 1}
        self.remembered: dict[str, Any] | None = None

    def to(self, device: torch.device) -> None:
        self.device = device

    def learn(self, step, total) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return self.network

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network = state

    def memory(self) -> dict[str, Any]:
        return {"rank": 0}

    def load_memory(self, memory: dict[str, Any]) -> None:
        self.remembered = memory
