"""`wesep render`: mixtures from recipes, to the bit as they were drawn; LibriMix from its metadata."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wesep_py.cli.common import OverwriteOption, progress_bar
from wesep_py.cli.simulate import ExecutorOption, JobsOption, name_failures

if TYPE_CHECKING:
    from wesep_py.corpus.processes import Executor
    from wesep_py.simulation.librimix import LibriMixTree


def render(
    recipes: Annotated[
        Path, typer.Argument(help="recipes.jsonl of `wesep simulate`, or a LibriMix metadata CSV.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", help="Folder that relative paths start from; of a CSV: LibriSpeech.", show_default=False
        ),
    ] = None,
    noise_root: Annotated[
        Path | None,
        typer.Option("--noise-root", help="Of a CSV: the folder wham_noise; by default --root.", show_default=False),
    ] = None,
    sample_rate: Annotated[int, typer.Option("--sample-rate", min=1000, help="Of a CSV's mixtures, in Hz.")] = 16000,
    mode: Annotated[
        Literal["min", "max"], typer.Option("--mode", help="Of a CSV: as long as the shortest source, or the longest.")
    ] = "min",
    types: Annotated[
        str, typer.Option("--types", help="Of a CSV: any of mix_clean,mix_both,mix_single, by commas.")
    ] = "mix_clean,mix_both",
    jobs: JobsOption = None,
    executor: ExecutorOption = "local",
    overwrite: OverwriteOption = False,
) -> None:
    """Render the mixtures that recipes or LibriMix's metadata describe, in LibriMix's layout.

    Example: wesep render described/recipes.jsonl --root ../shared/data -o mixtures

    Example: wesep render metadata/Libri2Mix/libri2mix_train-clean-100.csv --root LibriSpeech
    --noise-root wham_noise -o Libri2Mix/wav16k/min/train-100

    The same command again completes what was interrupted.
    """
    if recipes.suffix == ".csv":
        from wesep_py.simulation.librimix import LibriMixTree

        chosen = tuple(name.strip() for name in types.split(","))
        _render_librimix(
            recipes, LibriMixTree(output, sample_rate, mode, chosen), root, noise_root, jobs, overwrite, executor
        )
        return
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
                executor=executor,
            )
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"interrupted; the same command again completes {output}") from interrupt
    typer.echo(f"{output}: {len(drawn) - len(failures)} mixtures")
    name_failures(failures, len(drawn))


def _render_librimix(
    metadata: Path,
    tree: LibriMixTree,
    root: Path | None,
    noise_root: Path | None,
    jobs: int | None,
    overwrite: bool,
    executor: Executor,
) -> None:
    from wesep_py.simulation.librimix import render_librimix

    try:
        with progress_bar("mixtures") as bar:
            task = bar.add_task("rendering", total=None)
            count, failures = render_librimix(
                metadata,
                tree,
                root,
                noise_root,
                jobs or os.cpu_count() or 1,
                overwrite,
                lambda done, total: bar.update(task, completed=done, total=total),
                executor,
            )
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"interrupted; the same command again completes {tree.folder}") from interrupt
    typer.echo(f"{tree.folder}: {count - len(failures)} mixtures")
    name_failures(failures, count)


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("render")
