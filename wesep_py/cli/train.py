"""`wesep train`: train a model from one YAML file, or go on with a run that was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.options import JsonOption, ThreadsOption


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys to set otherwise, such as optim.lr=0.0005."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check configuration, data and one step; write nothing.")
    ] = False,
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
    if dry_run:
        _try(config, overrides or [], as_json)
        return
    result = run(config, overrides or [])
    if as_json:
        values = {**vars(result), "experiment": str(result.experiment)}
        typer.echo(json.dumps(values))
        return
    best = "" if result.best is None else f", best validation {result.measure} {result.best:.3g}"
    typer.echo(f"{result.experiment}: {result.step} steps{best}")


def _try(config: Path, overrides: list[str], as_json: bool) -> None:
    from wesep_py.training.dry_run import dry_run

    found = dry_run(config, overrides)
    if as_json:
        typer.echo(json.dumps({**vars(found), "experiment": str(found.experiment)}))
        return
    losses = ", ".join(f"{name} {value:.3f}" for name, value in found.losses.items())
    corpus = f"{found.hours} h of {found.speakers} speakers" if found.speakers else "a stream of shards"
    memory = "" if found.memory_gib is None else f", {found.memory_gib:.1f} GiB"
    if found.initialised:
        typer.echo(found.initialised)
    if found.finished:
        begins = f"is finished, after {found.step} steps; for more, raise train.steps or train.max_minutes"
    else:
        begins = f"would go on at step {found.step}" if found.step else "would begin"
    typer.echo(
        f"{found.experiment}: {begins}; "
        f"{found.parameters / 1e6:.2f} M parameters, {corpus}; one step: {losses}, "
        f"gradient {found.grad_norm:.3g}; data {found.data_s:.2f} s, step {found.step_s:.2f} s{memory}; nothing written"
    )


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("train")
