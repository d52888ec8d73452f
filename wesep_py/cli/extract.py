"""`wesep extract`: the main job."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wesep_py.cli.common import (
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    progress_bar,
    set_threads,
)
from wesep_py.errors import WesepError

if TYPE_CHECKING:
    from wesep_py.cli.targets import Job, Target
    from wesep_py.inference import Extractor, Voice

log = logging.getLogger(__name__)


def extract(
    mixtures: Annotated[list[Path], typer.Argument(metavar="MIXTURE", help="Recordings, or folders of them.")],
    enrollments: Annotated[
        list[str] | None,
        typer.Option("--enroll", metavar="[NAME=]FILE", help="A recording of the voice alone, a folder, or a .voice."),
    ] = None,
    prints: Annotated[
        list[str] | None,
        typer.Option(
            "--enroll-like",
            metavar="[NAME=]PRINT",
            help="A .voice of the person: of several voices in the enrollment the nearest to it is taken.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write; a folder for several. Default: beside the recording."),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Leave out what is written already: go on after an interruption."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Extract one person's voice from recordings in which people talk over each other.

    Example: wesep extract meeting.wav --enroll alice.wav -o alice_only.wav --model exp/mine

    --enroll repeated adds audio of the same voice. With names, --enroll
    alice=a.wav --enroll bob=b.wav, each voice goes to a file of its own.

    Where others speak in an enrollment too, --enroll-like alice.voice says which
    of its voices is meant (with a model whose encoder tells voices apart).

    Any sample rate, channel count and length; the result has those of the
    recording.
    """
    from wesep_py.cli.targets import parse_targets, plan
    from wesep_py.inference import load

    targets = parse_targets(enrollments or [], prints or [])
    jobs = plan(mixtures, targets, output, overwrite or skip_existing)
    if skip_existing:
        jobs = [job for job in jobs if not job.output.exists()]
    set_threads(threads)
    extractor = load(model, device)
    voices = {target.name: _voice(extractor, target) for target in targets}
    done, failed = _run(extractor, voices, jobs, overwrite)
    if done:
        _warn(voices)
    if as_json:
        typer.echo(json.dumps(done, indent=2))
    else:
        for result in done:
            typer.echo(result["output"])
    if failed and len(jobs) == 1:
        raise failed[0][1]
    if failed:
        for job, error in failed:
            typer.echo(f"failed: {job.mixture}: {_one_line(job, error)}", err=True)
        raise WesepError(f"{len(failed)} of {len(jobs)} extractions failed (named above); the others are written")


def _voice(extractor: Extractor, target: Target) -> Voice:
    from wesep_py.inference import Voice

    if target.voice_print is not None:
        return Voice.load(target.voice_print)
    like = None if target.like is None else Voice.load(target.like)
    return extractor.enroll(*target.files, like=like)


def _warn(voices: dict[str, Voice]) -> None:
    """What is wrong with the enrollments, on stderr; with -v all that is known of them."""
    for name, voice in voices.items():
        if voice.quality is not None:
            log.info("the enrollment of %s:\n%s", name, voice.quality.table())
            for note in voice.quality.notes:
                typer.echo(note, err=True)
            for warning in voice.quality.warnings:
                typer.echo(f"warning: {warning}", err=True)


def _run(
    extractor: Extractor, voices: dict[str, Voice], jobs: list[Job], overwrite: bool
) -> tuple[list[dict[str, Any]], list[tuple[Job, Exception]]]:
    """Extract job after job; a bad recording does not stop the rest.

    Raises:
        KeyboardInterrupt: with a message that says what is written and how to go on.
    """
    done: list[dict[str, Any]] = []
    failed: list[tuple[Job, Exception]] = []
    with progress_bar("recordings") as bar:
        task = bar.add_task("extracting", total=len(jobs), visible=len(jobs) > 1)
        for job in jobs:
            try:
                done.append(_extract_one(extractor, voices[job.target.name], job, overwrite))
            except (WesepError, OSError, RuntimeError) as error:
                failed.append((job, error))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"interrupted at {job.mixture}; {len(done)} of {len(jobs)} results were written before it, whole; "
                    "the same command with --skip-existing goes on"
                ) from None
            bar.advance(task)
    return done, failed


def _extract_one(extractor: Extractor, voice: Voice, job: Job, overwrite: bool) -> dict[str, Any]:
    from wesep_py.files import check_writable

    check_writable(job.output, overwrite)
    result = extractor.extract(job.mixture, voice)
    result.save(job.output, overwrite)
    return {
        "mixture": str(job.mixture),
        "target": job.target.name,
        "output": str(job.output),
        "sample_rate": result.sample_rate,
        "presence": result.presence,
    }


def _one_line(job: Job, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removeprefix(f"{job.mixture}: ")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("extract")
