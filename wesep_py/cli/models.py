"""`wesep models`: the models that come with the package, and their cards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from wesep_py.cli.common import JsonOption

if TYPE_CHECKING:
    from wesep_py.models import BundledModel


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print the card of this model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that come with the package, or print the card of one.

    Example: wesep models base

    The one marked * is meant where a command is given no --model.
    """
    from wesep_py.errors import InputError, nearest
    from wesep_py.models import bundled

    known = bundled()
    if name is not None:
        if name not in known:
            raise InputError(f"no bundled model is called {name!r}; {nearest(name, known)}")
        model = known[name]
        shown = {**model.as_dict(), "provenance": model.provenance, "card": model.card}
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False) if as_json else model.card.rstrip("\n"))
        return
    if as_json:
        typer.echo(json.dumps([model.as_dict() for model in known.values()], indent=2, ensure_ascii=False))
        return
    if not known:
        typer.echo("no model is bundled with this version yet; `wesep train` makes one", err=True)
        return
    typer.echo("\n".join(_lines(list(known.values()))))


def _lines(known: list[BundledModel]) -> list[str]:
    rows = [("", "name", "size", "parameters", "sample rate", "licence")]
    rows += [
        (
            "*" if model.is_default else "",
            model.name,
            f"{model.size_bytes / 2**20:.1f} MiB",
            f"{model.parameters / 1e6:.2f} M",
            f"{model.sample_rate} Hz",
            model.licence or "not said",
        )
        for model in known
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for position, model in reversed(list(enumerate(known, start=1))):
        if model.figures:
            lines.insert(position + 1, f"{'':{widths[0]}}  {model.figures}")
    return lines


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("models")
