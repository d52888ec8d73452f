"""`wesep average`: one model from several snapshots of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.common import JsonOption, OverwriteOption


def average(
    experiment: Annotated[Path, typer.Argument(metavar="EXP", help="Folder of the run.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the model.", show_default=False)],
    last: Annotated[int | None, typer.Option(help="Average the newest N snapshots.", show_default=False)] = None,
    best: Annotated[
        int | None, typer.Option(help="Average the N that were best in the validation.", show_default=False)
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option("--with", help="Mix in the weights of this checkpoint or experiment.", show_default=False),
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Of those of --with, above 0 and below 1; by default 0.5.", show_default=False)
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Average the weights of a run's snapshots, its last or its best, into one model.

    A run averages its last ones by itself, when it ends. --with the model that the run went on from gives back some of
    what further training lost.

    Example: wesep average exp/bsrnn --best 3 -o exp/bsrnn_best3
    """
    from wesep_py.training.average_run import average_run

    made = average_run(experiment, output, last, best, overwrite, other, share)
    if as_json:
        typer.echo(json.dumps({"folder": str(made.folder), "steps": made.steps, "results": made.results}))
        return
    steps = ", ".join(map(str, made.steps))
    typer.echo(f"{made.folder}: the mean of {len(made.steps)} snapshots, of steps {steps}")
