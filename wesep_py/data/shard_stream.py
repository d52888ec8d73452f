"""Shards without an index: a training run reads whole shards, a few of them in memory at a time.

A run is divided into windows. A window is a few whole shards with at least a minimum number of speakers; mixtures are
drawn from its utterances as from any corpus. The window of a mixture is a function of the seed and of the mixture's
position in the run alone (position n of a run with `epoch_size` E is sample n % E of epoch n // E). So the mixture at a
position is always the same, and a run resumes at its position after reading one window.

Windows follow one another in several lanes. The positions are dealt to the lanes in blocks, in turn:

    position   0 … block-1   block … 2·block-1   2·block … 3·block-1   …            (with 3 lanes)
    lane       0             1                   2                     0  1  2 …

Where `lanes` is a multiple of ranks times workers, and `block` is the batch size, each worker of each rank has lanes of
its own, and reads only their shards.

- `is_stream`, `stream_shards`, `expand_braces`, `stream_identity`: names of shards in a configuration.
- `StreamPool`: gives the window of each position, or an object that is built over it.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar, cast

import numpy as np

from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.names import is_hidden
from wesep_py.data.manifest import Utterance, is_file
from wesep_py.data.recipe_lists import is_list, list_kind, read_shard_list
from wesep_py.data.recordings import resolve_location
from wesep_py.data.remote import is_url, open_url
from wesep_py.data.store import StoreEntry, StoreReader
from wesep_py.data.webdataset import read_shard_utterances

# Names of shards: paths, patterns or ranges of numbers.

STREAM_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_stream(name: str | os.PathLike[str], root: str | os.PathLike[str] = "") -> bool:
    """Return whether a name in a configuration stands for tar files, which are read without an index.

    Args:
        name: tar files, or a `shard.list` of WeSep, which names them.
        root: the folder that a relative path of a list starts from.

    >>> is_stream("shards/{000..127}.tar"), is_stream("shards"), is_stream("train.jsonl")
    (True, False, False)
    """
    if is_list(name) and is_file(Path(root) / name):
        return list_kind(Path(root) / name) == "shards"
    return os.fspath(name).endswith(STREAM_SUFFIXES)


def stream_shards(
    names: Sequence[str], root: str | os.PathLike[str], list_root: str | os.PathLike[str] | None = None
) -> list[str]:
    """Return the shards that names stand for; their order has no meaning.

    Args:
        names: tar files: paths relative to `root`, or URLs. `{000..127}` stands for each of the numbers, `{a,b}` for
            either text; in a path, `*` and `?` match existing files. A `shard.list` stands for the tar files in it.
        root: the folder that relative paths start from.
        list_root: the folder that relative paths inside a `shard.list` start from; by default it is searched
            (`recipe_lists.base_of`).

    Raises:
        InputError: no file matches a pattern, or a range ends before it begins.

    >>> stream_shards(["s3://bucket/{08..10}.tar"], ".")
    ['s3://bucket/08.tar', 's3://bucket/09.tar', 's3://bucket/10.tar']
    """
    shards: list[str] = []
    for name in names:
        if is_list(name):
            shards.extend(read_shard_list(Path(root) / name, list_root))
            continue
        for location in (resolve_location(expanded, root) for expanded in expand_braces(name)):
            if is_url(location) or not set(location) & set("*?"):
                shards.append(location)
                continue
            path = Path(location)
            matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
            files = sorted(file.as_posix() for file in matches if not is_hidden(file.name))
            if not files:
                raise InputError(f"{location}: no file matches; name the tar files of the stream")
            shards.extend(files)
    return shards


def expand_braces(name: str) -> list[str]:
    """Return the names that a name with `{000..127}` or `{a,b}` stands for.

    Raises:
        InputError: a range ends before it begins.

    >>> expand_braces("{a,b}-{9..10}.tar")
    ['a-9.tar', 'a-10.tar', 'b-9.tar', 'b-10.tar']
    """
    braces = _BRACES.search(name)
    if braces is None:
        return [name]
    before, endings = name[: braces.start()], expand_braces(name[braces.end() :])
    if numbers := _RANGE.fullmatch(braces[1]):
        first, last = int(numbers[1]), int(numbers[2])
        if last < first:
            raise InputError(f"{name}: the range {{{braces[1]}}} ends before it begins; swap its ends")
        choices = [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
    else:
        choices = braces[1].split(",")
    return [before + choice + ending for choice in choices for ending in endings]


def stream_identity(name: str, root: str | os.PathLike[str]) -> list[str]:
    """Return texts that identify a stream: the names of its shards and, for local files, their sizes."""
    shards = stream_shards([name], root)
    return [f"{shard} {'' if is_url(shard) else Path(shard).stat().st_size}" for shard in shards]


# Windows of a run.

Built = TypeVar("Built")


class WindowId(NamedTuple):
    """A window of a run: its lane, the round (pass over the corpus), and its number in the round, all from 0."""

    lane: int
    round: int
    number: int


@dataclass(frozen=True)
class StreamWindow:
    """The utterances of a few shards.

    Attributes:
        utterances: in the order of the shards.
        reader: reads their samples, from memory.
        shards: the names of the shards.
        left_out: a line for each utterance that cannot be used.
    """

    utterances: tuple[Utterance, ...]
    reader: StoreReader
    shards: tuple[str, ...]
    left_out: tuple[str, ...]


class StreamPool(Generic[Built]):
    """Gives, for each position in a run, the object that is built over its window, such as a `Simulator`.

    A pool can be sent to other processes, which start with no window. A process keeps one window for each lane that it
    uses: `shards_per_window` shards, and the following ones until there are enough speakers.

    Args:
        shards: paths or URLs of tar files, each once, in any order.
        build: makes the object of a window.
        sample_rate: sample rate of the windows' readers in Hz.
        epoch_size: number of mixtures in an epoch, at least 1.
        seed: 0 or more.
        min_speakers: minimum number of speakers in a window; more shards are read if its own have fewer.
        mixtures_per_window: number of positions that use one window.
        shards_per_window: number of shards in a window, at least 1.
        lanes: number of windows in use at a time, over all processes; at most the number of shards is used.
        block: number of neighbouring positions that share a lane: the batch size of a rank.
        cache_mib: size of the cache of decoded audio of a window's reader, in MiB.

    Raises:
        InputError: no shard, a shard that is listed twice, or a number out of its range.

    >>> pool = StreamPool(["a.tar", "b.tar"], len, 16000, epoch_size=100, lanes=2, block=4, mixtures_per_window=8)
    >>> [pool.window_id(0, index).lane for index in (0, 3, 4, 8)]
    [0, 0, 1, 0]
    """

    def __init__(
        self,
        shards: Sequence[str],
        build: Callable[[StreamWindow], Built],
        sample_rate: int,
        epoch_size: int,
        seed: int = 0,
        min_speakers: int = 20,
        mixtures_per_window: int = 1000,
        shards_per_window: int = 1,
        lanes: int = 8,
        block: int = 8,
        cache_mib: float = 256,
    ) -> None:
        names = sorted(map(str, shards))
        if not names:
            raise InputError("shards: is empty; name at least one tar file")
        if repeated := next((name for name, following in pairwise(names) if name == following), None):
            raise InputError(f"shards: {repeated} is listed twice; name it once")
        counts = {
            "epoch_size": epoch_size, "min_speakers": min_speakers, "mixtures_per_window": mixtures_per_window,
            "shards_per_window": shards_per_window, "lanes": lanes, "block": block,
        }  # fmt: skip
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"{name}: is {count}; 1 or more are needed")
        if seed < 0:
            raise InputError(f"seed: is {seed}; a whole number of 0 or more is needed")
        self.shards = tuple(names)
        self.sample_rate = sample_rate
        self._build = build
        self._epoch_size = epoch_size
        self._seed = seed
        self._min_speakers = min_speakers
        self._mixtures_per_window = mixtures_per_window
        self._shards_per_window = shards_per_window
        self._lanes = min(lanes, len(names))
        self._block = block
        self._cache_mib = cache_mib
        self._built: dict[int, tuple[WindowId, Built]] = {}

    def at(self, epoch: int, index: int) -> Built:
        """Return the object that is built over the window of a position; the latest of each lane is kept.

        Raises:
            AudioError: a shard is missing, no tar file, or cut short.
            InputError: the corpus has too few speakers.
        """
        window_id = self.window_id(epoch, index)
        current = self._built.get(window_id.lane)
        if current is not None and current[0] == window_id:
            return current[1]
        self._built.pop(window_id.lane, None)  # free the former window's memory before the next one is read
        built = self._build(self.window(window_id))
        self._built[window_id.lane] = window_id, built
        return built

    def window_id(self, epoch: int, index: int) -> WindowId:
        """Return the id of the window that a position belongs to. Nothing is read."""
        # Blocks are dealt to the lanes in turn. With 2 lanes and blocks of 4:
        #
        #   position            0 1 2 3   4 5 6 7   8 9 10 11   …
        #   turn (the block)    0         1         2
        #   lane                0         1         0
        #   position in lane    0 1 2 3   0 1 2 3   4 5  6  7
        turn, position_in_block = divmod(epoch * self._epoch_size + index, self._block)
        lane = turn % self._lanes
        # Each lane starts at another place of its first window, so that not all change windows at the same time.
        head_start = lane * self._mixtures_per_window // self._lanes
        position_in_lane = turn // self._lanes * self._block + position_in_block + head_start
        windows_per_round = -(-self._num_shards_of(lane) // self._shards_per_window)  # rounded up
        return WindowId(lane, *divmod(position_in_lane // self._mixtures_per_window, windows_per_round))

    def shard_order(self, window_id: WindowId) -> list[str]:
        """Return all shards in the order in which a window reads them: its own first, then those it may need more."""
        # All lanes shuffle the shards of a round in the same way, and lane k takes every n-th from the k-th on, so that
        # each round reads each shard in exactly one lane.
        shuffled = np.random.default_rng([self._seed, window_id.round]).permutation(len(self.shards))
        lane_shards = shuffled[window_id.lane :: self._lanes].tolist()
        first = window_id.number * self._shards_per_window
        lane_shards = lane_shards[first:] + lane_shards[:first]
        others = [number for number in shuffled.tolist() if number not in set(lane_shards)]
        return [self.shards[number] for number in lane_shards + others]

    def window(self, window_id: WindowId) -> StreamWindow:
        """Read a window.

        Raises:
            AudioError, InputError: as `at`.
        """
        order = self.shard_order(window_id)
        num_required = min(self._shards_per_window, self._num_shards_of(window_id.lane))
        store = _MemoryStore(f"shards from {order[0]} on")
        left_out: list[str] = []
        speakers: set[str] = set()
        num_read = 0
        for shard in order:
            if num_read >= num_required and len(speakers) >= self._min_speakers:
                break
            with open_shard(shard) as file:
                for item in read_shard_utterances(file, shard, left_out.append):
                    entry = StoreEntry(item.sample_rate, item.num_samples, zlib.crc32(item.data))
                    store.add(item.utterance, item.data, entry)
                    speakers.add(item.utterance.speaker_id)
            num_read += 1
        if len(speakers) < self._min_speakers:
            bad = f"; {len(left_out)} utterances were left out, the first: {left_out[0]}" if left_out else ""
            raise InputError(
                f"{order[0]} and the other shards have {len(speakers)} speakers and min_speakers is "
                f"{self._min_speakers}; lower it{bad}"
            )
        reader = StoreReader(store, self.sample_rate, self._cache_mib)
        return StreamWindow(tuple(store.utterances()), reader, tuple(order[:num_read]), tuple(left_out))

    def _num_shards_of(self, lane: int) -> int:
        """Return the number of shards that a lane reads in a round."""
        return len(range(lane, len(self.shards), self._lanes))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": {}}


class _MemoryStore:
    """A `Store` whose encoded audio is in memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._items: dict[str, tuple[Utterance, bytes, StoreEntry]] = {}

    def add(self, utterance: Utterance, data: bytes, entry: StoreEntry) -> None:
        if utterance.utterance_id in self._items:
            raise InputError(f"{self.name}: utterance_id {utterance.utterance_id!r} comes twice; it must be unique")
        self._items[utterance.utterance_id] = utterance, data, entry

    def entry(self, utterance_id: str) -> StoreEntry | None:
        item = self._items.get(utterance_id)
        return None if item is None else item[2]

    def data(self, utterance_id: str) -> bytes:
        return self._items[utterance_id][1]

    def utterances(self, root: Any = None) -> list[Utterance]:
        return [utterance for utterance, _, _ in self._items.values()]

    def identity(self) -> list[str]:
        return [f"{name} {entry.crc32}" for name, (_, _, entry) in self._items.items()]


def open_shard(shard: str) -> BinaryIO:
    """Open a tar file, by its path or URL.

    Raises:
        AudioError: it cannot be read, or is not a regular file.
    """
    if is_url(shard):
        return open_url(shard)
    if Path(shard).exists() and not Path(shard).is_file():
        raise AudioError(f"{shard}: is not a file but a folder, a device or a pipe; name a tar file")
    try:
        return cast(BinaryIO, Path(shard).open("rb", buffering=0))
    except OSError as error:
        raise AudioError(f"{shard}: cannot be read ({error.strerror or error})") from error
