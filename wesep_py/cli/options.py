"""What several commands share: option types, the number of threads, a progress bar on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from wesep_py.common.errors import InputError
from wesep_py.common.processes import most_workers

if TYPE_CHECKING:
    from rich.progress import Progress

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="A bundled model (see wesep models), or a checkpoint or experiment folder.", show_default=False
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
        help="So much of a voice's recordings enters the network at most: where most is spoken.",
    ),
]
ENROLL_MAX_S = 30.0
"""Its default: `inference.MAX_ENROLLMENT_S`, written again because importing that takes torch's time."""
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the results as JSON, for programs.")]


def set_threads(threads: int | None) -> None:
    """Let torch compute with so many CPU threads; `None` leaves its choice.

    Raises:
        InputError: fewer than one, or more than the machine can start.
    """
    if threads is None:
        return
    if not 1 <= threads <= most_workers():
        raise InputError(f"--threads {threads}: 1 to {most_workers()} are allowed on this machine")
    import torch

    torch.set_num_threads(threads)


@contextmanager
def progress_bar(unit: str = "") -> Iterator[Progress]:
    """A progress bar on stderr with count, time taken and time left; it vanishes when it is done.

    Where stderr is no terminal nothing is shown.
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
