"""`wesep import-checkpoint`: a checkpoint of WeSep or WeSpeaker into a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.common import OverwriteOption


def import_checkpoint(
    weights: Annotated[Path, typer.Argument(metavar="FILE", help="The weights, for example avg_model.pt.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The checkpoint folder to write.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The YAML it was trained with; config.yaml beside FILE by default."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a checkpoint folder of a checkpoint of WeSep, real-TSE or WeSpeaker.

    Example: wesep import-checkpoint avg_model.pt --config config.yaml -o models/bsrnn

    `wesep extract --model models/bsrnn` uses an extractor; `speaker: {checkpoint: models/resnet34}` in a training
    configuration starts from a speaker network. What cannot be mapped is listed, and nothing is written.
    """
    from wesep_py import checkpoint
    from wesep_py.errors import InputError
    from wesep_py.files import refuse_inputs

    if not weights.name or weights.is_dir():
        raise InputError(f"{weights}: is a folder; give the checkpoint file, such as avg_model.pt")
    config = weights.with_name("config.yaml") if config is None else config
    inputs = [(weights, "the weights"), (config, "the configuration")]
    inside = [output / name for name in sorted(checkpoint.KIND.names)]
    refuse_inputs([output, *inside], inputs)
    checkpoint.check_output(output, overwrite)
    from wesep_py.interop.importing import UnmappedError
    from wesep_py.interop.importing import import_checkpoint as read

    try:
        imported = read(weights, config)
    except UnmappedError as error:
        for line in error.lines:
            typer.echo(line, err=True)
        raise
    imported.save(output)
    count = sum(value.numel() for value in imported.state_dict.values())
    typer.echo(
        f"{output}: {imported.kind} {imported.provenance['imported_from']['model']}, {count / 1e6:.2f} M numbers"
    )


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("import-checkpoint")
