"""`wesep simulate`: mixtures drawn from a corpus, rendered to disk or only described."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wesep_py.cli.common import OverwriteOption, progress_bar
from wesep_py.errors import WesepError

if TYPE_CHECKING:
    from wesep_py.simulation.batch import Failure

JobsOption = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Processes; as many as there are cores by default.")
]
ExecutorOption = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--executor",
        help="Where the processes run: local: this machine; ray: the cluster of RAY_ADDRESS, or through Ray here.",
    ),
]


def simulate(
    config: Annotated[Path, typer.Argument(help="YAML file: which recordings, mixed how.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys to set otherwise, such as simulation.duration_s=4."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of mixtures.")] = 100,
    jobs: JobsOption = None,
    executor: ExecutorOption = "local",
    describe_only: Annotated[
        bool, typer.Option("--describe-only", help="Write recipes.jsonl only; `wesep render` renders it later.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw mixtures and render them in LibriMix's layout, with metadata and a map of enrollments.

    Example: wesep simulate simulation/librimix_like.yaml root=../shared/data -o mixtures --count 100

    The same command again completes what was interrupted.
    """
    from wesep_py.config import construct, load_yaml
    from wesep_py.simulation.batch import claim_folder, draw_many, relate, render_tree
    from wesep_py.simulation.sources import CorpusConfig, make_simulator

    settings = construct(CorpusConfig, load_yaml(config, overrides or []))
    simulator = make_simulator(settings)
    jobs = jobs or os.cpu_count() or 1
    root = None if settings.root is None else Path(settings.root)
    try:
        with progress_bar("mixtures") as bar:
            task = bar.add_task("drawing", total=count)
            recipes, failures = draw_many(
                simulator,
                count,
                jobs,
                on_progress=lambda done, _: bar.update(task, completed=done),
                executor=executor,
            )
            recipes = [relate(recipe, lambda path: _shorten(path, root)) for recipe in recipes]
            if describe_only:
                claim_folder(recipes, output, overwrite)
            else:
                task = bar.add_task("rendering", total=len(recipes))
                failures += render_tree(
                    recipes,
                    output,
                    root=root,
                    jobs=jobs,
                    overwrite=overwrite,
                    on_progress=lambda done, _: bar.update(task, completed=done),
                    executor=executor,
                )
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"interrupted; the same command again completes {output}") from interrupt
    hours = sum(recipe.num_samples for recipe in recipes) / settings.sample_rate / 3600
    what = "recipes" if describe_only else "mixtures"
    typer.echo(f"{output}: {count - len(failures)} {what}, {hours:.2f} h")
    name_failures(failures, count)


def name_failures(failures: list[Failure], count: int) -> None:
    """Name every mixture that could not be made, on stderr, and end the command with status 1 if there is
    one.

    Raises:
        WesepError: there is at least one failure.
    """
    for failure in failures:
        typer.echo(f"{failure.mixture}: {failure.reason}", err=True)
    if failures:
        raise WesepError(f"{len(failures)} of {count} mixtures could not be made; they are named above")


def _shorten(path: Path, root: Path | None) -> Path:
    """Relative to the root, or absolute: a recipe must not depend on the folder in which the command was run."""
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root)
    return path.absolute()


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("simulate")
