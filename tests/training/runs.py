"""Read what a run wrote, and interrupt a run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.training.step import Stepper


def weights(experiment: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return checkpoint.load(experiment / "checkpoints" / name).state_dict


def weights_at(experiment: Path, step: int) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    snapshot = load_file(experiment / "state" / "snapshots" / f"step_{step:08d}.safetensors")
    return {key.removeprefix("network."): value for key, value in snapshot.items()}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for key in left:
        assert torch.equal(left[key], right[key]), key


def lines(experiment: Path, kind: str) -> list[dict]:
    records = [json.loads(line) for line in (experiment / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send this process a SIGINT during its `steps`-th step, as Ctrl-C does."""
    step, calls = Stepper.step, []

    def interrupted(self, *arguments, **named):
        calls.append(1)
        if len(calls) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments, **named)

    monkeypatch.setattr(Stepper, "step", interrupted)
