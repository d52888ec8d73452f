"""Run the extractions of `wesep extract`: one recording after the other, or several at a time in processes.

```
FileTask of each recording ─► run_all ─┬─► run_one, with a progress bar of a long recording
                                       └─► Worker in each of `--jobs` processes, which loads the model once ─► run_one
```

The failure of one recording does not stop the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wesep_py.cli.options import AUTO_VERIFIER, set_threads
from wesep_py.common.errors import WesepError, reason

if TYPE_CHECKING:
    from rich.progress import Progress

    from wesep_py.inference import Extractor
    from wesep_py.inference.file_extraction import FileResult
    from wesep_py.inference.inputs_outputs.output_files import ExtractionTarget
    from wesep_py.inference.presence_decision.repair import Repair

log = logging.getLogger(__name__)
LOG_EVERY_S = 30.0
CRASHED = "the process that extracted it ended unexpectedly"


@dataclass
class FileTask:
    """One recording, and the voices to extract from it.

    Attributes:
        mixture: the recording.
        targets: voices, and the files to write.
        timelines: files to write the times of speech to.
        segments: folder for the segments of the voices; `None` for none.
        force, overwrite, block_s, shifts: as the options.
    """

    mixture: Path
    targets: list[ExtractionTarget]
    timelines: list[Path] = field(default_factory=list)
    segments: Path | None = None
    force: bool = False
    overwrite: bool = False
    block_s: float = 30.0
    shifts: int | None = None


@dataclass(frozen=True)
class Worker:
    """`run_one` in a separate process, which loads the model once.

    Attributes:
        model, device, threads, live, verify, repair: as the options.
    """

    model: str | None
    device: str
    threads: int | None
    live: bool = False
    verify: str = AUTO_VERIFIER
    repair: Repair = "none"

    def __call__(self, task: FileTask) -> list[FileResult] | Exception:
        """Return what was written, or the reason why nothing was."""
        try:
            return run_one(_loaded(self), task)
        except Exception as error:  # the failure of one recording must not lose the others
            log.debug("extracting %s failed", task.mixture, exc_info=True)
            # Not every exception can be pickled for the parent process.
            return error if isinstance(error, (WesepError, OSError)) else WesepError(reason(error))


_extractors: dict[Worker, Extractor] = {}


def _loaded(worker: Worker) -> Extractor:
    from wesep_py.inference import load

    if worker not in _extractors:
        set_threads(worker.threads)
        _extractors[worker] = load(
            worker.model, worker.device, live=worker.live, verify=worker.verify, repair=worker.repair
        )
    return _extractors[worker]


def run_one(
    extractor: Extractor, task: FileTask, progress: Callable[[float, float], None] | None = None
) -> list[FileResult]:
    """Extract the voices of one task."""
    from wesep_py.inference import Blocks
    from wesep_py.inference.file_extraction import extract_file

    return extract_file(
        extractor,
        task.mixture,
        task.targets,
        task.timelines,
        task.force,
        task.overwrite,
        Blocks.of(task.block_s),
        progress=progress or (lambda done_s, computed_s: None),
        shifts=task.shifts,
        segments=task.segments,
    )


def run_all(
    extractor: Extractor, tasks: Sequence[FileTask], jobs: int, worker: Worker
) -> tuple[list[tuple[FileTask, list[FileResult]]], list[tuple[FileTask, Exception]]]:
    """Run the tasks one after the other, or `jobs` at a time; a bad recording does not stop the others.

    Returns:
        The tasks that were done with their results, and those that failed with the reason, in the order of `tasks`.

    Raises:
        KeyboardInterrupt: with a message that says what was written and how to resume.
    """
    done: dict[int, list[FileResult]] = {}
    failed: dict[int, Exception] = {}
    current = CurrentTask()
    total = sum(len(task.targets) for task in tasks)
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
                where += f" ({current.share:.0%} of it is saved)"
            resume = "the same command resumes" if total == 1 else "the same command with --skip-existing resumes"
            raise KeyboardInterrupt(
                f"interrupted{where}; {written} of {total} results were written before it; {resume}"
            ) from None
    return (
        [(tasks[position], done[position]) for position in sorted(done)],
        [(tasks[position], failed[position]) for position in sorted(failed)],
    )


@dataclass
class CurrentTask:
    """Position of the work, for the message of an interruption.

    Attributes:
        task: the current recording.
        share: of a long recording, the share that is done and saved.
    """

    task: FileTask | None = None
    share: float | None = None


def _results(
    extractor: Extractor, tasks: Sequence[FileTask], jobs: int, worker: Worker, current: CurrentTask, shown: Progress
) -> Iterator[tuple[int, list[FileResult] | Exception]]:
    if jobs > 1 and len(tasks) > 1:
        from wesep_py.common.processes import map_processes

        yield from map_processes(worker, tasks, jobs, lost=_lost)
        return
    for position, task in enumerate(tasks):
        current.task, current.share = task, None
        bar = LongFileBar(shown, task.mixture, current)
        result: list[FileResult] | Exception
        try:
            result = run_one(extractor, task, bar)
        except Exception as error:  # as in a `Worker`
            log.debug("extracting %s failed", task.mixture, exc_info=True)
            result = error
        finally:
            bar.remove()
        yield position, result


def _lost(task: FileTask) -> list[FileResult] | Exception:
    return WesepError(CRASHED)


class LongFileBar:
    """Progress bar of one long recording, with the real-time factor and the remaining time.

    If stderr is no terminal, `-v` logs a line every half minute instead.
    """

    def __init__(self, shown: Progress, mixture: Path, current: CurrentTask) -> None:
        self._shown, self._mixture, self._current = shown, mixture, current
        self._task: Any = None
        self._began = self._logged = time.monotonic()
        self._total = 0.0

    def __call__(self, done_s: float, computed_s: float) -> None:
        now = time.monotonic()
        if self._task is None:
            from wesep_py import audio

            self._total = audio.info(self._mixture).duration_s
            self._task = self._shown.add_task(self._mixture.name, total=self._total, completed=done_s, note="")
            self._began = now
        self._current.share = min(1.0, done_s / self._total)
        rtf = (now - self._began) / computed_s if computed_s else None
        note = "" if rtf is None else f"RTF {rtf:.3f}"
        self._shown.update(self._task, completed=done_s, note=note)
        if rtf is not None and now - self._logged >= LOG_EVERY_S:
            self._logged = now
            left_s = max(0.0, self._total - done_s) * rtf
            log.info("%s: %.0f %%, %s, %.0f s left", self._mixture, 100 * self._current.share, note, left_s)

    def remove(self) -> None:
        """Remove the bar: the recording is done."""
        if self._task is not None:
            self._shown.remove_task(self._task)


@contextmanager
def bars() -> Iterator[Progress]:
    """Show progress bars on stderr and remove them at the end; nothing if stderr is no terminal."""
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
