"""`wesep extract`: one person's voice from recordings.

The command reads its options (`extract`), plans one `FileTask` per recording (`_plan`, `_voices`, `_tasks`), runs the
tasks (`wesep_py.cli.file_tasks`), and reports what was written, what failed and which voices are absent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wesep_py.cli.file_tasks import FileTask, Worker, run_all
from wesep_py.cli.options import (
    AUTO_VERIFIER,
    ENROLL_MAX_S,
    DeviceOption,
    EnrollMaxOption,
    EnrollNotOption,
    JsonOption,
    LiveOption,
    ModelOption,
    OverwriteOption,
    RepairOption,
    ShiftsOption,
    ThreadsOption,
    TrackOption,
    VerifyOption,
    report_absent,
    set_threads,
)
from wesep_py.common.errors import InputError, WesepError, reason
from wesep_py.common.names import printable

if TYPE_CHECKING:
    from wesep_py.cli.targets import Job, Target
    from wesep_py.inference import Extractor, Voice
    from wesep_py.inference.file_extraction import FileResult
    from wesep_py.inference.inputs_outputs.inputs import EnrollmentSource

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
            help="A .voice of the person: selects the most similar one of several voices in the enrollment.",
        ),
    ] = None,
    negatives: EnrollNotOption = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            "--batch",
            metavar="CSV",
            help="CSV of extractions, with the columns mixture and enroll, and optionally name and output.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write; for several, a folder. Default: beside the recording."),
    ] = None,
    residual: Annotated[
        Path | None,
        typer.Option(
            "--residual",
            metavar="OUT",
            help="Also write the residual (mixture less voice): a file; for several, a folder.",
        ),
    ] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(
            "--timeline",
            metavar="OUT",
            help="Write when the target speaks: .rttm, .json, .csv, .srt, .vtt or .txt; for several, a folder.",
        ),
    ] = None,
    segments: Annotated[
        Path | None,
        typer.Option(
            "--segments", metavar="DIR", help="Also write each segment in which the target speaks, as a file."
        ),
    ] = None,
    _track: TrackOption = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Number of recordings at a time, each in a process.")] = 1,
    block_s: Annotated[
        float,
        typer.Option(
            "--block", metavar="SECONDS", min=2.0, help="Length of the blocks in which long recordings are extracted."
        ),
    ] = 30.0,
    shifts: ShiftsOption = None,
    live: LiveOption = False,
    enroll_max_s: EnrollMaxOption = ENROLL_MAX_S,
    verify: VerifyOption = AUTO_VERIFIER,
    repair: RepairOption = "none",
    overwrite: OverwriteOption = False,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Skip outputs that exist: resume an interrupted run."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write the extraction even if the voice is detected as absent.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Extract one person's voice from recordings in which people talk over each other.

    Example: wesep extract meeting.wav --enroll alice.wav -o alice_only.wav

    Repeat --enroll to add audio of the same voice. With names (--enroll
    alice=a.wav --enroll bob=b.wav) each voice is written to a file of its own;
    the recording is read once.

    If others speak in an enrollment, --enroll-like alice.voice selects her voice
    (with a model whose encoder separates voices). If the result is another
    person's voice, --enroll-not bob.wav names that person (with a model that
    takes negative enrollments).

    Recordings may have any sample rate, channel count and length; the result has
    the same. With the extra `media`, a video gives a video: -o talk_alice.mp4.
    Recordings of hours are extracted block by block; the same command resumes a
    stopped run.

    Exit status 3: none of the voices is in the recording, and silence was
    written (only models with a presence head detect this).
    """
    from wesep_py.cli.outputs import not_written, segment_folders, timeline_paths
    from wesep_py.inference import load

    planned, failed_jobs = _plan(
        mixtures or [],
        enrollments or [],
        prints or [],
        negatives or [],
        batch,
        output,
        residual,
        overwrite,
        skip_existing,
    )
    timelines = timeline_paths(planned, timeline)
    folders = segment_folders(planned, segments)
    if skip_existing:
        needing_all = {m: [*timelines.get(m, []), *([folders[m]] if folders else [])] for m in {*timelines, *folders}}
        planned = not_written(planned, needing_all)
    if threads is None and jobs > 1:
        import os

        threads = max(1, (os.cpu_count() or 1) // jobs)
    set_threads(threads)
    extractor = load(model, device, live=live, shifts=shifts, verify=verify, repair=repair)
    extractor.max_enrollment_s = enroll_max_s
    voices, not_enrolled = _voices(extractor, planned, strict=batch is None)
    failed_jobs += not_enrolled
    planned = [job for job in planned if id(job.target) in voices]
    tasks = [
        replace(
            task,
            segments=folders.get(task.mixture),
            force=force,
            overwrite=overwrite,
            block_s=block_s,
            shifts=shifts,
        )
        for task in _tasks(planned, voices, timelines)
    ]
    done, failed = run_all(extractor, tasks, jobs, Worker(model, device, threads, live, verify, repair))
    total = len(planned) + len(failed_jobs)
    if done:
        _report_enrollments(voices, planned)
    problems = [(job.mixture, 1, error) for job, error in failed_jobs]
    problems += [(task.mixture, len(task.targets), error) for task, error in failed]
    _report(done, problems, as_json)
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
    num_voices = sum(len(results) for _, results in done)
    lines = _absent_lines(done, force)
    report_absent(lines, all_absent=not force and len(lines) == num_voices)


def _plan(
    mixtures: Sequence[Path],
    enrollments: Sequence[str],
    prints: Sequence[str],
    negatives: Sequence[str],
    batch: Path | None,
    output: Path | None,
    residual: Path | None,
    overwrite: bool,
    skip_existing: bool,
) -> tuple[list[Job], list[tuple[Job, Exception]]]:
    """Return the extractions to do, and those that cannot be done with the reason."""
    from wesep_py.cli.outputs import plan, read_jobs
    from wesep_py.cli.targets import Job, parse_targets

    if batch is not None:
        if mixtures or enrollments or prints or negatives:
            raise InputError(f"--batch {batch}: names recordings and voices; leave out MIXTURE and --enroll")
        return read_jobs(batch, output, residual)
    if not mixtures:
        raise InputError("no MIXTURE was given; name a recording, or a CSV of them with --batch")
    bad_targets: list[tuple[Target, Exception]] = []
    targets = parse_targets(enrollments, prints, bad_targets, negatives)
    if not targets:
        raise bad_targets[0][1]
    bad: list[tuple[Job, Exception]] = []
    planned = plan(mixtures, targets, output, overwrite, residual, skip_existing, bad, several=bool(bad_targets))
    if bad and not planned:
        raise bad[0][1]
    for mixture in dict.fromkeys(job.mixture for job in (*planned, *(job for job, _ in bad))):
        bad += [(Job(mixture, target, mixture), error) for target, error in bad_targets]
    return planned, bad


def _voices(
    extractor: Extractor, jobs: Sequence[Job], strict: bool
) -> tuple[dict[int, Voice], list[tuple[Job, Exception]]]:
    """Return the voice of each target by the `id` of the target, and, if not `strict`, the jobs without a voice."""
    voices: dict[int, Voice] = {}
    problems: dict[int, Exception] = {}
    for job in jobs:
        key = id(job.target)
        if key in voices or key in problems:
            continue
        try:
            voices[key] = voice_of(extractor, job.target)
        except Exception as error:  # the failure of one voice must not lose the others
            if strict:
                raise
            log.debug("enrolling %s failed", job.target.name, exc_info=True)
            problems[key] = error
    return voices, [(job, problems[id(job.target)]) for job in jobs if id(job.target) in problems]


def _tasks(jobs: Sequence[Job], voices: dict[int, Voice], timelines: dict[Path, list[Path]]) -> list[FileTask]:
    """Return one task per recording."""
    from wesep_py.inference.inputs_outputs.output_files import ExtractionTarget

    tasks: dict[Path, FileTask] = {}
    for job in jobs:
        task = tasks.setdefault(job.mixture, FileTask(job.mixture, [], timelines.get(job.mixture, [])))
        task.targets.append(ExtractionTarget(job.target.name, voices[id(job.target)], job.output, job.rest))
    return list(tasks.values())


def _report(
    done: Sequence[tuple[FileTask, list[FileResult]]], problems: Sequence[tuple[Path, int, Exception]], as_json: bool
) -> None:
    """Print the outputs on stdout (in JSON also the failures), and remarks on stderr."""
    rows: list[dict[str, Any]] = []
    for task, results in done:
        for result in results:
            rows.append(
                {
                    "mixture": str(task.mixture),
                    "target": result.name,
                    "output": str(result.output),
                    "residual": None if result.residual is None else str(result.residual),
                    "timelines": [str(path) for path in task.timelines],
                    "segments": None if task.segments is None else str(task.segments),
                    "sample_rate": result.sample_rate,
                    "presence": result.presence,
                    "threshold": result.threshold,
                    "verifier": result.verifier,
                    "absent": result.absent if result.presence is not None else None,
                    "silenced": result.silenced,
                    "repaired": result.repaired,
                }
            )
            if result.presence is not None:
                typer.echo(
                    f"{task.mixture}: {result.name} speaks in it with probability {result.presence:.2f}", err=True
                )
            if result.repaired:
                typer.echo(
                    f"{task.mixture}: the first extraction of {result.name} seemed to hold another voice; repaired",
                    err=True,
                )
            if result.voice_changes_s and not result.silenced:
                places = ", ".join(clock(at_s) for at_s in result.voice_changes_s[:5])
                more = f" and {len(result.voice_changes_s) - 5} more" if len(result.voice_changes_s) > 5 else ""
                typer.echo(
                    f"warning: {task.mixture}: the voice of {result.name} may change at {places}{more}",
                    err=True,
                )
    if as_json:
        rows += [{"mixture": str(mixture), "error": _one_line(mixture, error)} for mixture, _, error in problems]
        typer.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            typer.echo(row["output"])


def clock(seconds: float) -> str:
    """Return seconds as `1:02:03`."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _absent_lines(done: Sequence[tuple[FileTask, list[FileResult]]], force: bool) -> list[str]:
    """Return one line per absent voice."""
    return [
        f"{result.name} is not in {task.mixture}: probability {result.presence:.2f}, below {result.threshold:.2f}; "
        + ("written because of --force" if force else "silence was written; --force writes what was extracted")
        for task, results in done
        for result in results
        if result.absent
    ]


def voice_of(extractor: Extractor, target: Target) -> Voice:
    """Return the voice of a target: enrolled from its recordings, or read from its voice print."""
    from wesep_py.inference import Voice

    negatives: list[EnrollmentSource] | None = list(target.negatives) or None
    if target.voice_print is not None:
        voice = Voice.load(target.voice_print)
        return voice if negatives is None else extractor.with_negative(voice, negatives)
    like = None if target.like is None else Voice.load(target.like)
    return extractor.enroll(*target.files, like=like, negative=negatives)


def _report_enrollments(voices: dict[int, Voice], jobs: Sequence[Job]) -> None:
    for target in {id(job.target): job.target for job in jobs}.values():
        report_enrollment(target.name, voices[id(target)])


def report_enrollment(name: str, voice: Voice) -> None:
    """Print warnings about the enrollment of a voice on stderr; with -v, all its measures."""
    if voice.quality is not None:
        log.info("the enrollment of %s:\n%s", name, voice.quality.table())
        for note in voice.quality.notes:
            typer.echo(note, err=True)
        for warning in voice.quality.warnings:
            typer.echo(f"warning: {warning}", err=True)


def _one_line(mixture: Path, error: Exception) -> str:
    return reason(error).removeprefix(f"{mixture}: ")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("extract")
