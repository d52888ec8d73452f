"""The first Ctrl-C asks, the second insists."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from wesep_py.training.interruptions import TrainingInterrupted, catch_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_handlers_come_back(number: signal.Signals):
    before = signal.getsignal(number)
    with catch_signals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_at_once():
    with pytest.raises(KeyboardInterrupt), catch_signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_than_the_main_one_catches_nothing():
    seen: list[bool] = []

    def run() -> None:
        with catch_signals() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]


def test_the_exit_status_is_that_of_an_interrupted_program():
    assert TrainingInterrupted("stopped").exit_status == 130
