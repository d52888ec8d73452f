"""Trackers that are extras: what they are given, with modules in their place."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from wesep_py.common.errors import ConfigError
from wesep_py.training import train
from wesep_py.training.experiment import Experiment
from wesep_py.training.run_log import check_trackers, make_tracker


class Recorder(ModuleType):
    """A module that notes what is called, and is the run that its `init` gives."""

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
def module(request, monkeypatch) -> Recorder:
    found = Recorder(request.param)
    monkeypatch.setitem(sys.modules, request.param, found)
    return found


def test_a_run_sends_its_numbers(settings, module: Recorder, tmp_path: Path):
    train(settings(log={"every_steps": 1, "to": [module.__name__], "project": "mine"}, train__steps=2))
    kind, _, named = module.calls[0]
    assert kind == "init" and (named["project"], named["name"], named["resume"]) == ("mine", "exp", "allow")
    assert named["config"]["optim"]["lr"] == 0.01
    logged = [given for kind, given, _ in module.calls if kind == "log"]
    assert [step for _, step in logged] == [1, 2] and all(values["train/loss"] < 100 for values, _ in logged)
    assert module.calls[-1][0] == "finish"
    assert not (tmp_path / "exp" / "tensorboard").exists() and (tmp_path / "exp" / "log.jsonl").exists()


def test_wandb_goes_on_with_the_run_that_it_knows_and_hears_audio(tmp_path: Path, monkeypatch):
    found = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", found)
    for _ in range(2):
        tracker = make_tracker("wandb", Experiment(tmp_path), "p", {}, 0)
        tracker.audio("trial", 3, np.full(8, 5.0, np.float32), 16000)
    first, second = (named["id"] for kind, _, named in found.calls if kind == "init")
    assert first == second and len(first) == 16
    (values, step) = found.calls[1][1]
    assert step == 3 and values["trial"] == ("audio", pytest.approx(0.9), 16000)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_what_is_not_installed_is_said_before_anything_is_written(settings, name: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    with pytest.raises(
        ConfigError, match=rf"{name} is not installed; install it with pip install 'wesep-py\[{name}\]'"
    ):
        train(settings(log__to=[name]))
    assert not (tmp_path / "exp").exists()
    check_trackers(["tensorboard"])
