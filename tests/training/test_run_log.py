"""log.jsonl, trackers, spectrograms, speed and the progress bar."""

from __future__ import annotations

import importlib.machinery
import json
import math
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wesep_py.common.errors import ConfigError, WesepError
from wesep_py.training import run_log as progress
from wesep_py.training import train
from wesep_py.training.experiment import Experiment
from wesep_py.training.run_log import (
    RunLog,
    TensorBoard,
    Throughput,
    TrainingBar,
    check_trackers,
    format_duration,
    make_tracker,
    spectrogram_image,
)


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
    logged = events(tmp_path / "tensorboard")
    assert [(e.step, e.value) for e in logged.Scalars("train/loss")] == [(5, 1.5)]
    assert logged.Tags()["audio"] == logged.Tags()["images"] == ["trial/estimate"]
    assert logged.Audio("trial/estimate")[0].sample_rate == 16000


@pytest.mark.parametrize("cut", [False, True])
def test_a_resumed_log_drops_lost_steps(tmp_path: Path, cut: bool):
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


def test_damaged_lines_are_left_out_with_a_warning(tmp_path: Path):
    file = tmp_path / "log.jsonl"
    good = '{"kind": "train", "step": 1, "loss": 1.0}\n'
    bad = ["[" * 100_000, '{"step": "x"}', '{"step": NaN}', "[1]", '{"step": ' + "9" * 5000 + "}", "\0", "{}"]
    file.write_bytes(good.encode() + "".join(f"{line}\n" for line in bad).encode() + b"\xff\n" + good.encode())
    with pytest.warns(UserWarning, match=r"log\.jsonl:2: is nested .*; 8 damaged lines are left out of the log"):
        RunLog(file, [], 2).close()
    assert file.read_text() == 2 * good


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_is_a_one_line_error(tmp_path: Path):
    log = RunLog(tmp_path / "log.jsonl", [], 0)
    log._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115, PTH123
    with pytest.raises(
        WesepError, match=r"log\.jsonl: the log cannot be written \(No space left on device\); free some space"
    ):
        log.write("train", 1, {"loss": 1.0})
    log.close()


def test_a_log_that_is_a_folder_is_a_one_line_error(tmp_path: Path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(WesepError, match="the log cannot be written"):
        RunLog(tmp_path / "log.jsonl", [], 0)


class FakeTracker(ModuleType):
    """A module that records its calls, and is itself the run that its `init` returns."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.calls: list[tuple[str, tuple, dict]] = []

    def _note(self, kind: str, /, *given, **named):
        self.calls.append((kind, given, named))
        return self

    def init(self, **named):
        return self._note("init", **named)

    def log(self, values, step):
        return self._note("log", values, step)

    def finish(self):
        return self._note("finish")

    def Audio(self, waveform, sample_rate):
        return ("audio", float(np.abs(waveform).max()), sample_rate)


@pytest.fixture(params=["wandb", "trackio"])
def tracker_module(request, monkeypatch) -> FakeTracker:
    tracker = FakeTracker(request.param)
    monkeypatch.setitem(sys.modules, request.param, tracker)
    return tracker


def test_a_run_sends_its_numbers(settings, tracker_module: FakeTracker, tmp_path: Path):
    train(settings(log={"every_steps": 1, "to": [tracker_module.__name__], "project": "mine"}, train__steps=2))
    kind, _, named = tracker_module.calls[0]
    assert kind == "init" and (named["project"], named["name"], named["resume"]) == ("mine", "exp", "allow")
    assert named["config"]["optim"]["lr"] == 0.01
    logged = [given for kind, given, _ in tracker_module.calls if kind == "log"]
    assert [step for _, step in logged] == [1, 2] and all(values["train/loss"] < 100 for values, _ in logged)
    assert tracker_module.calls[-1][0] == "finish"
    assert not (tmp_path / "exp" / "tensorboard").exists() and (tmp_path / "exp" / "log.jsonl").exists()


def test_wandb_continues_its_run_and_gets_audio(tmp_path: Path, monkeypatch):
    fake = FakeTracker("wandb")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        tracker = make_tracker("wandb", Experiment(tmp_path), "p", {}, 0)
        tracker.audio("trial", 3, np.full(8, 5.0, np.float32), 16000)
    first, second = (named["id"] for kind, _, named in fake.calls if kind == "init")
    assert first == second and len(first) == 16
    (values, step) = fake.calls[1][1]
    assert step == 3 and values["trial"] == ("audio", pytest.approx(0.9), 16000)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_tracker_is_refused_before_writing(settings, name: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    with pytest.raises(
        ConfigError, match=rf"{name} is not installed; install it with pip install 'wesep-py\[{name}\]'"
    ):
        train(settings(log__to=[name]))
    assert not (tmp_path / "exp").exists()
    check_trackers(["tensorboard"])


def test_a_tone_is_a_bright_line_at_its_frequency():
    time_s = np.arange(16000) / 16000
    image = spectrogram_image(np.sin(2 * np.pi * 2000 * time_s).astype(np.float32), 16000)
    assert image.dtype == np.uint8 and image.shape == (3, 257, 126)
    brightness = image.astype(int).sum(0)[:, 60]
    assert brightness.argmax() == 256 - 64  # 2000 Hz is bin 64 of 31.25 Hz, counted from the bottom
    assert brightness.max() > 750 and np.median(brightness) == 0


def test_quiet_is_darker_than_loud_and_silence_is_black():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(16000).astype(np.float32)
    noise[:8000] *= 0.01
    columns = spectrogram_image(noise, 16000).astype(int).sum((0, 1))
    assert columns[:55].max() < columns[70:].min()
    assert not spectrogram_image(np.zeros(800, np.float32), 8000).any()


def test_a_waveform_shorter_than_a_window():
    assert spectrogram_image(np.ones(10, np.float32), 16000).shape[1] == 257


def test_throughput_counts_audio_steps_and_waiting():
    now = [10.0]
    rates = Throughput(lambda: now[0])
    for _ in range(4):
        rates.add_wait(0.5)
        rates.add_step(6.0)
    now[0] = 18.0
    assert rates.rates() == {"step_s": 2.0, "audio_s_per_s": 3.0, "data_wait": 0.25}
    rates.reset()
    now[0] = 20.0
    assert rates.rates() == {"step_s": 2.0, "audio_s_per_s": 0.0, "data_wait": 0.0}


def test_the_remaining_time_uses_the_speed_of_this_session(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = TrainingBar(enabled=False)
    bar.begin(0.5)
    assert bar.remaining_s(0.5) == float("inf")
    now[0] = 110.0
    assert bar.remaining_s(0.6) == pytest.approx(40.0)


def test_without_a_terminal_only_log_steps_print_a_line(capsys: pytest.CaptureFixture[str]):
    with TrainingBar() as bar:
        bar.begin(0.0)
        bar.update(0.1, "step 1", is_line=False)
        bar.update(0.2, "step 2", is_line=True)
        bar.print_line("done")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "20.0 %" in lines[0] and "step 2" in lines[0] and "ETA" in lines[0]
    with TrainingBar(enabled=False) as silent:
        silent.update(0.5, "step 3", is_line=True)
        silent.print_line("nothing")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (86399, "23:59:59")])
def test_durations(seconds: float, text: str):
    assert format_duration(seconds) == text
