"""`wesep export`: write a model as ONNX or TorchScript, for programs without this package."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.options import JsonOption, OverwriteOption


class ExportFormat(str, Enum):
    """Formats of an exported model."""

    onnx = "onnx"
    torchscript = "torchscript"


def export(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A bundled model (see wesep models), by default base; or a checkpoint or experiment folder.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to write.", show_default=False)
    ] = None,
    format: Annotated[ExportFormat, typer.Option("--format", help="File format of the graphs.")] = ExportFormat.onnx,
    stream: Annotated[bool, typer.Option("--stream", help="Write the graph of a stream, too.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Linear and recurrent layers in integers of 8 bits.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Store weights in 16 bits; no faster on a CPU.")] = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a model as ONNX or TorchScript graphs, with a JSON file that describes them.

    Example: wesep export base -o base_onnx

    Needs the extra onnx: pip install 'wesep-py[onnx]'. The graphs are compared with the network before they are
    written.
    """
    from wesep_py.common.errors import InputError

    if output is None:
        raise InputError("no output folder was given; name one with -o")
    if int8 and fp16:
        raise InputError("--int8 and --fp16: one of them at most is allowed")
    from wesep_py.export.export_folder import export as export_model
    from wesep_py.export.export_folder import format_size, to_json

    precision = "int8" if int8 else "fp16" if fp16 else "float32"
    exported = export_model(model, output, format.value, stream, precision, overwrite)  # type: ignore[arg-type]
    if as_json:
        typer.echo(to_json(exported))
        return
    for name, graph in exported.description["graphs"].items():
        size = format_size((exported.folder / graph["file"]).stat().st_size)
        typer.echo(
            f"{exported.folder / graph['file']}: {size}, differs from the network by "
            f"{exported.difference[name]:.1g} of the largest value"
        )
