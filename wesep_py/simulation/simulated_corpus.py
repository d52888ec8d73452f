"""Corpora of simulated mixtures: their YAML file, drawing their recipes, and rendering them to disk.

    CorpusConfig ─► make_simulator ─► draw_recipes ─► recipes ─► render_tree ─► files of `corpus_tree`

Drawing and rendering run in parallel processes. A mixture that cannot be made is reported as a `Failure` and does not
stop the others.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from wesep_py.common.errors import AudioError, InputError, OutputExistsError
from wesep_py.common.folders import one_run_in, remove_temporary_files, visible_names
from wesep_py.common.processes import Executor, check_executor, map_processes
from wesep_py.data import find_noises, perturb_speed, read_speech
from wesep_py.data.manifest import FileLocator, is_file
from wesep_py.data.reader import FileReader, Reader
from wesep_py.data.recordings import open_reader, resolve_location
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
from wesep_py.simulation.description.simulation_config import RoomConfig, SimulationConfig
from wesep_py.simulation.rendering import render
from wesep_py.simulation.simulator import Simulator, UnreadableFiles

OnProgress = Callable[[int, int], None]
Item = TypeVar("Item")

MIXTURES_PER_CHUNK = 8  # that a process takes at a time
READER_CACHE_MIB = 128


@dataclass(frozen=True)
class CorpusConfig:
    """Configuration of a corpus of mixtures: what `wesep simulate` reads.

    Args:
        speech: manifests (`wesep prepare` writes them), relative to `root`.
        noise: manifests, audio files, or folders of audio files, relative to `root`.
        root: folder that relative paths start from, also those inside the manifests; null: the working folder, and in
            a manifest its own folder. Recipes hold paths relative to `root`, or absolute paths without it.
        sample_rate: of the mixtures, in Hz.
        seed: seed of the mixtures.
        simulation: ranges and weights of the mixtures.
        speeds: every recording of `speech` is used at each of these speeds; at a speed other than 1 its speaker counts
            as another speaker (`data.perturb_speed`).

    Raises:
        ValueError: a value out of its range, or no speech.
    """

    speech: list[str]
    noise: list[str] = field(default_factory=list)
    root: str | None = None
    sample_rate: int = 16000
    seed: int = 0
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    speeds: list[float] = field(default_factory=lambda: [1.0])

    def __post_init__(self) -> None:
        if not self.speech:
            raise ValueError("speech: is empty; name at least one manifest")
        if not 1000 <= self.sample_rate <= 192000:
            raise ValueError(f"sample_rate: is {self.sample_rate}; give 1000 to 192000 Hz")
        if self.simulation.enrollment.count < 1:
            raise ValueError(
                "simulation.enrollment.count: is 0; the trials of a corpus need an enrollment each, give 1"
            )
        if self.seed < 0:
            raise ValueError(f"seed: is {self.seed}; a whole number of 0 or more is needed")


def make_simulator(config: CorpusConfig, reader: Reader | None = None) -> Simulator:
    """Return the simulator of a corpus.

    Args:
        config: the corpus.
        reader: reads its recordings at `config.sample_rate`; by default a `FileReader`.

    Raises:
        InputError: a manifest, a file or a folder is missing, an utterance is in two manifests, impossible speeds, or
            as `Simulator`.
    """
    root = None if config.root is None else Path(config.root)
    utterances = perturb_speed(read_speech(config.speech, root), config.speeds)
    noises = find_noises(config.noise, Path.cwd() if root is None else root)
    if reader is None:
        base = Path.cwd() if root is None else root
        reader = open_reader(
            [resolve_location(name, base) for name in (*config.speech, *config.noise)], config.sample_rate
        )
    simulation = config.simulation if root is None else _with_banks_in(root, config.simulation)
    return Simulator(simulation, utterances, noises, reader, config.seed)


def _with_banks_in(root: Path, config: SimulationConfig) -> SimulationConfig:
    """Return the configuration with the paths of room banks relative to the root."""

    def with_path(room: RoomConfig | None) -> RoomConfig | None:
        return room if room is None or room.bank is None else replace(room, bank=str(root / room.bank))

    enrollment = replace(config.enrollment, room=with_path(config.enrollment.room))
    return replace(config, room=with_path(config.room), enrollment=enrollment)


@dataclass(frozen=True)
class _UnreadableFile:
    """Recording that cannot be read and was replaced, as a process reports it."""

    reason: str


@dataclass(frozen=True)
class Failure:
    """Mixture that could not be made, and the reason in one line."""

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
    """Draw the recipes of mixtures 0 to `count` - 1 of an epoch; return them in order, and the failures.

    Recordings that cannot be read are named in the log, each once, and others are drawn instead.

    Args:
        simulator: draws the recipes.
        count: number of mixtures, 1 or more.
        jobs: processes, 1 or more; the recipes do not depend on it.
        epoch: 0 or more.
        on_progress: called with the number of mixtures done and the total.
        executor: see `common.processes`; the recipes do not depend on it.

    Raises:
        InputError: a number below 1, or `ray` where Ray is not installed.
    """
    _check_numbers(count=count, jobs=jobs)
    quiet = copy.copy(simulator)
    quiet.unreadable_files = UnreadableFiles(log=False)
    results = _map(partial(_draw_chunk, quiet, epoch), range(count), jobs, on_progress, executor)
    for result in results:
        if isinstance(result, _UnreadableFile):
            simulator.unreadable_files.add(result.reason)
    return [r for r in results if isinstance(r, Recipe)], [f for f in results if isinstance(f, Failure)]


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
    """Render recipes as a tree of files in LibriMix's layout (see `corpus_tree`).

    An interrupted tree of the same recipes, or of the first of them, is completed; existing files are kept.

    Args:
        recipes: at least one, all at one sample rate.
        folder: created if missing; its parent must exist.
        reader: reads the recordings; by default a `FileReader` at the recipes' rate.
        root: folder that relative paths in the recipes start from; by default the working folder.
        jobs: processes, 1 or more; the files do not depend on it.
        overwrite: replace a tree of other recipes.
        on_progress: called with the number of mixtures done and the total.
        executor: see `common.processes`; the files do not depend on it.

    Returns:
        The mixtures that could not be rendered; they are in none of the lists.

    Raises:
        InputError: no recipe, two recipes of one mixture, different sample rates, a root that contains none of the
            recordings, or `ray` although Ray is not installed.
        OutputExistsError: the folder contains something else, and `overwrite` is false.
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
        _remove_temporary_files(recipes, layout)
        reader = FileReader(rates[0], READER_CACHE_MIB) if reader is None else reader
        outcomes = _map(partial(_render_chunk, layout, reader, root, overwrite), recipes, jobs, on_progress, executor)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        failed = {failure.mixture for failure in failures}
        write_lists([recipe for recipe in recipes if recipe.mixture_id not in failed], layout)
    return failures


def claim_folder(recipes: Sequence[Recipe], folder: Path, overwrite: bool) -> None:
    """Write `recipes.jsonl` to a folder that is new or empty, or contains the same recipes or the first of them.

    With `overwrite` the mixtures of an existing tree are removed first.

    Raises:
        OutputExistsError: the folder contains other mixtures, and `overwrite` is false; or anything but a tree.
        InputError: the folder's parent does not exist, or `folder` is a file.
    """
    _check_folder(recipes, folder, overwrite)
    folder.mkdir(exist_ok=True)
    path = folder / RECIPES_NAME
    if overwrite and path.is_file():
        _remove_mixtures(folder, path)
    write_recipes(recipes, path, overwrite=True)


def _check_folder(recipes: Sequence[Recipe], folder: Path, overwrite: bool) -> None:
    """Raise an error if a folder contains anything else, before anything is changed; hidden files are ignored."""
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
    """Return the recipe with `change` applied to the path of every recording, to make paths relative or absolute."""

    def walk(values: Any) -> Any:
        if isinstance(values, dict):
            return {k: str(change(Path(v))) if k == "path" else walk(v) for k, v in values.items()}
        return [walk(value) for value in values] if isinstance(values, list) else values

    return Recipe.from_dict(walk(recipe.to_dict()))


def _draw_chunk(simulator: Simulator, epoch: int, indices: Sequence[int]) -> list[Recipe | Failure | _UnreadableFile]:
    drawn: list[Recipe | Failure | _UnreadableFile] = []
    for index in indices:
        try:
            drawn.append(simulator.draw(epoch, index))
        except AudioError as error:
            drawn.append(Failure(f"epoch {epoch}, index {index}", str(error)))
    return [*drawn, *map(_UnreadableFile, simulator.unreadable_files.take())]


def _render_chunk(
    layout: TreeLayout, reader: Reader, root: Path | None, overwrite: bool, recipes: Sequence[Recipe]
) -> list[Failure | None]:
    outcomes: list[Failure | None] = []
    locator = FileLocator(root or "", "the recipes", log_moved=False)
    for recipe in recipes:
        failure = None
        if overwrite or not is_written(recipe, layout):
            try:
                placed = recipe if root is None else change_paths(recipe, lambda path: locator.find(str(path)))
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
    """Call `work` on chunks of the items in `jobs` processes, and return the results of all items in their order."""
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
    while chunk := list(islice(iterator, MIXTURES_PER_CHUNK)):
        yield chunk


def _check_root(recipes: Sequence[Recipe], root: Path | None) -> None:
    """Raise an error if none of the recordings of the recipes exists: then the root is wrong, not the recordings."""
    locator = FileLocator(root or Path(), "the recipes", search_moved=root is not None)
    paths = (locator.find(str(source.excerpt.utterance.path)) for recipe in recipes for source in recipe.sources)
    if not any(map(is_file, paths)):
        first = (root or Path()) / recipes[0].sources[0].excerpt.utterance.path
        raise InputError(f"{first}: no such file; give with --root the folder that the recipes' paths start from")


def _begins_with(recipes: Sequence[Recipe], path: Path) -> bool:
    """Return whether a file contains the first of the recipes, or all of them."""
    try:
        written = list(read_recipes(path))
    except InputError:
        return False
    return bool(written) and written == list(recipes[: len(written)])


def _remove_mixtures(folder: Path, path: Path) -> None:
    """Remove the files that a tree's recipes name, and its lists; all other files are kept."""
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


def _remove_temporary_files(recipes: Sequence[Recipe], layout: TreeLayout) -> None:
    """Remove the temporary files of a run that was killed."""
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
