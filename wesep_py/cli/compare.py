"""`wesep compare`: two results on the same trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from wesep_py.cli.common import JsonOption


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a result: the base line.")],
    second: Annotated[Path, typer.Argument(help="Folder of the result that is compared with it.")],
    common: Annotated[
        bool, typer.Option("--common", help="Where the lists differ, take the trials that both have.")
    ] = False,
    metric: Annotated[
        str | None, typer.Option("--metric", help="List moved trials by this one; si_sdri by default.")
    ] = None,
    moved: Annotated[int, typer.Option("--moved", min=0, help="List so many trials that moved most, each way.")] = 10,
    json_output: JsonOption = False,
) -> None:
    """Pair the trials of two results and test the difference.

    Example: wesep compare results/base results/mine

    Differences are SECOND less FIRST, with a 95 % bootstrap interval over
    mixtures and the p value of a sign-flip permutation test.
    """
    from wesep_py.evaluation.comparison import compare as run
    from wesep_py.evaluation.results import read_results

    result = run(read_results(first), read_results(second), common, metric, moved)
    if json_output:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    _show(result)


def _show(result: Mapping[str, Any]) -> None:
    counts = result["counts"]
    alone = counts["only_first"] + counts["only_second"]
    typer.echo(f"{counts['pairs']} trials paired" + (f"; {alone} are in one result only" if alone else ""))
    typer.echo(f"{'metric':<17}{'first':>9}{'second':>9}{'difference':>12}   {'95 % interval':<19}{'p':>8}{'pairs':>7}")
    for name, row in result["metrics"].items():
        if not row["pairs"]:
            continue
        spread = row["difference"]
        ends = "" if spread["low"] is None else f"{spread['low']:+.3f} to {spread['high']:+.3f}"
        typer.echo(
            f"{name:<17}{row['first']:>9.3f}{row['second']:>9.3f}{spread['mean']:>+12.3f}   {ends:<19}"
            f"{row['p_value']:>8.4f}{row['pairs']:>7}"
        )
    moves = result["moved"]
    for key, title in (("lowest", "fell"), ("highest", "rose")):
        if moves[key]:
            typer.echo(f"\n{moves['metric']} {title} most:")
        for move in moves[key]:
            typer.echo(
                f"{move['difference']:>+9.2f}  {move['first']:>8.2f} to {move['second']:<8.2f}"
                f"{move['mixture_id']} {move['target_utterance_id']}"
            )


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("compare")
