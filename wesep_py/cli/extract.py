"""`wesep extract`: the main job."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wesep_py.cli.common import (
    ENROLL_MAX_S,
    DeviceOption,
    EnrollMaxOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    set_threads,
)
from wesep_py.errors import InputError, TargetAbsentError, WesepError, reason
from wesep_py.names import printable

if TYPE_CHECKING:
    from wesep_py.cli.extract_tasks import Task
    from wesep_py.cli.targets import Job, Target
    from wesep_py.inference import Extractor, Voice
    from wesep_py.inference.recording.file_to_file import Outcome

log = logging.getLogger(__name__)


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
    from wesep_py.cli.extract_tasks import Worker, run_all
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
    from wesep_py.cli.job_list import read_jobs
    from wesep_py.cli.outputs import plan
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
    from wesep_py.cli.extract_tasks import Task
    from wesep_py.inference.recording.writing import Wanted

    tasks: dict[Path, Task] = {}
    for job in jobs:
        task = tasks.setdefault(job.mixture, Task(job.mixture, [], timelines.get(job.mixture, [])))
        task.wanted.append(Wanted(job.target.name, voices[id(job.target)], job.output, job.rest))
    return list(tasks.values())


def _tell(
    done: Sequence[tuple[Task, list[Outcome]]], problems: Sequence[tuple[Path, int, Exception]], as_json: bool
) -> None:
    """What was written on stdout, in JSON also what was not; what is to be said of it on stderr."""
    from wesep_py.cli.extract_tasks import clock

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


def _absent_lines(done: Sequence[tuple[Task, list[Outcome]]], force: bool) -> list[str]:
    """A line for each voice that is absent."""
    return [
        f"{one.name} is not in {task.mixture}: probability {one.presence:.2f}, below {one.threshold:.2f}; "
        + ("written as asked" if force else "silence was written; --force writes what was extracted")
        for task, outcomes in done
        for one in outcomes
        if one.absent
    ]


def _tell_absent(done: Sequence[tuple[Task, list[Outcome]]], force: bool) -> None:
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
