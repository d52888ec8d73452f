"""The log of a run that was resumed reads as that of one that was not."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wesep_py.common.errors import WesepError
from wesep_py.training.experiment import Experiment
from wesep_py.training.run_log import RunLog, TensorBoard


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"audio": 0, "images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def test_numbers_and_audio(tmp_path: Path):
    log = RunLog(tmp_path / "log.jsonl", [TensorBoard(Experiment(tmp_path), 0)], 0)
    log.write("train", 5, {"loss": 1.5, "grad_norm": math.inf})
    log.audio("trial/estimate", 5, np.full(16000, 3.0, np.float32), 16000)
    log.close()
    assert read(tmp_path / "log.jsonl") == [{"kind": "train", "step": 5, "loss": 1.5, "grad_norm": None}]
    found = events(tmp_path / "tensorboard")
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(5, 1.5)]
    assert found.Tags()["audio"] == found.Tags()["images"] == ["trial/estimate"]
    assert found.Audio("trial/estimate")[0].sample_rate == 16000


@pytest.mark.parametrize("cut", [False, True])
def test_a_resumed_log_drops_what_was_lost(tmp_path: Path, cut: bool):
    file, folder = tmp_path / "log.jsonl", tmp_path / "tensorboard"
    first = RunLog(file, [TensorBoard(Experiment(tmp_path), 0)], 0)
    for step in (1, 2, 3):
        first.write("train", step, {"loss": float(step)})
    first.close()
    if cut:
        file.write_text(file.read_text() + '{"kind": "train", "st')
    time.sleep(1.1)  # TensorBoard orders event files by the second in their names, as a resumed run's are
    second = RunLog(file, [TensorBoard(Experiment(tmp_path), 2)], 2)
    second.write("train", 3, {"loss": 30.0})
    second.close()
    assert [(line["step"], line["loss"]) for line in read(file)] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert [e.value for e in events(folder).Scalars("train/loss")] == [1.0, 2.0, 30.0]


def test_damaged_lines_are_left_out_with_a_word(tmp_path: Path):
    file = tmp_path / "log.jsonl"
    good = '{"kind": "train", "step": 1, "loss": 1.0}\n'
    bad = ["[" * 100_000, '{"step": "x"}', '{"step": NaN}', "[1]", '{"step": ' + "9" * 5000 + "}", "\0", "{}"]
    file.write_bytes(good.encode() + "".join(f"{line}\n" for line in bad).encode() + b"\xff\n" + good.encode())
    with pytest.warns(UserWarning, match=r"log\.jsonl:2: is nested .*; 8 damaged lines are left out of the log"):
        RunLog(file, [], 2).close()
    assert file.read_text() == 2 * good


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_is_one_line(tmp_path: Path):
    log = RunLog(tmp_path / "log.jsonl", [], 0)
    log._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115, PTH123
    with pytest.raises(
        WesepError, match=r"log\.jsonl: the log cannot be written \(No space left on device\); free some space"
    ):
        log.write("train", 1, {"loss": 1.0})
    log.close()


def test_a_log_that_is_a_folder_is_one_line(tmp_path: Path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(WesepError, match="the log cannot be written"):
        RunLog(tmp_path / "log.jsonl", [], 0)
