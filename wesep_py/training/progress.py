"""How fast a run goes, and the bar that says so."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


class Throughput:
    """Counts, between two log steps, the time, the part of it spent waiting for data, and the audio trained on.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._start = self._clock()
        self._waited_s = 0.0
        self._audio_s = 0.0
        self._steps = 0

    def waited(self, seconds: float) -> None:
        """The step waited so long for its data."""
        self._waited_s += seconds

    def trained(self, audio_s: float) -> None:
        """A step is done, over so many seconds of target audio on all devices together."""
        self._audio_s += audio_s
        self._steps += 1

    def rates(self) -> dict[str, float]:
        """`step_s` (seconds a step), `audio_s_per_s` (seconds of audio a second), `data_wait` (share, 0 to 1)."""
        wall = max(self._clock() - self._start, 1e-9)
        return {
            "step_s": wall / max(self._steps, 1),
            "audio_s_per_s": self._audio_s / wall,
            "data_wait": min(1.0, self._waited_s / wall),
        }


class TrainingBar:
    """A progress bar on stderr; where stderr is no terminal, a line at every log step.

    Args:
        enabled: only one process of a run shows it.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._started_at = 0.0
        self._start = time.monotonic()
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if enabled and sys.stderr.isatty():
            columns = (BarColumn(bar_width=30), TextColumn("{task.percentage:>5.1f} %  {task.description}"))
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("starting", total=1.0)

    def begin(self, done: float) -> None:
        """The run stands at `done`, 0 to 1, now: the time that is left is told from here."""
        self._started_at, self._start = done, time.monotonic()

    def __enter__(self) -> TrainingBar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: float, text: str, is_line: bool) -> None:
        """The run is at `done`; `text` says the numbers; `is_line`: worth a line where there is no bar."""
        text = f"{text}  ETA {spell_duration(self.remaining_s(done))}"
        if self._bar:
            self._bar.update(self._task, completed=done, description=text)
        elif is_line:
            self.say(f"{100 * done:5.1f} %  {text}")

    def say(self, text: str) -> None:
        """A line above the bar, or by itself."""
        if self._enabled:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def remaining_s(self, done: float) -> float:
        """Seconds to the end at the rate of this session."""
        gained = done - self._started_at
        if gained <= 0:
            return float("inf")
        return (time.monotonic() - self._start) * (1.0 - done) / gained


def spell_duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> spell_duration(3725)
    '1:02:05'
    """
    if seconds == float("inf"):
        return "?"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
