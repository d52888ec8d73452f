"""`train.compile`: the blocks go through torch.compile, and its checkpoint is that of any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.runs import lines
from wesep_py.network.extraction_network import load_network
from wesep_py.training import train


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
def test_a_compiled_run_learns_what_another_does(settings, tmp_path: Path):
    small = {"model__speaker": None, "model__cues": [{"name": "tf_map"}], "train__steps": 2, "log__every_steps": 1}
    train(settings(experiment=str(tmp_path / "eager"), **small))
    train(settings(train__compile=True, **small))
    torch.compiler.reset()
    eager, compiled = ([line["loss"] for line in lines(tmp_path / name, "train")] for name in ("eager", "exp"))
    assert compiled[0] == pytest.approx(eager[0], abs=0.05)
    assert load_network(tmp_path / "exp").sample_rate == 16000


def test_it_is_the_blocks_that_are_compiled(settings, monkeypatch):
    compiled: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    train(settings(train__steps=1))
    assert compiled == []
    train(settings(experiment=settings()["experiment"] + "2", train__steps=1, train__compile=True))
    assert len(compiled) == 1 and "Block" in compiled[0]
