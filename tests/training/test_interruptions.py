"""Signals while a run trains, and errors of memory and disk."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

from wesep_py.common.errors import WesepError
from wesep_py.training.interruptions import RunPosition, TrainingInterrupted, catch_signals, explain_faults


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_recorded_and_the_handlers_are_restored(number: signal.Signals):
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


def test_other_threads_catch_no_signals():
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


POSITION = RunPosition(7, 5, "cuda:0", "a batch of 4 items of 3 s", saves_memory=False)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()],
)
def test_out_of_memory_says_what_to_lower(error: BaseException):
    with pytest.raises(WesepError) as raised, explain_faults(lambda: POSITION):
        raise error
    text = str(raised.value)
    assert "step 7: out of memory on cuda:0 with a batch of 4 items of 3 s" in text
    assert (
        "train.batch_size" in text and "gradient_checkpointing=true" in text and "step 5" in text and "\n" not in text
    )


def test_out_of_memory_on_the_cpu_is_recognised():
    with pytest.raises(WesepError, match="out of memory"), explain_faults(lambda: POSITION):
        torch.empty(2**55)


def test_other_errors_are_raised():
    for error in (RuntimeError("a bug"), FileNotFoundError("gone"), KeyError("x")):
        with pytest.raises(type(error)) as passed, explain_faults(lambda: POSITION):
            raise error
        assert passed.value is error
