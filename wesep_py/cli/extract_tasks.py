"""What `wesep extract` does: recording after recording, or several at once in processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wesep_py.cli.common import set_threads
from wesep_py.errors import WesepError, reason

if TYPE_CHECKING:
    from rich.progress import Progress

    from wesep_py.inference import Extractor
    from wesep_py.inference.recording.file_to_file import Outcome
    from wesep_py.inference.recording.writing import Wanted

log = logging.getLogger(__name__)

SAY_EVERY_S = 30.0
CRASHED = "the process that extracted it ended unexpectedly"


@dataclass
class Task:
    """One recording, and the voices wanted of it.

    Attributes:
        mixture: the recording.
        wanted: the voices, and their files.
        timelines: files that say when they speak.
        force, overwrite, block_s: as the options.
    """

    mixture: Path
    wanted: list[Wanted]
    timelines: list[Path] = field(default_factory=list)
    force: bool = False
    overwrite: bool = False
    block_s: float = 30.0


@dataclass(frozen=True)
class Worker:
    """`run_one` in a process of its own, with the model loaded once a process.

    Attributes:
        model, device, threads: as the options.
    """

    model: str | None
    device: str
    threads: int | None

    def __call__(self, task: Task) -> list[Outcome] | Exception:
        """What was written, or why it could not be."""
        try:
            return run_one(_loaded(self), task)
        except Exception as error:  # one recording's failure, of whatever kind, must not lose the others
            log.debug("extracting %s failed", task.mixture, exc_info=True)
            # Not every exception survives the way to another process.
            return error if isinstance(error, (WesepError, OSError)) else WesepError(reason(error))


def clock(seconds: float) -> str:
    """`1:02:03`."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


_extractors: dict[Worker, Extractor] = {}


def _loaded(worker: Worker) -> Extractor:
    from wesep_py.inference import load

    if worker not in _extractors:
        set_threads(worker.threads)
        _extractors[worker] = load(worker.model, worker.device)
    return _extractors[worker]


def run_one(extractor: Extractor, task: Task, progress: Callable[[float, float], None] | None = None) -> list[Outcome]:
    """Extract what is wanted of one recording."""
    from wesep_py.inference import Blocks
    from wesep_py.inference.recording.file_to_file import extract_file

    return extract_file(
        extractor,
        task.mixture,
        task.wanted,
        task.timelines,
        task.force,
        task.overwrite,
        Blocks.of(task.block_s),
        progress=progress or (lambda done_s, own_s: None),
    )


def run_all(
    extractor: Extractor, tasks: Sequence[Task], jobs: int, worker: Worker
) -> tuple[list[tuple[Task, list[Outcome]]], list[tuple[Task, Exception]]]:
    """Extract task after task, or `jobs` of them at a time; a bad recording does not stop the rest.

    Returns:
        What was written, and what failed with the reason, both in the order of the tasks.

    Raises:
        KeyboardInterrupt: with a message that says what is written and how to go on.
    """
    done: dict[int, list[Outcome]] = {}
    failed: dict[int, Exception] = {}
    current = Current()
    total = sum(len(task.wanted) for task in tasks)
    with bars() as shown:
        overall = shown.add_task("extracting", total=len(tasks), visible=len(tasks) > 1, note=f"0/{len(tasks)}")
        try:
            for position, result in _results(extractor, tasks, jobs, worker, current, shown):
                if isinstance(result, Exception):
                    failed[position] = result
                else:
                    done[position] = result
                shown.update(overall, advance=1, note=f"{len(done) + len(failed)}/{len(tasks)}")
        except KeyboardInterrupt:
            written = sum(len(outcomes) for outcomes in done.values())
            where = f" at {current.task.mixture}" if current.task is not None else ""
            if current.share is not None:
                where += f" ({current.share:.0%} of it is kept)"
            again = "the same command goes on" if total == 1 else "the same command with --skip-existing goes on"
            raise KeyboardInterrupt(
                f"interrupted{where}; {written} of {total} results were written before it, whole; {again}"
            ) from None
    return (
        [(tasks[position], done[position]) for position in sorted(done)],
        [(tasks[position], failed[position]) for position in sorted(failed)],
    )


@dataclass
class Current:
    """Where the work is, for the message of an interruption.

    Attributes:
        task: the recording at hand.
        share: of a long recording, what is done of it and kept.
    """

    task: Task | None = None
    share: float | None = None


def _results(
    extractor: Extractor, tasks: Sequence[Task], jobs: int, worker: Worker, current: Current, shown: Progress
) -> Iterator[tuple[int, list[Outcome] | Exception]]:
    if jobs > 1 and len(tasks) > 1:
        from wesep_py.corpus.processes import map_processes

        yield from map_processes(worker, tasks, jobs, lost=_lost)
        return
    for position, task in enumerate(tasks):
        current.task, current.share = task, None
        bar = LongBar(shown, task.mixture, current)
        result: list[Outcome] | Exception
        try:
            result = run_one(extractor, task, bar)
        except Exception as error:  # as in a `Worker`
            log.debug("extracting %s failed", task.mixture, exc_info=True)
            result = error
        finally:
            bar.remove()
        yield position, result


def _lost(task: Task) -> list[Outcome] | Exception:
    return WesepError(CRASHED)


class LongBar:
    """The progress of one long recording: how far, how fast (RTF), how much longer.

    Where stderr is no terminal, a line every half minute with -v.
    """

    def __init__(self, shown: Progress, mixture: Path, current: Current) -> None:
        self._shown, self._mixture, self._current = shown, mixture, current
        self._task: Any = None
        self._began = self._said = time.monotonic()
        self._total = 0.0

    def __call__(self, done_s: float, own_s: float) -> None:
        now = time.monotonic()
        if self._task is None:
            from wesep_py import audio

            self._total = audio.info(self._mixture).duration_s
            self._task = self._shown.add_task(self._mixture.name, total=self._total, completed=done_s, note="")
            self._began = now
        self._current.share = min(1.0, done_s / self._total)
        rtf = (now - self._began) / own_s if own_s else None
        note = "" if rtf is None else f"RTF {rtf:.3f}"
        self._shown.update(self._task, completed=done_s, note=note)
        if rtf is not None and now - self._said >= SAY_EVERY_S:
            self._said = now
            left_s = max(0.0, self._total - done_s) * rtf
            log.info("%s: %.0f %%, %s, %.0f s left", self._mixture, 100 * self._current.share, note, left_s)

    def remove(self) -> None:
        """The recording is done."""
        if self._task is not None:
            self._shown.remove_task(self._task)


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress bars on stderr that vanish when they are done; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        yield shown
