"""`wesep render`: mixtures from recipes, to the bit as they were drawn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.common import OverwriteOption, progress_bar
from wesep_py.cli.simulate import JobsOption, name_failures


def render(
    recipes: Annotated[Path, typer.Argument(help="recipes.jsonl of `wesep simulate`.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder that relative paths in the recipes start from.", show_default=False),
    ] = None,
    jobs: JobsOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Render the mixtures that recipes describe, in LibriMix's layout.

    Example: wesep render described/recipes.jsonl --root ../shared/data -o mixtures

    The same command again completes what was interrupted.
    """
    from wesep_py.simulation.batch import render_tree
    from wesep_py.simulation.recipe import read_recipes

    drawn = list(read_recipes(recipes))
    try:
        with progress_bar("mixtures") as bar:
            task = bar.add_task("rendering", total=len(drawn))
            failures = render_tree(
                drawn,
                output,
                root=root,
                jobs=jobs or os.cpu_count() or 1,
                overwrite=overwrite,
                on_progress=lambda done, _: bar.update(task, completed=done),
            )
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"interrupted; the same command again completes {output}") from interrupt
    typer.echo(f"{output}: {len(drawn) - len(failures)} mixtures")
    name_failures(failures, len(drawn))


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("render")
