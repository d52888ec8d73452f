"""Drawing and rendering many mixtures, in parallel over processes; a bad recording does not stop the others."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from wesep_py.common.errors import AudioError, InputError, OutputExistsError
from wesep_py.common.folders import remove_temporary_files, one_run_in, visible_names
from wesep_py.common.processes import Executor, check_executor, map_processes
from wesep_py.data.manifest import FileLocator, is_file
from wesep_py.data.reader import FileReader, Reader
from wesep_py.simulation.corpus_tree import (
    ACTIVITY_FOLDER,
    MAP_NAME,
    RECIPES_NAME,
    TreeLayout,
    is_written,
    write_lists,
    write_sample,
)
from wesep_py.simulation.description.recipe import Recipe, read_recipes, write_recipes
from wesep_py.simulation.rendering import render
from wesep_py.simulation.simulator import UnreadableFiles, Simulator

OnProgress = Callable[[int, int], None]
Item = TypeVar("Item")

CHUNK = 8  # mixtures that a process takes at a time
READER_CACHE_MIB = 128


@dataclass(frozen=True)
class _Unread:
    """A recording that cannot be read; others were drawn instead."""

    reason: str


@dataclass(frozen=True)
class Failure:
    """A mixture that could not be made, and why, in one line."""

    mixture: str
    reason: str


def draw_recipes(
    simulator: Simulator,
    count: int,
    jobs: int = 1,
    epoch: int = 0,
    on_progress: OnProgress | None = None,
    executor: Executor = "local",
) -> tuple[list[Recipe], list[Failure]]:
    """The recipes of mixtures 0 to `count` - 1 of an epoch, in order, and what could not be drawn.

    Recordings that cannot be read are named in the log, each once, and others drawn instead.

    Args:
        simulator: draws them.
        count: how many, 1 or more.
        jobs: processes, 1 or more; the recipes do not depend on it.
        epoch: 0 or more.
        on_progress: called with the number done and of all.
        executor: see `corpus.processes`; the recipes do not depend on it.

    Raises:
        InputError: a number below 1, or `ray` where Ray is not installed.
    """
    _check_numbers(count=count, jobs=jobs)
    quiet = copy.copy(simulator)
    quiet.broken = UnreadableFiles(say=False)
    done = _map(partial(_draw_chunk, quiet, epoch), range(count), jobs, on_progress, executor)
    for item in done:
        if isinstance(item, _Unread):
            simulator.broken.add(item.reason)
    return [r for r in done if isinstance(r, Recipe)], [f for f in done if isinstance(f, Failure)]


def render_tree(
    recipes: Sequence[Recipe],
    folder: Path,
    reader: Reader | None = None,
    root: Path | None = None,
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    executor: Executor = "local",
) -> list[Failure]:
    """Render recipes as a tree in LibriMix's layout (see `corpus_tree`).

    A tree that was being written from the same recipes, or from the first of them, is completed: what is there
    stays.

    Args:
        recipes: at least one, all at one sample rate.
        folder: made if need be; its parent must exist.
        reader: reads the recordings; by default a `FileReader` at the recipes' rate.
        root: the folder that relative paths in the recipes start from; by default the working folder.
        jobs: processes, 1 or more; what is written does not depend on it.
        overwrite: write a tree of other recipes over one that is there.
        on_progress: called with the number done and of all.
        executor: see `corpus.processes`; what is written does not depend on it.

    Returns:
        The mixtures that could not be rendered; they stand in none of the lists.

    Raises:
        InputError: no recipe, two of one name, different sample rates, a root that holds none of the
            recordings, or `ray` where Ray is not installed.
        OutputExistsError: the folder holds something else, and `overwrite` is false.
    """
    _check_numbers(jobs=jobs)
    check_executor(executor)
    if not recipes:
        raise InputError("there is no recipe to render; `wesep simulate --describe-only` writes some")
    rates = sorted({recipe.sample_rate for recipe in recipes})
    if len(rates) > 1:
        raise InputError(
            f"the recipes are for {' and '.join(map(str, rates))} Hz; render each rate in a folder of its own"
        )
    if len({recipe.mixture_id for recipe in recipes}) < len(recipes):
        raise InputError("two of the recipes have the same seed, epoch and index; leave one out")
    _check_root(recipes, root)
    has_noise = any(recipe.noise is not None for recipe in recipes)
    layout = TreeLayout(folder, has_noise, any(recipe.effects for recipe in recipes))
    _check_folder(recipes, folder, overwrite)
    with one_run_in(folder, "writing mixtures"):
        claim_folder(recipes, folder, overwrite)
        _clear_left_behind(recipes, layout)
        reader = FileReader(rates[0], READER_CACHE_MIB) if reader is None else reader
        done = _map(partial(_render_chunk, layout, reader, root, overwrite), recipes, jobs, on_progress, executor)
        failures = [outcome for outcome in done if isinstance(outcome, Failure)]
        failed = {failure.mixture for failure in failures}
        write_lists([recipe for recipe in recipes if recipe.mixture_id not in failed], layout)
    return failures


def claim_folder(recipes: Sequence[Recipe], folder: Path, overwrite: bool) -> None:
    """Put `recipes.jsonl` in a folder that is new or empty, or holds those very recipes, or the first of them.

    With `overwrite` the mixtures of a tree that is there are removed first.

    Raises:
        OutputExistsError: the folder holds other mixtures, and `overwrite` is false; or something that is no tree.
        InputError: the folder's parent does not exist, or `folder` is a file.
    """
    _check_folder(recipes, folder, overwrite)
    folder.mkdir(exist_ok=True)
    path = folder / RECIPES_NAME
    if overwrite and path.is_file():
        _remove_mixtures(folder, path)
    write_recipes(recipes, path, overwrite=True)


def _check_folder(recipes: Sequence[Recipe], folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something else, before anything is changed; hidden files do not count."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder to write")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    path = folder / RECIPES_NAME
    names = visible_names(folder)
    if names and not path.is_file():
        raise OutputExistsError(
            f"{folder}: holds {names[0]!r} and no {RECIPES_NAME}, so it is no tree of `wesep simulate`; name "
            "another folder"
        )
    if names and not overwrite and not _begins_with(recipes, path):
        raise OutputExistsError(f"{folder}: holds something else already; name another folder, or pass --overwrite")


def change_paths(recipe: Recipe, change: Callable[[Path], Path]) -> Recipe:
    """The recipe with `change` applied to the path of every recording: to make them relative, or absolute."""

    def walk(values: Any) -> Any:
        if isinstance(values, dict):
            return {k: str(change(Path(v))) if k == "path" else walk(v) for k, v in values.items()}
        return [walk(value) for value in values] if isinstance(values, list) else values

    return Recipe.from_dict(walk(recipe.to_dict()))


def _draw_chunk(simulator: Simulator, epoch: int, indices: Sequence[int]) -> list[Recipe | Failure | _Unread]:
    drawn: list[Recipe | Failure | _Unread] = []
    for index in indices:
        try:
            drawn.append(simulator.draw(epoch, index))
        except AudioError as error:
            drawn.append(Failure(f"epoch {epoch}, index {index}", str(error)))
    return [*drawn, *map(_Unread, simulator.broken.take())]


def _render_chunk(
    layout: TreeLayout, reader: Reader, root: Path | None, overwrite: bool, recipes: Sequence[Recipe]
) -> list[Failure | None]:
    outcomes: list[Failure | None] = []
    places = FileLocator(root or "", "the recipes", log_moved=False)
    for recipe in recipes:
        failure = None
        if overwrite or not is_written(recipe, layout):
            try:
                placed = recipe if root is None else change_paths(recipe, lambda path: places.find(str(path)))
                write_sample(render(placed, reader), layout, overwrite)
            except AudioError as error:
                failure = Failure(recipe.mixture_id, str(error))
        outcomes.append(failure)
    return outcomes


def _map(
    work: Callable[[Sequence[Any]], list[Any]],
    items: Sequence[Any],
    jobs: int,
    on_progress: OnProgress | None,
    executor: Executor,
) -> list[Any]:
    """`work` on chunks of the items, in `jobs` processes; its results for all items in their order."""
    chunks = list(_chunks(items))
    results: list[list[Any]] = [[] for _ in chunks]
    done = 0
    for position, result in map_processes(work, chunks, jobs, executor):
        results[position] = result
        done += len(chunks[position])
        if on_progress is not None:
            on_progress(done, len(items))
    return [outcome for result in results for outcome in result]


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _check_root(recipes: Sequence[Recipe], root: Path | None) -> None:
    """Refuse recipes none of whose recordings is there: then the root is wrong, not the recordings."""
    places = FileLocator(root or Path(), "the recipes", search_moved=root is not None)
    paths = (places.find(str(source.excerpt.utterance.path)) for recipe in recipes for source in recipe.sources)
    if not any(map(is_file, paths)):
        first = (root or Path()) / recipes[0].sources[0].excerpt.utterance.path
        raise InputError(f"{first}: no such file; give with --root the folder that the recipes' paths start from")


def _begins_with(recipes: Sequence[Recipe], path: Path) -> bool:
    """Whether the file holds the first of the recipes, or all."""
    try:
        written = list(read_recipes(path))
    except InputError:
        return False
    return bool(written) and written == list(recipes[: len(written)])


def _remove_mixtures(folder: Path, path: Path) -> None:
    """Remove what a tree's own recipes name, and its lists; files that are not of the tree stay."""
    layout = TreeLayout(folder, has_noise=True, has_distortion=True)
    parts: set[str] = set()
    for recipe in read_recipes(path):
        for relative in layout.waveforms(recipe).values():
            (folder / relative).unlink(missing_ok=True)
            parts.add(relative.rpartition("/")[0])
        layout.activity(recipe).unlink(missing_ok=True)
    for listing in (*map(layout.metadata, layout.conditions()), folder / MAP_NAME):
        listing.unlink(missing_ok=True)
    for part in sorted(parts | {ACTIVITY_FOLDER}):
        if (folder / part).is_dir() and not any((folder / part).iterdir()):
            (folder / part).rmdir()


def _clear_left_behind(recipes: Sequence[Recipe], layout: TreeLayout) -> None:
    """Remove what a run that was killed left of the files that it was at."""
    names: dict[Path, set[str]] = defaultdict(set)
    for recipe in recipes:
        for relative in layout.waveforms(recipe).values():
            names[layout.folder / Path(relative).parent].add(Path(relative).name)
        names[layout.activity(recipe).parent].add(layout.activity(recipe).name)
    names[layout.folder] |= {RECIPES_NAME, MAP_NAME, *(layout.metadata(name).name for name in layout.conditions())}
    for folder, files in names.items():
        remove_temporary_files(folder, files)


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name}: is {number}; 1 or more are needed")
