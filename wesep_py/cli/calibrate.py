"""`wesep calibrate`: make a model's probability that a voice is there believable."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.common import JsonOption


def calibrate(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS", help="Of wesep evaluate, with present and with absent targets.")
    ],
    model: Annotated[Path, typer.Option("--model", help="Checkpoint or experiment folder.", show_default=False)],
    check: Annotated[
        list[Path] | None, typer.Option("--check", metavar="RESULTS", help="Others, to see what it does there.")
    ] = None,
    max_lost: Annotated[
        float, typer.Option("--max-lost", min=0, max=1, help="Share of the present voices that may be lost.")
    ] = 0.02,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is found, and write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Calibrate a model's presence: its probabilities, and from which one on a voice is there.

    Example: wesep calibrate results/present results/absent --model exp/mine --check results/other

    The calibration is written into the checkpoint, whose voice prints stay valid. It may be repeated: what
    a model was calibrated with when its results were made is taken back first.
    """
    from wesep_py.evaluation.calibration import calibrate_model

    calibration, there, elsewhere = calibrate_model(model, results, check or [], max_lost, dry_run)
    if as_json:
        found = {"calibration": asdict(calibration), "there": there.as_dict()}
        typer.echo(json.dumps({**found, "checked": None if elsewhere is None else elsewhere.as_dict()}))
        return
    typer.echo(
        f"scale {calibration.scale:.4g}, offset {calibration.offset:.4g}, threshold {calibration.threshold:.4g}, "
        f"growth {calibration.growth:.4g} for twice the length"
    )
    typer.echo(f"of frames: scale {calibration.frame_scale:.4g}, offset {calibration.frame_offset:.4g}")
    typer.echo(there.table())
    if elsewhere is not None:
        typer.echo(f"on {', '.join(map(str, check or []))}\n{elsewhere.table()}")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("calibrate")
