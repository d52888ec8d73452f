"""Rates and remaining time, by a clock that is set by hand."""

from __future__ import annotations

import pytest

from wesep_py.training import run_log as progress
from wesep_py.training.run_log import Throughput, TrainingBar, format_duration


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


def test_the_remaining_time_is_at_the_rate_of_this_session(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = TrainingBar(enabled=False)
    bar.begin(0.5)
    assert bar.remaining_s(0.5) == float("inf")
    now[0] = 110.0
    assert bar.remaining_s(0.6) == pytest.approx(40.0)


def test_without_a_terminal_a_line_is_written_at_log_steps_only(capsys: pytest.CaptureFixture[str]):
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
