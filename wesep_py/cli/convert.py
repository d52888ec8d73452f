"""`wesep average` and `wesep import-checkpoint`: average and import models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.options import JsonOption, OverwriteOption


def average(
    experiment: Annotated[Path, typer.Argument(metavar="EXP", help="Folder of the run.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the model.", show_default=False)],
    last: Annotated[int | None, typer.Option(help="Average the newest N snapshots.", show_default=False)] = None,
    best: Annotated[
        int | None, typer.Option(help="Average the N snapshots with the best validation.", show_default=False)
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option("--with", help="Mix in the weights of this checkpoint or experiment.", show_default=False),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(help="Share of the weights of --with, above 0 and below 1; by default 0.5.", show_default=False),
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Average the weights of the last, or of the best, snapshots of a run into one model.

    A run averages its last snapshots by itself when it ends. --with the model that the run started from restores some
    of what further training lost.

    Example: wesep average exp/bsrnn --best 3 -o exp/bsrnn_best3
    """
    from wesep_py.training.snapshots import average_run

    averaged = average_run(experiment, output, last, best, overwrite, other, share)
    if as_json:
        typer.echo(json.dumps({"folder": str(averaged.folder), "steps": averaged.steps, "results": averaged.results}))
        return
    steps = ", ".join(map(str, averaged.steps))
    typer.echo(f"{averaged.folder}: the mean of {len(averaged.steps)} snapshots, of steps {steps}")


def import_checkpoint(
    weights: Annotated[
        Path, typer.Argument(metavar="FILE", help="The weights: avg_model.pt, or 99epoch.pth of ESPnet.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The checkpoint folder to write.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML file that the model was trained with; by default config.yaml beside FILE."),
    ] = None,
    sample_rate: Annotated[
        int | None,
        typer.Option(min=8000, help="Hz that the model was trained at, if the configuration does not say it (ESPnet)."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert a checkpoint of WeSep, real-TSE, WeSpeaker or ESPnet (TD-SpeakerBeam) into a checkpoint folder.

    Example: wesep import-checkpoint avg_model.pt --config config.yaml -o models/bsrnn

    `wesep extract --model models/bsrnn` uses an extraction model; `speaker: {checkpoint: models/resnet34}` in a
    training configuration starts from a speaker network. If anything cannot be mapped, it is listed and nothing is
    written.
    """
    from wesep_py import checkpoint
    from wesep_py.common.errors import InputError
    from wesep_py.common.files import refuse_inputs

    if not weights.name or weights.is_dir():
        raise InputError(f"{weights}: is a folder; give the checkpoint file, such as avg_model.pt")
    config = weights.with_name("config.yaml") if config is None else config
    inputs = [(weights, "the weights"), (config, "the configuration")]
    inside = [output / name for name in sorted(checkpoint.CHECKPOINT_KIND.names)]
    refuse_inputs([output, *inside], inputs)
    checkpoint.check_checkpoint_folder(output, overwrite)
    from wesep_py.interop.importing import UnmappedError
    from wesep_py.interop.importing import import_public_checkpoint as read

    try:
        imported = read(weights, config, sample_rate)
    except UnmappedError as error:
        for line in error.lines:
            typer.echo(line, err=True)
        raise
    imported.save(output)
    count = sum(value.numel() for value in imported.state_dict.values())
    typer.echo(
        f"{output}: {imported.kind} {imported.provenance['imported_from']['model']}, {count / 1e6:.2f} M numbers"
    )
