"""`wesep report`: a result as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.common import OverwriteOption


def report(
    result: Annotated[Path, typer.Argument(help="Folder that wesep evaluate or wesep score wrote.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; report.html in that folder by default.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=0, help="So many of the worst and of the best trials.")] = 10,
    overwrite: OverwriteOption = False,
) -> None:
    """Write one HTML page that works offline: tables, distributions, worst and best trials, protocol.

    Example: wesep evaluate … -o results --save-extremes 10, then wesep report results

    Trials whose audio was saved have spectrograms and players. The page needs
    no network and no other file.
    """
    from wesep_py.evaluation.journal import AUDIO, PER_TRIAL, SUMMARY
    from wesep_py.evaluation.report import build_report
    from wesep_py.evaluation.results import check_reportable, read_results
    from wesep_py.files import check_writable, refuse_inputs, write_text

    page = out or result / "report.html"
    results = read_results(result)
    check_reportable(results)
    parts = [*(result / name for name in (SUMMARY, PER_TRIAL)), *(result / AUDIO).rglob("*")]
    refuse_inputs([page], ((path, "a part of the result") for path in parts))
    check_writable(page, overwrite)
    html = build_report(results, count)
    write_text(page, html, overwrite)
    typer.echo(f"written: {page} ({len(html) / 1e6:.1f} MB)")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("report")
