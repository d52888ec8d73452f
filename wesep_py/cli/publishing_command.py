"""`wesep models push`: upload a checkpoint to the Hugging Face Hub."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from wesep_py.cli.options import JsonOption


def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="Checkpoint or experiment folder, or the name of a model.", show_default=False
        ),
    ],
    repository: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="Repository on the Hub; created if needed.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch to write to; created if needed.", show_default=False)
    ] = None,
    message: Annotated[str | None, typer.Option("--message", help="Message of the commit.", show_default=False)] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            metavar="ID",
            help="Licence of the weights, such as cc-by-4.0; needed if the model's provenance states none.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a model to the Hugging Face Hub: weights, configuration, provenance and card.

    Everyone can then use it with --model hf:ORG/NAME. Commands, hosts and folders of this machine are left out of the
    provenance and the card. Log in once with `hf auth login`, or set HF_TOKEN. Needs the extra `hub`.
    """
    from wesep_py import checkpoint
    from wesep_py.models import find_model
    from wesep_py.models.publishing import push as upload

    _, path = find_model(model)
    published = upload(
        checkpoint.resolve(path), repository, private=private, revision=revision, message=message, licence=licence
    )
    if as_json:
        typer.echo(json.dumps(published.as_dict(), indent=2, ensure_ascii=False))
        return
    visibility = "private" if published.private else "public"
    typer.echo(f"{published.url}: {visibility}, licence {published.licence}")
    if published.changed_from is not None:
        typer.echo(
            "config.yaml named a local file, which is left out; the published model has the hash "
            f"{published.hash[:12]}, so voice prints of the local one do not fit"
        )
    typer.echo(f"use it with --model {published.model}")
