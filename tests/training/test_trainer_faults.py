"""Faults of machine and data during a run: each is injected, and the loss of work is checked."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.runs import assert_same, weights
from wesep_py.common.config import dump_yaml
from wesep_py.common.errors import CheckpointError, WesepError
from wesep_py.data import FileReader
from wesep_py.simulation import Simulator
from wesep_py.training import state as state_module
from wesep_py.training import train
from wesep_py.training.state import load_state
from wesep_py.training.step import Stepper


@pytest.fixture
def uninterrupted(settings, tmp_path: Path) -> Path:
    train(settings(experiment=str(tmp_path / "unbroken")))
    return tmp_path / "unbroken"


def test_a_state_of_another_run_is_a_one_line_error(settings, tmp_path: Path):
    """The state is whole by its checksums, but of another network: shapes, optimiser, average."""
    train(settings(train__steps=2, optim__ema_decay=0.9))
    folder = tmp_path / "exp" / "state"
    whole = torch.load(folder / "last.pt", weights_only=True)
    moments = whole["optimizer"]["state"]
    first, key = next(iter(moments)), next(iter(whole["model"]))
    for path in folder.glob("*.pt"):
        path.unlink()
    for changed in (
        {
            "optimizer": {
                **whole["optimizer"],
                "state": {**moments, first: {**moments[first], "exp_avg": torch.ones(1)}},
            }
        },
        {"optimizer": {**whole["optimizer"], "param_groups": whole["optimizer"]["param_groups"][:1]}},
        {"model": {**whole["model"], key: torch.ones(1, 2, 3)}},
        {"average": {**whole["average"], next(iter(whole["average"])): torch.ones(1)}},
        {"average": {}},
    ):
        torch.save({**whole, **changed}, folder / "last.pt")
        with pytest.raises(
            CheckpointError, match=r"state: does not fit the configuration's network \(.+\); name another"
        ):
            train(settings(train__steps=4, optim__ema_decay=0.9))
    torch.save({**whole, "progress": {**whole["progress"], "step": 10**18}}, folder / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt: is damaged \(progress\.step is 1000000000000000000\)"):
        train(settings(train__steps=4, optim__ema_decay=0.9))
    torch.save(whole, folder / "last.pt")
    assert train(settings(train__steps=4, optim__ema_decay=0.9)).step == 4


def test_a_run_out_of_memory_names_its_batch(settings, tmp_path: Path, monkeypatch):
    def full(self, *given, **named):
        list(given[0])
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stepper, "step", full)
    with pytest.raises(WesepError, match=r"out of memory on cpu with a batch of 2 items of 1 s; .*train\.batch_size"):
        train(settings())


def test_a_full_disk_loses_only_unsaved_steps(settings, uninterrupted: Path, tmp_path: Path, monkeypatch):
    save, calls = torch.save, []

    def full(content, path):
        calls.append(1)
        if len(calls) == 2:
            Path(path).write_bytes(b"half a fi")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(state_module.torch, "save", full)
        with pytest.raises(WesepError, match=r"written \(is the disk full\?\); the last state is still there"):
            train(settings())
    assert load_state(tmp_path / "exp" / "state").progress.step == 2
    train(settings())
    assert_same(weights(uninterrupted), weights(tmp_path / "exp"))


def test_a_full_disk_under_the_log_is_a_one_line_error(settings, monkeypatch):
    from wesep_py.training.run_log import RunLog

    def full(self, *given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunLog, "write", full)
    with pytest.raises(
        WesepError, match=r"step 2: the disk is full .*; free some space and run the same command again"
    ):
        train(settings())


@pytest.mark.parametrize("damage", ["cut", "empty"])
def test_a_damaged_state_falls_back_with_the_same_final_weights(
    settings, uninterrupted: Path, tmp_path: Path, damage: str
):
    train(settings(train__steps=4, checkpoint__every_steps=2))
    file = tmp_path / "exp" / "state" / "last.pt"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.warns(UserWarning, match=r"last\.pt: is damaged"):
        train(settings())
    assert train(settings()).was_finished
    assert load_state(tmp_path / "exp" / "state").progress.step == 6


def test_a_damaged_snapshot_is_left_out_of_the_average(settings, tmp_path: Path):
    train(settings(train__steps=4))
    (tmp_path / "exp" / "state" / "snapshots" / "step_00000004.safetensors").write_bytes(b"half")
    with pytest.warns(UserWarning, match=r"step_00000004\.safetensors: is cut short or damaged"):
        train(settings(train__steps=5, checkpoint__keep=2))
    assert (tmp_path / "exp" / "checkpoints" / "average" / "model.safetensors").exists()


def test_a_dead_worker_is_replaced_without_loss(settings, uninterrupted: Path, tmp_path: Path, monkeypatch, capsys):
    """Kill the worker, as the kernel does when memory runs out."""
    step, killed = Stepper.step, []

    def kill_worker(self, *given, **named):
        result = step(self, *given, **named)
        workers = [process.pid for process in multiprocessing.active_children()]
        if not killed and workers:
            killed.extend(workers)
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        return result

    monkeypatch.setattr(Stepper, "step", kill_worker)
    result = train(settings(data__workers=1, data__prefetch=1))
    assert killed and result.step == 6
    messages = [line for line in capsys.readouterr().err.splitlines() if "worker died" in line]
    assert len(messages) == 1 and "a new one repeats its work" in messages[0]
    assert_same(weights(uninterrupted), weights(tmp_path / "exp"))


def test_nonfinite_data_is_named_and_its_step_skipped(settings, tmp_path: Path, monkeypatch, capsys):
    sample = Simulator.sample

    def spoiled(self, epoch: int, index: int):
        mixture = sample(self, epoch, index)
        return replace(mixture, mixture=np.full_like(mixture.mixture, np.nan)) if index == 3 else mixture

    monkeypatch.setattr(Simulator, "sample", spoiled)
    result = train(settings())
    messages = [line for line in capsys.readouterr().err.splitlines() if "not finite" in line]
    # Batches of two from epochs of five: 3 is in the steps 2 and 5.
    assert (result.skipped, result.step, len(messages)) == (2, 6, 2)
    assert "mixture 3 of epoch 0 has mixture not finite; it is made of" in messages[0] and ".wav" in messages[0]
    assert "mixture 3 of epoch 1" in messages[1]
    assert all(value.isfinite().all() for value in weights(tmp_path / "exp").values())


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_recording_is_named_and_others_are_drawn(
    settings, corpus: Path, tmp_path: Path, caplog, packed: bool
):
    lines = [json.loads(line) for line in (corpus / "train.jsonl").read_text().splitlines()]
    for line in lines:
        line["path"] = shutil.copy(line["path"], tmp_path)
    broken = Path(lines[3]["path"])
    broken.write_bytes(b"no audio")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    keys = {"data__packed": str(tmp_path / "pack")} if packed else {}
    result = train(settings(data__root=str(tmp_path), train__epoch_size=50, train__batch_size=4, **keys))
    assert (result.step, result.skipped) == (6, 0)
    named = [text for text in caplog.messages if text.startswith("others are drawn")]
    assert len(named) == 1 and f"(1 so far): {broken}: is not audio" in named[0]
    left_out = [text for text in caplog.messages if text.startswith("left out of")]
    assert len(left_out) == packed


def test_a_damaged_validation_recording_ends_the_run(settings, corpus: Path, tmp_path: Path):
    """Nothing is drawn instead: the score would be of another list."""
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    rows = (corpus / "trials.csv").read_text().splitlines()
    rows.append(rows[1].replace("anna-0_bert-0", "other").replace(rows[1].split(",")[1], str(broken)))
    (tmp_path / "trials.csv").write_text("\n".join(rows) + "\n")
    enrolled = (corpus / "trials.map").read_text()
    (tmp_path / "trials.map").write_text(enrolled + f"other bert-0 {enrolled.split()[-1]}\n")
    lists = {"trials": str(tmp_path / "trials.csv"), "enrollment": str(tmp_path / "trials.map")}
    keys = {"train__steps": 1, "validation": {**lists, "every_steps": 1}}
    with pytest.raises(WesepError, match=r"broken\.wav: is not audio") as raised:
        train(settings(**keys))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_without_readable_recordings_ends_with_one_line(settings, monkeypatch, workers: int):
    from wesep_py.common.errors import AudioError

    def damaged(self, utterance, start=0, stop=None):
        raise AudioError(f"{utterance.path}: is damaged")

    monkeypatch.setattr(FileReader, "read", damaged)
    with pytest.raises(WesepError, match=r"mixture 0 of epoch 0: .*\.wav: is damaged") as raised:
        train(settings(data__workers=workers))
    assert "\n" not in str(raised.value)


def test_two_runs_cannot_share_a_folder(settings, tmp_path: Path):
    config = tmp_path / "train.yaml"
    config.write_text(dump_yaml(settings(train__steps=100_000, log__every_steps=1)))
    command = [sys.executable, "-m", "wesep_py.cli.train", str(config)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        log, deadline = tmp_path / "exp" / "log.jsonl", time.monotonic() + 120
        while not (log.exists() and log.stat().st_size) and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(WesepError, match=rf"another run is training here \(process {first.pid} on .*name another"):
            train(settings(train__steps=100_000, log__every_steps=1))
    finally:
        first.kill()
        first.wait(timeout=30)
    assert train(settings(train__steps=1, log__every_steps=1)).step >= 1  # the lock went with the process


RENAMES_OF_A_SAVE = 9
"""Snapshot; three files and two folders of `checkpoints/last`; `next.pt`, `previous.pt`, `last.pt`."""


def die_at(rename: int) -> None:
    """End this process, without any clean-up, before its n-th rename from now on."""
    count = 0
    for name in ("replace", "rename"):
        original = getattr(Path, name)

        def counted(self, target, original=original):
            nonlocal count
            if str(self).rpartition("/")[2].startswith(
                (".step", "next", "last", ".last", ".next")
            ) or "checkpoints" in str(self):
                count += 1
                if count == rename:
                    os._exit(9)
            return original(self, target)

        setattr(Path, name, counted)


@pytest.mark.parametrize("rename", [RENAMES_OF_A_SAVE + 1, RENAMES_OF_A_SAVE + 6, RENAMES_OF_A_SAVE + 9])
def test_a_kill_while_saving_loses_no_whole_state(settings, tmp_path: Path, rename: int):
    """Kill in the second save, after step 4: at least the first, after step 2, must be left."""
    train(settings(experiment=str(tmp_path / "unbroken")))
    child = os.fork()
    if child == 0:
        die_at(rename)
        train(settings())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert load_state(tmp_path / "exp" / "state").progress.step >= 2
    assert train(settings()).step == 6
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "exp"))
    assert_same(weights(tmp_path / "unbroken", "average"), weights(tmp_path / "exp", "average"))
