"""`wesep simulate` and `wesep render`: draw mixtures, and render them from recipes or from LibriMix's metadata."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wesep_py.cli.options import OverwriteOption, progress, resumable
from wesep_py.common.errors import WesepError

if TYPE_CHECKING:
    from wesep_py.common.processes import Executor
    from wesep_py.simulation.librimix import LibriMixTree
    from wesep_py.simulation.simulated_corpus import Failure


JobsOption = Annotated[int | None, typer.Option("--jobs", min=1, help="Number of processes; by default one per core.")]
ExecutorOption = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--executor",
        help="Where the processes run. local: this machine. ray: the cluster of RAY_ADDRESS, or Ray on this machine.",
    ),
]


def simulate(
    config: Annotated[Path, typer.Argument(help="YAML file: recordings and how to mix them.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys to override, such as simulation.duration_s=4."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of mixtures.")] = 100,
    jobs: JobsOption = None,
    executor: ExecutorOption = "local",
    describe_only: Annotated[
        bool, typer.Option("--describe-only", help="Write only recipes.jsonl; `wesep render` renders it later.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw mixtures and render them in LibriMix's layout, with metadata and a map of enrollments.

    Example: wesep simulate simulation/librimix_like.yaml root=../shared/data -o mixtures --count 100

    The same command again completes an interrupted run.
    """
    from wesep_py.common.config import construct, load_yaml
    from wesep_py.simulation.simulated_corpus import (
        CorpusConfig,
        change_paths,
        claim_folder,
        draw_recipes,
        make_simulator,
        render_tree,
    )

    settings = construct(CorpusConfig, load_yaml(config, overrides or []))
    simulator = make_simulator(settings)
    jobs = jobs or os.cpu_count() or 1
    root = None if settings.root is None else Path(settings.root)
    with resumable(output):
        with progress("drawing", "mixtures", count) as on_progress:
            recipes, failures = draw_recipes(simulator, count, jobs, on_progress=on_progress, executor=executor)
        recipes = [change_paths(recipe, lambda path: _shorten(path, root)) for recipe in recipes]
        if describe_only:
            claim_folder(recipes, output, overwrite)
        else:
            with progress("rendering", "mixtures", len(recipes)) as on_progress:
                failures += render_tree(
                    recipes,
                    output,
                    root=root,
                    jobs=jobs,
                    overwrite=overwrite,
                    on_progress=on_progress,
                    executor=executor,
                )
    hours = sum(recipe.num_samples for recipe in recipes) / settings.sample_rate / 3600
    what = "recipes" if describe_only else "mixtures"
    typer.echo(f"{output}: {count - len(failures)} {what}, {hours:.2f} h")
    name_failures(failures, count)


def name_failures(failures: list[Failure], count: int) -> None:
    """Print every mixture that could not be made on stderr.

    Raises:
        WesepError: there is at least one failure; the command then ends with status 1.
    """
    for failure in failures:
        typer.echo(f"{failure.mixture}: {failure.reason}", err=True)
    if failures:
        raise WesepError(f"{len(failures)} of {count} mixtures could not be made; they are named above")


def _shorten(path: Path, root: Path | None) -> Path:
    """Return a path relative to the root, or absolute: a recipe must not depend on the current folder."""
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root)
    return path.absolute()


def render(
    recipes: Annotated[
        Path, typer.Argument(help="recipes.jsonl of `wesep simulate`, or a LibriMix metadata CSV.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", help="Folder that relative paths start from; for a CSV: LibriSpeech.", show_default=False
        ),
    ] = None,
    noise_root: Annotated[
        Path | None,
        typer.Option("--noise-root", help="For a CSV: the folder wham_noise; by default --root.", show_default=False),
    ] = None,
    sample_rate: Annotated[
        int, typer.Option("--sample-rate", min=1000, help="For a CSV: sample rate of the mixtures, in Hz.")
    ] = 16000,
    mode: Annotated[
        Literal["min", "max"],
        typer.Option("--mode", help="For a CSV: mixtures as long as the shortest, or as the longest source."),
    ] = "min",
    types: Annotated[
        str, typer.Option("--types", help="For a CSV: any of mix_clean, mix_both, mix_single, separated by commas.")
    ] = "mix_clean,mix_both",
    jobs: JobsOption = None,
    executor: ExecutorOption = "local",
    overwrite: OverwriteOption = False,
) -> None:
    """Render the mixtures that recipes or LibriMix's metadata describe, in LibriMix's layout.

    Example: wesep render described/recipes.jsonl --root ../shared/data -o mixtures

    Example: wesep render metadata/Libri2Mix/libri2mix_train-clean-100.csv --root LibriSpeech
    --noise-root wham_noise -o Libri2Mix/wav16k/min/train-100

    The same command again completes an interrupted run.
    """
    if recipes.suffix == ".csv":
        from wesep_py.simulation.librimix import LibriMixTree

        mixture_types = tuple(name.strip() for name in types.split(","))
        tree = LibriMixTree(output, sample_rate, mode, mixture_types)
        _render_librimix(recipes, tree, root, noise_root, jobs, overwrite, executor)
        return
    from wesep_py.simulation.description.recipe import read_recipes
    from wesep_py.simulation.simulated_corpus import render_tree

    drawn = list(read_recipes(recipes))
    with resumable(output), progress("rendering", "mixtures", len(drawn)) as on_progress:
        failures = render_tree(
            drawn,
            output,
            root=root,
            jobs=jobs or os.cpu_count() or 1,
            overwrite=overwrite,
            on_progress=on_progress,
            executor=executor,
        )
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

    with resumable(tree.folder), progress("rendering", "mixtures") as on_progress:
        count, failures = render_librimix(
            metadata, tree, root, noise_root, jobs or os.cpu_count() or 1, overwrite, on_progress, executor
        )
    typer.echo(f"{tree.folder}: {count - len(failures)} mixtures")
    name_failures(failures, count)


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("simulate")
