"""A dry run finds what a run would, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.common.errors import ConfigError, InputError, WesepError
from wesep_py.training import train
from wesep_py.training.dry_run import dry_run
from wesep_py.training.extraction_task import Criterion


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_one_step_is_taken_and_nothing_written(settings, validation, corpus: Path, tmp_path: Path):
    before = everything(tmp_path), everything(corpus)
    report = dry_run(settings(validation=validation, data__packed=str(tmp_path / "packed"), data__workers=2))
    assert (everything(tmp_path), everything(corpus)) == before
    assert (report.step, report.speakers, report.memory_gib) == (0, 4, None)
    assert report.parameters > 1000 and report.grad_norm > 0 and report.losses["loss"] == report.losses["si_sdr"]


def test_the_loss_is_that_of_the_runs_first_step(settings, tmp_path: Path):
    from tests.training.runs import lines

    report = dry_run(settings())
    train(settings(train__steps=1, log__every_steps=1))
    assert lines(tmp_path / "exp", "train")[0]["loss"] == report.losses["loss"]


def test_a_started_run_is_not_changed(settings, tmp_path: Path):
    train(settings(train__steps=2))
    before = {path: path.stat().st_mtime_ns for path in everything(tmp_path)}
    assert dry_run(settings()).step == 2
    assert {path: path.stat().st_mtime_ns for path in everything(tmp_path)} == before


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"model__cues": [{"name": "tfmap"}]}, ConfigError, "did you mean 'tf_map'"),
        ({"data__train": ["gone.jsonl"]}, InputError, "gone.jsonl"),
        ({"loss": {"name": "presence"}}, ConfigError, "needs a presence head"),
        ({"optim__groups": [{"match": "x"}]}, ConfigError, "no trained parameter matches"),
        ({"init": {"checkpoint": "gone"}}, InputError, "no such model"),
        (
            {"log__to": ["wandb"]},
            ConfigError,
            r"wandb is not installed; install it with pip install 'wesep-py\[wandb\]'",
        ),
    ],
)
def test_errors_of_a_run_are_errors_of_a_dry_run(settings, tmp_path: Path, changed: dict, kind: type, message: str):
    if "log__to" in changed:
        import importlib.util

        if importlib.util.find_spec("wandb"):
            pytest.skip("wandb is installed")
    with pytest.raises(kind, match=message):
        dry_run(settings(**changed))
    assert not (tmp_path / "exp").exists()


def test_a_loss_that_is_not_finite_is_an_error(settings, monkeypatch):
    forward = Criterion.forward
    monkeypatch.setattr(
        Criterion, "forward", lambda self, *given: {k: v * float("nan") for k, v in forward(self, *given).items()}
    )
    with pytest.raises(WesepError, match="is not finite; look at the data"):
        dry_run(settings())
