"""`wesep train`: train a model from one YAML file, or resume a run."""

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
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys to override, such as optim.lr=0.0005."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the configuration, the data and one step; write nothing.")
    ] = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model into the folder that the key `experiment` names, or resume the run there.

    The same command resumes a run that was stopped. On several devices:
    torchrun --nproc-per-node 4 -m wesep_py.cli.train CONFIG

    Example: wesep train recipes/speechocean762/train.yaml data.root=../shared/data optim.lr=0.0005
    """
    from wesep_py.training import train as run

    if threads is not None:
        overrides = [*(overrides or []), f"train.threads={threads}"]
    if dry_run:
        _dry_run(config, overrides or [], as_json)
        return
    result = run(config, overrides or [])
    if as_json:
        values = {**vars(result), "experiment": str(result.experiment)}
        typer.echo(json.dumps(values))
        return
    best = "" if result.best is None else f", best validation {result.measure} {result.best:.3g}"
    typer.echo(f"{result.experiment}: {result.step} steps{best}")


def _dry_run(config: Path, overrides: list[str], as_json: bool) -> None:
    from wesep_py.training.dry_run import dry_run

    outcome = dry_run(config, overrides)
    if as_json:
        typer.echo(json.dumps({**vars(outcome), "experiment": str(outcome.experiment)}))
        return
    losses = ", ".join(f"{name} {value:.3f}" for name, value in outcome.losses.items())
    corpus = f"{outcome.hours} h of {outcome.speakers} speakers" if outcome.speakers else "a stream of shards"
    memory = "" if outcome.memory_gib is None else f", {outcome.memory_gib:.1f} GiB"
    if outcome.initialised:
        typer.echo(outcome.initialised)
    if outcome.finished:
        begins = f"is finished, after {outcome.step} steps; for more, raise train.steps or train.max_minutes"
    else:
        begins = f"would resume at step {outcome.step}" if outcome.step else "would begin"
    typer.echo(
        f"{outcome.experiment}: {begins}; "
        f"{outcome.parameters / 1e6:.2f} M parameters, {corpus}; one step: {losses}, "
        f"gradient {outcome.grad_norm:.3g}; data {outcome.data_s:.2f} s, step {outcome.step_s:.2f} s{memory}; "
        "nothing written"
    )


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("train")
