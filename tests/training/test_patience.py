"""What goes by the validation: the learning rate on a plateau, and a run that ends early."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import assert_same, lines, stop_after, weights
from wesep_py.training import TrainingInterrupted, train
from wesep_py.training.validation import ExtractionValidator

RESULTS = {1: 5.0, 2: 6.0, 3: 5.5, 4: 6.0, 5: 5.9, 6: 7.0, 7: 6.5, 8: 6.9}
"""Of the validation after each step: the best at 2, and again at 6."""


@pytest.fixture
def validated(validation, monkeypatch, settings):
    """Settings of a run of eight steps that is validated after each, with results that are known."""
    from wesep_py.training.trainer import Trainer

    validate, step = ExtractionValidator.validate, Trainer._step
    at = {"step": 0}

    def counted(self, batches):
        step(self, batches)
        at["step"] = self.progress.step

    def known(self, *given):
        result = validate(self, *given)
        result.numbers["si_sdri"] = RESULTS[at["step"]]
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


def test_a_plateau_lowers_the_learning_rate_and_resumes_so(validated, tmp_path: Path, monkeypatch):
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


def test_a_run_that_does_not_become_better_ends_early_and_says_so(validated, tmp_path: Path, capsys):
    result = train(validated(train__patience=3))
    assert (result.step, result.best) == (5, 6.0)
    assert "finished: 5 steps (early: 3 validations without a better one)" in capsys.readouterr().err
    assert train(validated(train__patience=3)).was_finished
    # With more patience it resumes.
    assert train(validated(train__patience=4)).step == 8
