"""`wesep extract`: the main job."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wesep_py.cli.options import (
    ENROLL_MAX_S,
    DeviceOption,
    EnrollMaxOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    set_threads,
)
from wesep_py.common.errors import InputError, TargetAbsentError, WesepError, reason
from wesep_py.common.names import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from wesep_py.cli.targets import Job, Target
    from wesep_py.inference import Extractor, Voice
    from wesep_py.inference.file_extraction import FileResult
    from wesep_py.inference.output_files import ExtractionTarget


# ----------------------------------------
# What `wesep extract` does: recording after recording, or several at once in processes.

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
    wanted: list[ExtractionTarget]
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

    def __call__(self, task: Task) -> list[FileResult] | Exception:
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


def run_one(
    extractor: Extractor, task: Task, progress: Callable[[float, float], None] | None = None
) -> list[FileResult]:
    """Extract what is wanted of one recording."""
    from wesep_py.inference import Blocks
    from wesep_py.inference.file_extraction import extract_file

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
) -> tuple[list[tuple[Task, list[FileResult]]], list[tuple[Task, Exception]]]:
    """Extract task after task, or `jobs` of them at a time; a bad recording does not stop the rest.

    Returns:
        What was written, and what failed with the reason, both in the order of the tasks.

    Raises:
        KeyboardInterrupt: with a message that says what is written and how to go on.
    """
    done: dict[int, list[FileResult]] = {}
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
) -> Iterator[tuple[int, list[FileResult] | Exception]]:
    if jobs > 1 and len(tasks) > 1:
        from wesep_py.common.processes import map_processes

        yield from map_processes(worker, tasks, jobs, lost=_lost)
        return
    for position, task in enumerate(tasks):
        current.task, current.share = task, None
        bar = LongBar(shown, task.mixture, current)
        result: list[FileResult] | Exception
        try:
            result = run_one(extractor, task, bar)
        except Exception as error:  # as in a `Worker`
            log.debug("extracting %s failed", task.mixture, exc_info=True)
            result = error
        finally:
            bar.remove()
        yield position, result


def _lost(task: Task) -> list[FileResult] | Exception:
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


def extract(
    mixtures: Annotated[
        list[Path] | None, typer.Argument(metavar="MIXTURE", help="Recordings, folders of them, or patterns ('*.wav').")
    ] = None,
    enrollments: Annotated[
        list[str] | None,
        typer.Option(
            "--enroll",
            metavar="[NAME=]FILE",
            help="A recording of the voice alone, FILE@12.3-17.8 for a part of it, a folder, a .voice, or a .npy.",
        ),
    ] = None,
    prints: Annotated[
        list[str] | None,
        typer.Option(
            "--enroll-like",
            metavar="[NAME=]PRINT",
            help="A .voice of the person: of several voices in the enrollment the nearest to it is taken.",
        ),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option("--batch", metavar="CSV", help="Jobs: columns mixture, enroll, and if wanted name, output."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write; a folder for several. Default: beside the recording."),
    ] = None,
    residual: Annotated[
        Path | None,
        typer.Option("--residual", metavar="OUT", help="Write the rest too: a file, or a folder for several."),
    ] = None,
    timeline: Annotated[
        Path | None,
        typer.Option("--timeline", metavar="OUT", help="Write when the target speaks: .rttm, .json, or a folder."),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Recordings at a time, each in a process.")] = 1,
    block_s: Annotated[
        float,
        typer.Option("--block", metavar="SECONDS", min=2.0, help="Of a long recording so much is extracted at a time."),
    ] = 30.0,
    enroll_max_s: EnrollMaxOption = ENROLL_MAX_S,
    overwrite: OverwriteOption = False,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Leave out what is written already: go on after an interruption."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write what is extracted also where the voice seems to be absent.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Extract one person's voice from recordings in which people talk over each other.

    Example: wesep extract meeting.wav --enroll alice.wav -o alice_only.wav

    --enroll repeated adds audio of the same voice. With names, --enroll
    alice=a.wav --enroll bob=b.wav, each voice goes to a file of its own; the
    recording is read once.

    Where others speak in an enrollment too, --enroll-like alice.voice says which
    of its voices is meant (with a model whose encoder tells voices apart).

    Any sample rate, channel count and length; the result has those of the
    recording. A recording of hours is extracted block by block; stopped or
    killed, the same command goes on where it was.

    Exit status 3: no voice asked for is in the recording, and silence was
    written (only models with a presence head can tell).
    """
    from wesep_py.cli.outputs import not_written, timeline_paths
    from wesep_py.inference import load

    asked = (mixtures or [], enrollments or [], prints or [])
    planned, bad = _plan(*asked, batch, output, residual, overwrite, skip_existing)
    timelines = timeline_paths(planned, timeline)
    if skip_existing:
        planned = not_written(planned, timelines)
    if threads is None and jobs > 1:
        import os

        threads = max(1, (os.cpu_count() or 1) // jobs)
    set_threads(threads)
    extractor = load(model, device)
    extractor.max_enrollment_s = enroll_max_s
    voices, untold = _voices(extractor, planned, strict=batch is None)
    bad += untold
    planned = [job for job in planned if id(job.target) in voices]
    tasks = [
        replace(task, force=force, overwrite=overwrite, block_s=block_s) for task in _tasks(planned, voices, timelines)
    ]
    done, failed = run_all(extractor, tasks, jobs, Worker(model, device, threads))
    total = len(planned) + len(bad)
    if done:
        _warn(voices, planned)
    problems = [(job.mixture, 1, error) for job, error in bad]
    problems += [(task.mixture, len(task.wanted), error) for task, error in failed]
    _tell(done, problems, as_json)
    if failed and total == len(tasks) == 1:
        raise failed[0][1]
    if problems:
        for line in _absent_lines(done, force):
            typer.echo(line, err=True)
        for mixture, _, error in problems:
            typer.echo(printable(f"failed: {mixture}: {_one_line(mixture, error)}"), err=True)
        count = sum(number for _, number, _ in problems)
        others = "; the others are written" if done else ""
        raise WesepError(f"{count} of {total} extractions failed (named above){others}")
    _tell_absent(done, force)


def _plan(
    mixtures: Sequence[Path],
    enrollments: Sequence[str],
    prints: Sequence[str],
    batch: Path | None,
    output: Path | None,
    residual: Path | None,
    overwrite: bool,
    skip_existing: bool,
) -> tuple[list[Job], list[tuple[Job, Exception]]]:
    """The extractions asked for, and those of a CSV that cannot be done, with the reason."""
    from wesep_py.cli.outputs import plan, read_jobs
    from wesep_py.cli.targets import Job, parse_targets

    if batch is not None:
        if mixtures or enrollments or prints:
            raise InputError(f"--batch {batch}: says the recordings and voices; leave out MIXTURE and --enroll")
        return read_jobs(batch, output, residual)
    if not mixtures:
        raise InputError("no MIXTURE was given; name a recording, or a CSV of them with --batch")
    strangers: list[tuple[Target, Exception]] = []
    targets = parse_targets(enrollments, prints, strangers)
    if not targets:
        raise strangers[0][1]
    bad: list[tuple[Job, Exception]] = []
    planned = plan(mixtures, targets, output, overwrite, residual, skip_existing, bad, several=bool(strangers))
    if bad and not planned:
        raise bad[0][1]
    for mixture in dict.fromkeys(job.mixture for job in (*planned, *(job for job, _ in bad))):
        bad += [(Job(mixture, target, mixture), error) for target, error in strangers]
    return planned, bad


def _voices(
    extractor: Extractor, jobs: Sequence[Job], strict: bool
) -> tuple[dict[int, Voice], list[tuple[Job, Exception]]]:
    """The voice of each target, by the target's `id`; and the jobs whose voice cannot be enrolled, if not `strict`."""
    voices: dict[int, Voice] = {}
    problems: dict[int, Exception] = {}
    for job in jobs:
        key = id(job.target)
        if key in voices or key in problems:
            continue
        try:
            voices[key] = _voice(extractor, job.target)
        except Exception as error:  # one voice's failure must not lose the others
            if strict:
                raise
            log.debug("enrolling %s failed", job.target.name, exc_info=True)
            problems[key] = error
    return voices, [(job, problems[id(job.target)]) for job in jobs if id(job.target) in problems]


def _tasks(jobs: Sequence[Job], voices: dict[int, Voice], timelines: dict[Path, list[Path]]) -> list[Task]:
    """A task for each recording."""
    from wesep_py.inference.output_files import ExtractionTarget

    tasks: dict[Path, Task] = {}
    for job in jobs:
        task = tasks.setdefault(job.mixture, Task(job.mixture, [], timelines.get(job.mixture, [])))
        task.wanted.append(ExtractionTarget(job.target.name, voices[id(job.target)], job.output, job.rest))
    return list(tasks.values())


def _tell(
    done: Sequence[tuple[Task, list[FileResult]]], problems: Sequence[tuple[Path, int, Exception]], as_json: bool
) -> None:
    """What was written on stdout, in JSON also what was not; what is to be said of it on stderr."""

    found: list[dict[str, Any]] = []
    for task, outcomes in done:
        for one in outcomes:
            found.append(
                {
                    "mixture": str(task.mixture),
                    "target": one.name,
                    "output": str(one.output),
                    "residual": None if one.rest is None else str(one.rest),
                    "timelines": [str(path) for path in task.timelines],
                    "sample_rate": one.sample_rate,
                    "presence": one.presence,
                    "threshold": one.threshold,
                    "absent": one.absent if one.presence is not None else None,
                    "silenced": one.silenced,
                }
            )
            if one.presence is not None:
                typer.echo(f"{task.mixture}: {one.name} speaks in it with probability {one.presence:.2f}", err=True)
            if one.breaks_s and not one.silenced:
                places = ", ".join(clock(at_s) for at_s in one.breaks_s[:5])
                more = f" and {len(one.breaks_s) - 5} more" if len(one.breaks_s) > 5 else ""
                typer.echo(
                    f"warning: {task.mixture}: what is heard of {one.name} may change voice at {places}{more}", err=True
                )
    if as_json:
        found += [{"mixture": str(mixture), "error": _one_line(mixture, error)} for mixture, _, error in problems]
        typer.echo(json.dumps(found, indent=2))
    else:
        for line in found:
            typer.echo(line["output"])


def _absent_lines(done: Sequence[tuple[Task, list[FileResult]]], force: bool) -> list[str]:
    """A line for each voice that is absent."""
    return [
        f"{one.name} is not in {task.mixture}: probability {one.presence:.2f}, below {one.threshold:.2f}; "
        + ("written as asked" if force else "silence was written; --force writes what was extracted")
        for task, outcomes in done
        for one in outcomes
        if one.absent
    ]


def _tell_absent(done: Sequence[tuple[Task, list[FileResult]]], force: bool) -> None:
    """Name the voices that are absent.

    Raises:
        TargetAbsentError: all of them are, and silence was written.
    """
    lines = _absent_lines(done, force)
    if not force and lines and len(lines) == sum(len(outcomes) for _, outcomes in done):
        for line in lines[:-1]:
            typer.echo(line, err=True)
        raise TargetAbsentError(lines[-1])
    for line in lines:
        typer.echo(line, err=True)


def _voice(extractor: Extractor, target: Target) -> Voice:
    from wesep_py.inference import Voice

    if target.voice_print is not None:
        return Voice.load(target.voice_print)
    like = None if target.like is None else Voice.load(target.like)
    return extractor.enroll(*target.files, like=like)


def _warn(voices: dict[int, Voice], jobs: Sequence[Job]) -> None:
    """What is wrong with the enrollments, on stderr; with -v all that is known of them."""
    for target in {id(job.target): job.target for job in jobs}.values():
        quality = voices[id(target)].quality
        if quality is not None:
            log.info("the enrollment of %s:\n%s", target.name, quality.table())
            for note in quality.notes:
                typer.echo(note, err=True)
            for warning in quality.warnings:
                typer.echo(f"warning: {warning}", err=True)


def _one_line(mixture: Path, error: Exception) -> str:
    return reason(error).removeprefix(f"{mixture}: ")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("extract")
