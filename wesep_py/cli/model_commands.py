"""`wesep models`: list, show, install, check and remove models.

`wesep models` alone lists, and `wesep models NAME` prints the card of NAME.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from wesep_py.cli.options import JsonOption
from wesep_py.cli.publishing_command import push

if TYPE_CHECKING:
    from wesep_py.models import SavedModel


class ModelsGroup(TyperGroup):
    """The commands of `wesep models`, with a default: none lists, and an unknown word is the name of a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [word for word in args if not word.startswith("-")]
        if "--help" not in args and (not words or words[0] not in self.commands):
            args = ["card" if words else "list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="models",
    cls=ModelsGroup,
    help="List, install, check and remove models. Without a command: list. With a name alone: print the card of a "
    "bundled or installed model.",
    epilog="Example: wesep models base",
    add_completion=False,
    pretty_exceptions_enable=False,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.", show_default=False)]


@app.command("list", epilog="Example: wesep models list --json")
def list_models(as_json: JsonOption = False) -> None:
    """List the models: bundled and installed ones.

    Commands use the model marked * if --model is left out.
    """
    listed = list(_local_models().values())
    if as_json:
        typer.echo(json.dumps([model.as_dict() for model in listed], indent=2, ensure_ascii=False))
        return
    if not listed:
        typer.echo("no model is bundled with this version yet; `wesep train` makes one", err=True)
        return
    typer.echo("\n".join(_table(listed)))


@app.command("card", hidden=True)
def print_card(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print the card of a bundled or installed model."""
    model = _local_model(name)
    shown = {**model.as_dict(), "provenance": model.provenance, "card": model.card}
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False) if as_json else model.card.rstrip("\n"))


@app.command("remove", epilog="Example: wesep models remove dvector")
def remove(name: NameArgument) -> None:
    """Remove an installed model; its recorded checksums stay."""
    from wesep_py.common.errors import InputError
    from wesep_py.models import bundled_models, installed_model
    from wesep_py.models.model_store import remove_installed

    if name in bundled_models() and installed_model(name) is None:
        raise InputError(f"{name}: comes with the package, and cannot be removed; only installed models can")
    typer.echo(f"{remove_installed(name)}: removed")


app.command("push", epilog="Example: wesep models push exp/mine alice/bsrnn-small --licence cc-by-4.0")(push)


def _local_models() -> dict[str, SavedModel]:
    """Return bundled and installed models by name; a bundled one wins."""
    from wesep_py.models import bundled_models, installed_models

    bundled = bundled_models()
    return {**bundled, **{name: model for name, model in installed_models().items() if name not in bundled}}


def _local_model(name: str) -> SavedModel:
    from wesep_py.common.errors import InputError, nearest

    known = _local_models()
    if name not in known:
        raise InputError(f"no bundled or installed model is called {name!r}; {nearest(name, known)}")
    return known[name]


def _table(listed: list[SavedModel]) -> list[str]:
    rows = [("", "name", "size", "parameters", "sample rate", "licence", "state")]
    rows += [
        (
            "*" if model.is_default else "",
            model.name,
            f"{model.size_bytes / 2**20:.1f} MiB",
            f"{model.parameters / 1e6:.2f} M",
            f"{model.sample_rate} Hz",
            model.licence or "not stated",
            model.state,
        )
        for model in listed
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for position, model in reversed(list(enumerate(listed, start=1))):
        if model.figures:
            lines.insert(position + 1, f"{'':{widths[0]}}  {model.figures}")
    return lines
