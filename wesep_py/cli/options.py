"""Options, progress bars and endings that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wesep_py.common.errors import InputError, TargetAbsentError
from wesep_py.common.processes import max_workers

if TYPE_CHECKING:
    from rich.progress import Progress

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A bundled or installed model (see wesep models), a checkpoint or experiment folder, or hf:ORG/NAME.",
        show_default=False,
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="CPU threads to compute with; all cores by default.", show_default=False),
]
EnrollMaxOption = Annotated[
    float,
    typer.Option(
        "--enroll-max",
        metavar="SECONDS",
        min=1.0,
        help="Longest part of a voice's recordings that enters the network: the part with most speech.",
    ),
]
ENROLL_MAX_S = 30.0
"""Default of `--enroll-max`: `inference.MAX_ENROLLMENT_S`, repeated here so that help does not import it."""
EnrollNotOption = Annotated[
    list[str] | None,
    typer.Option(
        "--enroll-not",
        metavar="[NAME=]FILE",
        help="A recording of a person who is not meant (for models that take one); NAME= for that voice alone.",
    ),
]
ShiftsOption = Annotated[
    int | None,
    typer.Option(
        "--shifts",
        metavar="N",
        help="Average N (1 to 16) extractions, each shifted by a part of a frame, for N times the time; by default as "
        "many as the model's configuration says.",
        show_default=False,
    ),
]
LiveOption = Annotated[
    bool,
    typer.Option("--live", help="Use the model's live mode, which does not look ahead: the result of `wesep stream`."),
]


def _choose_track(context: typer.Context, number: int | None) -> int | None:
    """Read an audio track in the whole command."""
    if number is not None:
        from wesep_py.audio.media import audio_track

        context.with_resource(audio_track(number))
    return number


TrackOption = Annotated[
    int | None,
    typer.Option(
        "--track",
        metavar="N",
        min=1,
        callback=_choose_track,
        help="Audio track to read of videos with several, counted from 1; by default the first.",
        show_default=False,
    ),
]
VerifyOption = Annotated[
    str,
    typer.Option(
        "--verify",
        metavar="NAME",
        help="Speaker encoder that verifies, with the presence head, that the voice is there: an installed model such "
        "as dvector, or a folder; none for the head alone. By default the one that the model is calibrated for, if it "
        "is installed.",
        show_default=False,
    ),
]
AUTO_VERIFIER = "auto"
"""Default of `--verify`: `inference.presence_verifier.AUTO_VERIFIER`, repeated here so that help does not import it."""
RepairOption = Annotated[
    Literal["none", "requery", "swap"],
    typer.Option(
        "--repair",
        help="If the residual is more similar to the enrollment than the extraction: extract again from the residual "
        "(requery), or take the residual (swap, for two speakers). Needs a speaker encoder, the model's or --verify.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the results as JSON, for programs.")]


def check_threads(threads: int | None) -> None:
    """Check a number of threads; `None` is allowed.

    Raises:
        InputError: fewer than one thread, or more than the machine can start.
    """
    if threads is not None and not 1 <= threads <= max_workers():
        raise InputError(f"--threads {threads}: 1 to {max_workers()} are allowed on this machine")


def set_threads(threads: int | None) -> None:
    """Set the number of CPU threads of torch; `None` leaves torch's choice.

    Raises:
        InputError: fewer than one thread, or more than the machine can start.
    """
    if threads is None:
        return
    check_threads(threads)
    import torch

    torch.set_num_threads(threads)


def report_absent(lines: Sequence[str], all_absent: bool) -> None:
    """Print a line for each absent voice on stderr.

    Args:
        lines: one per absent voice.
        all_absent: end the command because no voice is in its recording; the error has the last of the lines.

    Raises:
        TargetAbsentError: with `all_absent`, if there is a line.
    """
    if not lines:
        return
    *others, last = lines
    for line in others:
        typer.echo(line, err=True)
    if all_absent:
        raise TargetAbsentError(last)
    typer.echo(last, err=True)


@contextmanager
def resumable(output: Path) -> Iterator[None]:
    """Make an interruption of the block say that the same command completes the output."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"interrupted; the same command again completes {output}") from interrupt


@contextmanager
def progress(description: str, unit: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show one progress bar; yield the callback `(done, total)` that moves it."""
    with progress_bar(unit) as bar:
        task = bar.add_task(description, total=total)

        def on_progress(done: int, all_items: int | None = total, *_: Any) -> None:
            bar.update(task, completed=done, total=all_items)

        yield on_progress


@contextmanager
def progress_bar(unit: str = "") -> Iterator[Progress]:
    """Show a progress bar on stderr with count, elapsed and remaining time; remove it at the end.

    If stderr is no terminal, nothing is shown.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar
