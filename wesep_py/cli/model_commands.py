"""`wesep models`: list, show, install, check and remove models.

`wesep models` alone lists, and `wesep models NAME` prints the card of NAME.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from wesep_py.cli.options import JsonOption, OverwriteOption

if TYPE_CHECKING:
    from wesep_py.models import SavedModel
    from wesep_py.models.downloading import Progress
    from wesep_py.models.public_models import PublicModel


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
RegistryOption = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="FILE",
        help="YAML file with further models, beside registry.yaml in the folder of the store.",
        show_default=False,
    ),
]


@app.command("list", epilog="Example: wesep models list --json")
def list_models(registry: RegistryOption = None, as_json: JsonOption = False) -> None:
    """List the models: bundled, installed, and those that `wesep models pull` can install.

    Commands use the model marked * if --model is left out.
    """
    local, public = _local_models(), _public_models(registry)
    available = [model for name, model in public.items() if name not in local]
    if as_json:
        rows = [_local_dict(model, public) for model in local.values()] + [model.as_dict() for model in available]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not any(model.state == "bundled" for model in local.values()):
        typer.echo("no model is bundled with this version yet; `wesep train` makes one", err=True)
    if local or available:
        typer.echo("\n".join(_table(list(local.values()), available)))


@app.command("show", epilog="Example: wesep models show dvector")
def show(name: NameArgument, registry: RegistryOption = None, as_json: JsonOption = False) -> None:
    """Show all that is known about a model: task, source, licence, citation, published result, files."""
    local, public = _local_models(), _public_models(registry)
    if name not in local and name not in public:
        raise _unknown(name, [*local, *public])
    model, entry = local.get(name), public.get(name)
    if as_json:
        shown = entry.as_dict() if entry is not None else {}
        if model is not None:
            shown |= {**_local_dict(model, public), "provenance": model.provenance, "card": model.card}
        if entry is not None:
            shown["registry"] = _entry_dict(entry)
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    facts = _facts(model, entry)
    width = max(len(key) for key, _ in facts)
    typer.echo("\n".join(f"{key:<{width}}  {value}" for key, value in facts))


@app.command("card", hidden=True)
def print_card(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print the card of a bundled or installed model."""
    model = _local_model(name)
    shown = {**model.as_dict(), "provenance": model.provenance, "card": model.card}
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False) if as_json else model.card.rstrip("\n"))


@app.command("pull", epilog="Example: wesep models pull dvector")
def pull(
    name: NameArgument,
    from_path: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="Folder, archive or weights that you downloaded yourself; nothing is downloaded then.",
            show_default=False,
        ),
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Use a model whose source states no licence; this is recorded.")
    ] = False,
    accept_changed: Annotated[
        bool, typer.Option("--accept-changed", help="Take files that differ from those of the first download.")
    ] = False,
    registry: RegistryOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Download a public model, convert it, and install it: then its name works wherever a model is named.

    An interrupted download is continued by the same command. The proxy is that of the environment (https_proxy),
    HF_ENDPOINT names a mirror of Hugging Face, HF_TOKEN is sent to Hugging Face alone, WESEP_HOME names the folder of
    the store.
    """
    public = _public_models(registry)
    if name not in public:
        raise _unknown(name, public)
    from wesep_py.interop.model_pull import pull_model

    with _download_bar() as on_progress:
        pulled = pull_model(public[name], from_path, accept_licence, accept_changed, overwrite, on_progress=on_progress)
    for note in pulled.notes:
        typer.echo(f"wesep models pull: {name}: {note}", err=True)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "name": name,
                    "folder": str(pulled.folder),
                    "kind": pulled.kind,
                    "parameters": pulled.parameters,
                    "licence": public[name].licence,
                },
                ensure_ascii=False,
            )
        )
        return
    use = f"--model {name}" if pulled.kind == "extractor" else f"--speaker-model {name}"
    typer.echo(
        f"{pulled.folder}: {pulled.kind}, {pulled.parameters / 1e6:.2f} M parameters, licence "
        f"{public[name].licence or 'not stated'}; use it by {use}"
    )


@app.command("verify", epilog="Example: wesep models verify dvector")
def verify(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of the model; by default all.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the files of bundled and installed models are unchanged, and that their networks can be built.

    The exit status is 2 if one is damaged.
    """
    from wesep_py.common.errors import CheckpointError, WesepError, shorten
    from wesep_py.interop.model_pull import verify_model

    models = list(_local_models().values()) if name is None else [_local_model(name)]
    problems: dict[str, str | None] = {}
    for model in models:
        try:
            verify_model(model)
            problems[model.name] = None
        except WesepError as error:
            problems[model.name] = shorten(error, 400)
        if not as_json:
            typer.echo(f"{model.name}: {problems[model.name] or 'unchanged, and its network can be built'}")
    if as_json:
        typer.echo(json.dumps([{"name": key, "problem": value} for key, value in problems.items()], indent=2))
    if damaged := [key for key, value in problems.items() if value is not None]:
        raise CheckpointError(f"{len(damaged)} of {len(models)} model(s) are damaged: {', '.join(damaged)}")


@app.command("remove", epilog="Example: wesep models remove dvector")
def remove(name: NameArgument) -> None:
    """Remove an installed model; the recorded checksums of its files stay."""
    from wesep_py.common.errors import InputError
    from wesep_py.models import bundled_models, installed_model
    from wesep_py.models.model_store import remove_installed

    if name in bundled_models() and installed_model(name) is None:
        raise InputError(f"{name}: comes with the package, and cannot be removed; only installed models can")
    typer.echo(f"{remove_installed(name)}: removed")


def _local_models() -> dict[str, SavedModel]:
    """Return bundled and installed models by name; a bundled one wins."""
    from wesep_py.models import bundled_models, installed_models

    bundled = bundled_models()
    return {**bundled, **{name: model for name, model in installed_models().items() if name not in bundled}}


def _public_models(registry: Path | None) -> dict[str, PublicModel]:
    from wesep_py.models.public_models import public_models

    return public_models(registry)


def _local_model(name: str) -> SavedModel:
    from wesep_py.common.errors import CheckpointError
    from wesep_py.models.public_models import public_models

    known = _local_models()
    if name not in known:
        if name in public_models():
            raise CheckpointError(
                f"{name}: is not installed; `wesep models pull {name}` installs it, `wesep models show {name}` says "
                "what it is"
            )
        raise _unknown(name, known, "bundled or installed ")
    return known[name]


def _unknown(name: str, known: Any, which: str = "") -> Exception:
    from wesep_py.common.errors import InputError, nearest

    return InputError(f"no {which}model is called {name!r}; {nearest(name, known)}")


def _local_dict(model: SavedModel, public: dict[str, PublicModel]) -> dict[str, Any]:
    """Return a model on this machine as JSON values, with the keys that entries of the registry have too."""
    about = model.about
    return {
        **model.as_dict(),
        "task": about.get("task"),
        "sources": [about["source"]] if "source" in about else [],
        "loaded": about.get("loaded", "for real"),
    }


def _entry_dict(entry: PublicModel) -> dict[str, Any]:
    from wesep_py.common.config import to_plain

    plain = to_plain(entry)
    assert isinstance(plain, dict)
    return plain


def _facts(model: SavedModel | None, entry: PublicModel | None) -> list[tuple[str, str]]:
    """Return the rows of `wesep models show`."""
    about = model.about if model is not None else {}
    facts: list[tuple[str, str]] = [("name", model.name if model is not None else entry.name if entry else "")]
    facts.append(("state", model.state if model is not None else "available: `wesep models pull` installs it"))
    if model is not None:
        facts += [
            ("kind", model.kind),
            ("sample rate", f"{model.sample_rate} Hz"),
            ("parameters", f"{model.parameters / 1e6:.2f} M, stored as {model.stored_as}"),
            ("size", _size(model.size_bytes)),
            ("licence", model.licence or _stated(about, "not stated")),
            ("result", model.figures or ""),
            ("folder", str(model.folder)),
            ("hash", str(model.provenance.get("hash"))),
        ]
    elif entry is not None:
        facts += [
            ("kind", entry.kind),
            ("sample rate", f"{entry.sample_rate} Hz"),
            ("size", _size(entry.size_bytes)),
            ("licence", entry.licence or "not stated (needs --accept-licence)"),
            ("result", entry.figures or "none published"),
        ]
    if entry is not None:
        result = entry.published.source if entry.published else ""
        digests = [f"{role} {digest}" for source in entry.sources for role, digest in source.sha256.items()]
        facts += [
            ("result from", result),
            ("task", entry.task),
            ("licence note", entry.licence_note),
            *(("source", source.location) for source in entry.sources),
            *(("files", ", ".join(source.files.values()) or "not known") for source in entry.sources),
            ("sha256", "; ".join(digests) or "recorded at the first download"),
            ("citation", entry.citation),
            ("conversion", entry.conversion),
            ("loaded here", _LOADED[entry.loaded]),
            ("known from", ", ".join(f"{fact}: {how}" for fact, how in entry.certain.items())),
            ("note", entry.note),
        ]
    return [(key, value) for key, value in facts if value]


_LOADED = {
    "for real": "the published weights",
    "fixtures only": "files of the same layout only, never the published weights",
    "never": "never, not even files of the same layout",
}


def _stated(about: dict[str, Any], default: str) -> str:
    return (
        "not stated by the source; accepted when it was installed" if about.get("licence_accepted_by_user") else default
    )


def _size(num_bytes: int | None) -> str:
    return "not known" if num_bytes is None else f"{num_bytes / 2**20:.1f} MiB"


def _table(local: list[SavedModel], available: list[PublicModel]) -> list[str]:
    rows = [("", "name", "kind", "sample rate", "size", "licence", "state")]
    figures: list[str | None] = [None]
    for model in [*local, *available]:
        rows.append(
            (
                "*" if getattr(model, "is_default", False) else "",
                model.name,
                model.kind,
                f"{model.sample_rate} Hz",
                _size(model.size_bytes),
                model.licence or "not stated",
                getattr(model, "state", "available"),
            )
        )
        figures.append(model.figures if getattr(model, "state", "") == "bundled" else None)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row, result in zip(rows, figures, strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if result:
            lines.append(f"{'':{widths[0]}}  {result}")
    return lines


@contextmanager
def _download_bar() -> Iterator[Progress]:
    """Show a progress bar on stderr for each file that is downloaded; if stderr is no terminal, nothing is shown."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def on_progress(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield on_progress
