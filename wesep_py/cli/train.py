"""`wesep train`: train a model from one YAML file, or go on with a run that was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.common import JsonOption, ThreadsOption


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys to set otherwise, such as optim.lr=0.0005."),
    ] = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model, or go on with a run that was stopped. Writes the folder that `experiment` names.

    The same command again goes on where the run was stopped. On several devices:
    torchrun --nproc-per-node 4 -m wesep_py.cli.train CONFIG

    Example: wesep train recipes/speechocean762/train.yaml data.root=../shared/data optim.lr=0.0005
    """
    from wesep_py.training import train as run

    if threads is not None:
        overrides = [*(overrides or []), f"train.threads={threads}"]
    result = run(config, overrides or [])
    if as_json:
        values = {**vars(result), "experiment": str(result.experiment)}
        typer.echo(json.dumps(values))
        return
    best = "" if result.best is None else f", best validation {result.measure} {result.best:.3g}"
    typer.echo(f"{result.experiment}: {result.step} steps{best}")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("train")
