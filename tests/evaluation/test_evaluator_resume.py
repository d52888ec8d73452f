"""Interrupted, truncated and partly failed runs resume, and give the results of an uninterrupted run."""

from __future__ import annotations

import multiprocessing

import pytest

from tests.evaluation.conftest import Oracle, lines_of
from wesep_py.common.errors import InputError
from wesep_py.evaluation import EvaluationOptions, evaluate


class Dying(Oracle):
    """Be interrupted at the fifth trial."""

    def extract(self, mixture, voice):
        if len(self.enrolled) == 5:
            raise KeyboardInterrupt
        return super().extract(mixture, voice)


def without_times(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "extraction_s"} for line in lines]


def test_ctrl_c_ends_the_workers_and_the_repeated_run_resumes(trials, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Dying(trials), trials, out, EvaluationOptions(jobs=1))
    assert multiprocessing.active_children() == []
    assert {path.name for path in out.iterdir()} == {".lock", "run.json", "per_trial.jsonl"}
    done = {line["number"] for line in lines_of(out)}
    assert done < set(range(4))
    left = [trial for number, trial in enumerate(trials) if number not in done]
    again, steps = Oracle(left), []
    summary = evaluate(again, trials, out, EvaluationOptions(on_progress=lambda *step: steps.append(step)))
    assert len(again.enrolled) == len(left)
    assert steps[-1] == (6, 6)
    assert {path.name for path in out.iterdir()} == {".lock", "summary.json", "per_trial.jsonl"}
    whole = evaluate(Oracle(trials), trials, tmp_path / "whole")
    assert without_times(lines_of(out)) == without_times(lines_of(tmp_path / "whole"))
    assert summary["si_sdri"] == whole["si_sdri"]
    assert summary["breakdown"] == whole["breakdown"]


def test_an_unfinished_run_with_another_protocol_is_refused(trials, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Dying(trials), trials, out)
    before = (out / "per_trial.jsonl").read_bytes()
    for changed in ({"condition": "noisy"}, {"metrics": ("stoi",)}):
        with pytest.raises(InputError, match=f"unfinished run that differs in .*{next(iter(changed))}"):
            evaluate(Oracle(trials), trials, out, EvaluationOptions(**changed))
    with pytest.raises(InputError, match="differs in model"):
        evaluate(Oracle(trials, model_hash="1" * 64), trials, out)
    shifted = Oracle(trials)
    shifted.shifts = 2
    with pytest.raises(InputError, match="differs in shifts"):
        evaluate(shifted, trials, out)
    with pytest.raises(InputError, match="differs in trials"):
        evaluate(Oracle(trials), trials[:3], out)
    assert (out / "per_trial.jsonl").read_bytes() == before
    assert (
        evaluate(Oracle(trials, condition="noisy"), trials, out, EvaluationOptions(condition="noisy", overwrite=True))[
            "counts"
        ]["scored"]
        == 6
    )


def test_speakers_named_later_break_down_the_whole_run(trials, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate(Dying(trials), trials, tmp_path / "out")
    speakers = {"anna": ("f", 30), "bert": ("m", 8), "carl": ("m", 40), "dora": ("f", 15)}
    pairs = evaluate(Oracle(trials[4:]), trials, tmp_path / "out", EvaluationOptions(speakers=speakers))["breakdown"][
        "gender_pair"
    ]
    assert {pair: members["trials"] for pair, members in pairs.items()} == {"f-f": 2, "f-m": 2, "m-m": 2}


def test_a_trial_with_a_truncated_line_is_repeated(trials, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Dying(trials), trials, out)
    text = (out / "per_trial.jsonl").read_text()
    (out / "per_trial.jsonl").write_text(text[:-40])
    again = Oracle(trials[3:])
    assert evaluate(again, trials, out)["counts"]["scored"] == 6
    assert len(again.enrolled) == 3


def test_trials_that_failed_are_tried_again(trials, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Dying(trials, fails_at=(1,)), trials, out)
    again = Oracle([trials[1], *trials[4:]])
    assert evaluate(again, trials, out)["counts"]["failed"] == 0
    assert len(again.enrolled) == 3
