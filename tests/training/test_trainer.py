"""The whole run: what it writes, exact resuming, stopping, early end, compiled blocks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.runs import assert_same, lines, stop_after, weights, weights_at
from wesep_py import checkpoint
from wesep_py.common.config import dump_yaml, load_yaml, to_plain
from wesep_py.common.errors import ConfigError, WesepError
from wesep_py.network.extraction_network import load_network
from wesep_py.training import TrainingInterrupted, load_config, train
from wesep_py.training.state import load_state
from wesep_py.training.validation import ExtractionValidator


def test_a_run_writes_its_folder(settings, validation, tmp_path: Path):
    mapping = settings(validation=validation, train__targets_per_mixture="all")
    result = train(mapping)
    experiment = tmp_path / "exp"
    assert (result.experiment, result.step, result.skipped, result.was_finished) == (experiment, 6, 0, False)
    assert load_yaml(experiment / "config.yaml") == to_plain(load_config(experiment / "config.yaml"))
    assert load_config(experiment / "config.yaml") == load_config(mapping)
    logged = lines(experiment, "train")
    assert [record["step"] for record in logged] == [2, 4, 6]
    assert all(record["data_wait"] <= 1 and record["audio_s_per_s"] > 0 for record in logged)
    assert [record["step"] for record in lines(experiment, "validation")] == [3, 6]
    best = max(record["si_sdri"] for record in lines(experiment, "validation"))
    assert (result.best, result.measure) == (best, "si_sdri")
    averaged = checkpoint.load(experiment)
    assert averaged.folder.name == "average" and averaged.provenance["snapshots_averaged"] == 2
    assert averaged.provenance["validation"]["si_sdri"] == pytest.approx(
        lines(experiment, "validation_average")[0]["si_sdri"], abs=1e-3
    )
    assert list((experiment / "tensorboard").iterdir())
    assert load_network(experiment).sample_rate == 16000
    mean = {
        key: (value + weights_at(experiment, 4)[key]) / 2
        for key, value in weights(experiment).items()
        if value.is_floating_point()
    }
    for key, value in mean.items():
        torch.testing.assert_close(averaged.state_dict[key], value)


@pytest.mark.parametrize(("stop_at", "workers"), [(1, 0), (3, 1), (4, 0)])
def test_resuming_after_a_stop_gives_the_same_weights(
    settings, validation, tmp_path: Path, monkeypatch, stop_at: int, workers: int
):
    """Stop before the first checkpoint, at a validation, and at a checkpoint."""
    unbroken = settings(experiment=str(tmp_path / "unbroken"), validation=validation)
    train(unbroken)
    mapping = settings(validation=validation, data__workers=workers)
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted, match=f"stopped at step {stop_at} of 6"):
        stop_after(patch, stop_at)
        train(mapping)
    assert train(mapping).step == 6
    for name in ("last", "average", "best"):
        assert_same(weights(tmp_path / "unbroken", name), weights(tmp_path / "exp", name))
    left, right = (lines(tmp_path / name, "validation") for name in ("unbroken", "exp"))
    assert left == right
    left, right = (lines(tmp_path / name, "train") for name in ("unbroken", "exp"))
    assert [(record["step"], record["lr"]) for record in left] == [(record["step"], record["lr"]) for record in right]


def test_losses_against_confusion_train_and_resume_with_their_state(settings, tmp_path: Path, monkeypatch):
    """Chunk losses that begin at once, the residual's SDR with absent targets, metric losses, running centroids."""
    loss = [
        {"name": "thresholded_sdr"},
        {"name": "residual_sdr", "weight": 0.5},
        {"name": "chunk_distribution", "weight": 0.2, "from_db": -50},
        {"name": "chunk_scale", "weight": 0.2, "from_db": 60},
        {"name": "speaker_margin", "weight": 0.1, "utterances": "both", "loss": [{"name": "ge2e"}]},
        {"name": "speaker_margin", "weight": 0.1, "loss": {"name": "running_centroid"}},
    ]
    changes = {"loss": loss, "train__targets_per_mixture": "all", "simulation__absent_probability": 0.3}
    train(settings(experiment=str(tmp_path / "unbroken"), **changes))
    mapping = settings(**changes)
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train(mapping)
    assert train(mapping).step == 6
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "exp"))
    states = [load_state(tmp_path / name / "state").model for name in ("unbroken", "exp")]
    assert_same(*states)
    assert states[0]["criterion.terms.2.is_on"] == 1 and states[0]["criterion.terms.3.is_on"] == 0
    assert states[0]["criterion.terms.2.improvement_db"] != 0
    assert states[0]["criterion.terms.5.loss.losses.running_centroid.centroids"].any()
    last = lines(tmp_path / "exp", "train")[-1]
    assert last["chunk_scale"] == 0 != last["chunk_distribution"] and last["residual_sdr"] != 0


def test_resuming_after_a_kill_gives_the_same_weights(settings, tmp_path: Path):
    mapping = settings(train__steps=10)
    unbroken = settings(train__steps=10, experiment=str(tmp_path / "unbroken"))
    train(unbroken)
    config = tmp_path / "train.yaml"
    config.write_text(dump_yaml(mapping))
    command = [sys.executable, "-m", "wesep_py.cli.train", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    state = tmp_path / "exp" / "state" / "last.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, out
    finished = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    assert "resuming at step" in finished.stderr and "10 steps" in finished.stdout
    for name in ("last", "average"):
        assert_same(weights(tmp_path / "unbroken", name), weights(tmp_path / "exp", name))


def test_a_signal_to_every_process_of_the_run_saves_the_state(settings, tmp_path: Path):
    """Ctrl-C in a terminal and a cluster's scheduler signal the data workers too."""
    config = tmp_path / "train.yaml"
    config.write_text(dump_yaml(settings(train__steps=100_000, data__workers=2, log__every_steps=1)))
    command = [sys.executable, "-m", "wesep_py.cli.train", str(config)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "exp" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the state is saved" in err.strip().splitlines()[-1] and "Traceback" not in err
    assert (tmp_path / "exp" / "state" / "last.pt").exists()


def test_ctrl_c_ends_with_one_line_and_status_130(settings, wesep, tmp_path: Path, monkeypatch):
    config = tmp_path / "train.yaml"
    config.write_text(dump_yaml(settings()))
    stop_after(monkeypatch, 2)
    ran = wesep("train", config)
    last = ran.err.strip().splitlines()[-1]
    assert ran.status == 130
    assert "stopped at step 2 of 6" in last and "run the same command again" in last and "Traceback" not in ran.err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_finished_run_says_so_and_can_be_extended(settings, tmp_path: Path, capsys):
    train(settings(train__steps=2))
    before = (tmp_path / "exp" / "checkpoints" / "average" / "provenance.json").read_text()
    again = train(settings(train__steps=2))
    assert again.was_finished and again.step == 2 and "is finished, after 2 steps" in capsys.readouterr().err
    assert (tmp_path / "exp" / "checkpoints" / "average" / "provenance.json").read_text() == before
    assert train(settings(train__steps=3)).step == 3


def test_another_configuration_is_refused_by_its_keys(settings):
    train(settings(train__steps=1))
    with pytest.raises(ConfigError, match=r"optim\.lr \(was 0\.01, is 0\.02\)"):
        train(settings(train__steps=1, optim__lr=0.02))
    with pytest.raises(ConfigError, match=r"model\.backbone\.feature_dim"):
        train(settings(train__steps=1, model__backbone__feature_dim=12))


def test_more_workers_or_accumulated_batches_take_the_same_data(settings, tmp_path: Path):
    """Two accumulated batches of two are the data of one batch of four; workers change nothing."""
    train(settings(data__workers=0, train__steps=3, train__batch_size=4))
    train(settings(experiment=str(tmp_path / "two"), data__workers=2, train__steps=3, train__batch_size=4))
    assert_same(weights(tmp_path / "exp"), weights(tmp_path / "two"))
    train(settings(experiment=str(tmp_path / "halves"), train__accumulate=2, train__steps=3))
    whole, halves = (lines(tmp_path / name, "train")[0]["epoch"] for name in ("exp", "halves"))
    assert whole == halves


def test_the_time_limit_ends_the_run_and_its_schedule(settings, tmp_path: Path):
    result = train(settings(train__steps=10_000, train__max_minutes=0.05, log__every_steps=1))
    assert 0 < result.step < 10_000
    record = lines(tmp_path / "exp", "train")[-1]
    assert record["elapsed_s"] >= 3.0
    rates = [line["lr"] for line in lines(tmp_path / "exp", "train")]
    assert rates[-1] < 0.5 * max(rates)
    assert train(settings(train__steps=10_000, train__max_minutes=0.05)).was_finished


def test_too_many_nonfinite_steps_end_the_run(settings, monkeypatch, tmp_path: Path):
    from wesep_py.training.extraction_task import Criterion

    forward = Criterion.forward
    monkeypatch.setattr(
        Criterion, "forward", lambda self, *given: {k: v * float("nan") for k, v in forward(self, *given).items()}
    )
    with pytest.raises(WesepError, match=r"not finite 3 steps in a row; lower optim\.lr"):
        train(settings(train__max_nonfinite=3))
    assert (tmp_path / "exp" / "config.yaml").exists()


def test_a_run_learns(settings, tmp_path: Path):
    """One mixture, repeated: the loss must fall by several dB."""
    result = train(
        settings(
            train__steps=100, train__epoch_size=1, train__batch_size=1, train__targets_per_mixture="one",
            simulation__num_speakers=2, model__backbone__feature_dim=16, log__every_steps=5, optim__lr=0.01,
            checkpoint={"every_steps": 100, "keep": 1, "average": 1}, model__speaker=None,
            model__cues=[{"name": "tf_map"}],
        )
    )  # fmt: skip
    losses = [record["loss"] for record in lines(tmp_path / "exp", "train")]
    assert result.step == 100
    assert losses[-1] < losses[0] - 5.0


VALIDATION_RESULTS = {1: 5.0, 2: 6.0, 3: 5.5, 4: 6.0, 5: 5.9, 6: 7.0, 7: 6.5, 8: 6.9}
"""Result of the validation after each step: the best at 2, and again at 6."""


@pytest.fixture
def validated(validation, monkeypatch, settings):
    """Return settings of a run of eight steps with a validation of known result after each."""
    from wesep_py.training.trainer import Trainer

    validate, step = ExtractionValidator.validate, Trainer._step
    at = {"step": 0}

    def counted(self, batches):
        step(self, batches)
        at["step"] = self.progress.step

    def known(self, *given):
        result = validate(self, *given)
        result.numbers["si_sdri"] = VALIDATION_RESULTS[at["step"]]
        return result

    monkeypatch.setattr(Trainer, "_step", counted)
    monkeypatch.setattr(ExtractionValidator, "validate", known)

    def make(**changed):
        base = {"train__steps": 8, "log__every_steps": 1, "log__audio_samples": 0}
        every_step = {**validation, "every_steps": 1, "limit": 1}
        return settings(
            validation=every_step, checkpoint={"every_steps": 4, "keep": 1, "average": 1}, **base, **changed
        )

    return make


def test_a_plateau_lowers_the_learning_rate(validated, tmp_path: Path, monkeypatch):
    schedule = {"name": "plateau", "patience": 2, "plateau_factor": 0.5, "warmup_steps": 0, "final_lr_ratio": 0.01}
    train(validated(experiment=str(tmp_path / "unbroken"), schedule=schedule))
    rates = [line["lr"] for line in lines(tmp_path / "unbroken", "train")]
    # Steps 3 and 4 are no better than 2: from 5 on it is half of it. 5 starts the count anew, 6 is the best.
    assert rates == pytest.approx([0.01] * 4 + [0.005] * 4)
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 3)
        train(validated(schedule=schedule))
    train(validated(schedule=schedule))
    assert [line["lr"] for line in lines(tmp_path / "exp", "train")] == rates
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "exp"))


def test_a_run_without_improvement_ends_early(validated, tmp_path: Path, capsys):
    result = train(validated(train__patience=3))
    assert (result.step, result.best) == (5, 6.0)
    assert "finished: 5 steps (early: 3 validations without a better one)" in capsys.readouterr().err
    assert train(validated(train__patience=3)).was_finished
    # With more patience it resumes.
    assert train(validated(train__patience=4)).step == 8


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
def test_a_compiled_run_learns_the_same(settings, tmp_path: Path):
    small = {"model__speaker": None, "model__cues": [{"name": "tf_map"}], "train__steps": 2, "log__every_steps": 1}
    train(settings(experiment=str(tmp_path / "eager"), **small))
    train(settings(train__compile=True, **small))
    torch.compiler.reset()
    eager, compiled = ([line["loss"] for line in lines(tmp_path / name, "train")] for name in ("eager", "exp"))
    assert compiled[0] == pytest.approx(eager[0], abs=0.05)
    assert load_network(tmp_path / "exp").sample_rate == 16000


def test_only_the_blocks_are_compiled(settings, monkeypatch):
    compiled: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    train(settings(train__steps=1))
    assert compiled == []
    train(settings(experiment=settings()["experiment"] + "2", train__steps=1, train__compile=True))
    assert len(compiled) == 1 and "Block" in compiled[0]
