"""`wesep ui`: a page in the browser to extract voices with."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.options import DeviceOption, ModelOption, ThreadsOption, set_threads
from wesep_py.common.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ui(
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = LOOPBACK[0],
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, help="Port; by default 7860, or the next free one.", show_default=False
        ),
    ] = None,
    max_upload_mb: Annotated[
        float, typer.Option("--max-upload-mb", metavar="MB", min=0.1, help="Largest upload.")
    ] = 500.0,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Extractions at a time; others wait, in the order of their clicks.")
    ] = 1,
    max_live: Annotated[int, typer.Option("--max-live", min=1, help="Live streams at a time.")] = 2,
    keep_min: Annotated[
        float,
        typer.Option(
            "--keep", metavar="MINUTES", min=1.0, help="Delete the files of a page that was not used for so long."
        ),
    ] = 60.0,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="PEM", help="Serve https, which microphones of other machines need."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="PEM", help="Private key of --certificate.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page in a browser.")] = False,
) -> None:
    """Open a page to extract voices with: record or drop recordings, listen, download.

    Example: wesep ui

    Only this machine can open the page, unless --host says otherwise.
    Nothing is sent anywhere; recordings are deleted when a page is closed,
    and when the command ends (Ctrl-C). Needs the extra ui.
    """
    from wesep_py.ui import PageServer, UiSettings

    if (certificate is None) != (key is None):
        raise InputError("--certificate and --key: https needs both")
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; --certificate and --key are PEM files")
    set_threads(threads)
    settings = UiSettings(
        model, device, host, port, max_upload_mb, jobs, max_live, 60 * keep_min, certificate=certificate, key=key
    )
    with PageServer(settings) as server:
        typer.echo(f"{server.url} (Ctrl-C ends it)", err=True)
        if host not in LOOPBACK:
            typer.echo("warning: everybody who reaches this address can use the page", err=True)
        if not no_browser:
            webbrowser.open(server.url)
        server.wait()


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("ui")
