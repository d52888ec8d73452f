"""Shards without an index: a corpus of which a few shards at a time are in memory.

A run over such a corpus is cut into windows. A window is a few whole shards, with at least so many speakers, and
mixtures are drawn from the utterances of one window as they would be from a corpus. Which window a mixture is drawn
from is a function of the seed and of its position in the run alone (position n of a run with `epoch_size` E is sample
n % E of epoch n // E); so whoever asks for a mixture, whenever, gets the same, and a run goes on at its position after
reading one window.

Windows follow each other in several lanes. Neighbouring blocks of mixtures belong to neighbouring lanes, in turn; where
`lanes` is a multiple of ranks times workers and `block` is the batch size, each worker of each rank keeps to lanes of
its own, and reads only their shards.
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
from wesep_py.data.manifest import Utterance
from wesep_py.data.recordings import resolve_location
from wesep_py.data.remote import is_url, open_url
from wesep_py.data.store import StoreEntry, StoreReader
from wesep_py.data.webdataset import read_shard_utterances

# ----------------------------------------
# Names of shards that are read as a stream: tar files, by a path, a pattern or a range of numbers.

STREAM_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_stream(name: str | os.PathLike[str]) -> bool:
    """Whether a name of a configuration stands for tar files, which are read without an index.

    >>> is_stream("shards/{000..127}.tar"), is_stream("shards"), is_stream("train.jsonl")
    (True, False, False)
    """
    return os.fspath(name).endswith(STREAM_SUFFIXES)


def stream_shards(names: Sequence[str], root: str | os.PathLike[str]) -> list[str]:
    """The shards that names stand for, in no particular order.

    Args:
        names: paths, relative to `root`, or URLs, of tar files; `{000..127}` stands for each of the numbers,
            `{a,b}` for either, and in a path `*` and `?` for what there is.
        root: a folder.

    Raises:
        InputError: a pattern that no file matches, or a range that ends before it begins.

    >>> stream_shards(["s3://bucket/{08..10}.tar"], ".")
    ['s3://bucket/08.tar', 's3://bucket/09.tar', 's3://bucket/10.tar']
    """
    shards: list[str] = []
    for name in names:
        for place in (resolve_location(one, root) for one in expand_braces(name)):
            if is_url(place) or not set(place) & set("*?"):
                shards.append(place)
                continue
            path = Path(place)
            found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
            matching = sorted(file.as_posix() for file in found if not is_hidden(file.name))
            if not matching:
                raise InputError(f"{place}: no file matches; name the tar files of the stream")
            shards.extend(matching)
    return shards


def expand_braces(name: str) -> list[str]:
    """What a name with `{000..127}` or `{a,b}` stands for.

    Raises:
        InputError: a range that ends before it begins.

    >>> expand_braces("{a,b}-{9..10}.tar")
    ['a-9.tar', 'a-10.tar', 'b-9.tar', 'b-10.tar']
    """
    braces = _BRACES.search(name)
    if braces is None:
        return [name]
    before, after = name[: braces.start()], expand_braces(name[braces.end() :])
    if numbers := _RANGE.fullmatch(braces[1]):
        first, last = int(numbers[1]), int(numbers[2])
        if last < first:
            raise InputError(f"{name}: the range {{{braces[1]}}} ends before it begins; swap its ends")
        choices = [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
    else:
        choices = braces[1].split(",")
    return [before + choice + rest for choice in choices for rest in after]


def stream_identity(name: str, root: str | os.PathLike[str]) -> list[str]:
    """What a stream is recognised by: the names of its shards, and, on this machine, their sizes."""
    shards = stream_shards([name], root)
    return [f"{shard} {'' if is_url(shard) else Path(shard).stat().st_size}" for shard in shards]


Built = TypeVar("Built")


class WindowId(NamedTuple):
    """A window of a run: its lane, the pass over the corpus that it belongs to, and its number there, all from 0."""

    lane: int
    round: int
    number: int


@dataclass(frozen=True)
class StreamWindow:
    """The utterances of a few shards.

    Attributes:
        utterances: in the order of the shards.
        reader: gives their samples, from memory.
        shards: the names of the shards.
        left_out: a line for each utterance that cannot be used.
    """

    utterances: tuple[Utterance, ...]
    reader: StoreReader
    shards: tuple[str, ...]
    left_out: tuple[str, ...]


class StreamPool(Generic[Built]):
    """What is built over a window of shards, such as a `Simulator`, for each position in a run.

    It can be sent to other processes, which begin with an empty memory. A process holds one window for each lane
    that it is asked for: `shards_per_window` shards, and the next ones until there are enough speakers.

    Args:
        shards: paths or URLs of tar files, each once, in any order.
        build: makes of a window what is wanted at its positions.
        sample_rate: rate of what its readers give in Hz.
        epoch_size: mixtures in an epoch, at least 1.
        seed: 0 or more.
        min_speakers: in each window, at least so many; where its own shards have fewer, more are read.
        mixtures_per_window: positions that one window serves.
        shards_per_window: at least 1.
        lanes: windows in use at a time over all processes; no more than there are shards.
        block: neighbouring positions that share a lane: the batch size of a rank.
        cache_mib: decoded audio that the reader of a window keeps, in MiB.

    Raises:
        InputError: no shard, one that comes twice, or a number out of its range.

    >>> pool = StreamPool(["a.tar", "b.tar"], len, 16000, epoch_size=100, lanes=2, block=4, mixtures_per_window=8)
    >>> [pool.place(0, index).lane for index in (0, 3, 4, 8)]
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
        if twice := next((one for one, other in pairwise(names) if one == other), None):
            raise InputError(f"shards: {twice} comes twice; name it once")
        numbers = {
            "epoch_size": epoch_size, "min_speakers": min_speakers, "mixtures_per_window": mixtures_per_window,
            "shards_per_window": shards_per_window, "lanes": lanes, "block": block,
        }  # fmt: skip
        for name, number in numbers.items():
            if number < 1:
                raise InputError(f"{name}: is {number}; 1 or more are needed")
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
        """What was built over the window of a position; the latest of each lane is kept.

        Raises:
            AudioError: a shard is missing, no tar file, or cut short.
            InputError: the corpus has too few speakers.
        """
        place = self.place(epoch, index)
        known = self._built.get(place.lane)
        if known is not None and known[0] == place:
            return known[1]
        self._built.pop(place.lane, None)  # the former window goes before the next one comes
        built = self._build(self.window(place))
        self._built[place.lane] = place, built
        return built

    def place(self, epoch: int, index: int) -> WindowId:
        """The window that a position belongs to. Nothing is read."""
        turn, within = divmod(epoch * self._epoch_size + index, self._block)
        lane = turn % self._lanes
        # Lanes go on to their next windows at different times, so that not all wait for shards at once.
        head_start = lane * self._mixtures_per_window // self._lanes
        served = turn // self._lanes * self._block + within + head_start
        own = len(range(lane, len(self.shards), self._lanes))
        windows = -(-own // self._shards_per_window)
        return WindowId(lane, *divmod(served // self._mixtures_per_window, windows))

    def order(self, place: WindowId) -> list[str]:
        """The shards that a window is read from, in order: its own, and then those that follow if it needs more."""
        shuffled = np.random.default_rng([self._seed, place.round]).permutation(len(self.shards))
        own = shuffled[place.lane :: self._lanes].tolist()
        first = place.number * self._shards_per_window
        own = own[first:] + own[:first]
        others = [number for number in shuffled.tolist() if number not in set(own)]
        return [self.shards[number] for number in own + others]

    def window(self, place: WindowId) -> StreamWindow:
        """Read a window.

        Raises:
            AudioError, InputError: as `at`.
        """
        order = self.order(place)
        own = min(self._shards_per_window, len(range(place.lane, len(self.shards), self._lanes)))
        store = _Memory(f"shards from {order[0]} on")
        left_out: list[str] = []
        speakers: set[str] = set()
        read = 0
        for shard in order:
            if read >= own and len(speakers) >= self._min_speakers:
                break
            with open_shard(shard) as file:
                for item in read_shard_utterances(file, shard, left_out.append):
                    store.add(
                        item.utterance, item.data, StoreEntry(item.sample_rate, item.num_samples, zlib.crc32(item.data))
                    )
                    speakers.add(item.utterance.speaker_id)
            read += 1
        if len(speakers) < self._min_speakers:
            bad = f"; {len(left_out)} utterances were left out, the first: {left_out[0]}" if left_out else ""
            raise InputError(
                f"{order[0]} and the other shards have {len(speakers)} speakers and min_speakers is "
                f"{self._min_speakers}; lower it{bad}"
            )
        reader = StoreReader(store, self.sample_rate, self._cache_mib)
        return StreamWindow(tuple(store.utterances()), reader, tuple(order[:read]), tuple(left_out))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": {}}


class _Memory:
    """Encoded audio in memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._held: dict[str, tuple[Utterance, bytes, StoreEntry]] = {}

    def add(self, utterance: Utterance, data: bytes, entry: StoreEntry) -> None:
        if utterance.utterance_id in self._held:
            raise InputError(f"{self.name}: utterance_id {utterance.utterance_id!r} comes twice; it must be unique")
        self._held[utterance.utterance_id] = utterance, data, entry

    def entry(self, utterance_id: str) -> StoreEntry | None:
        held = self._held.get(utterance_id)
        return None if held is None else held[2]

    def data(self, utterance_id: str) -> bytes:
        return self._held[utterance_id][1]

    def utterances(self, root: Any = None) -> list[Utterance]:
        return [utterance for utterance, _, _ in self._held.values()]

    def identity(self) -> list[str]:
        return [f"{name} {entry.crc32}" for name, (_, _, entry) in self._held.items()]


def open_shard(shard: str) -> BinaryIO:
    """Open a tar file, by its path or URL.

    Raises:
        AudioError: it cannot be read, or is no file.
    """
    if is_url(shard):
        return open_url(shard)
    if Path(shard).exists() and not Path(shard).is_file():
        raise AudioError(f"{shard}: is no file, but a folder, a device or a pipe; name a tar file")
    try:
        return cast(BinaryIO, Path(shard).open("rb", buffering=0))
    except OSError as error:
        raise AudioError(f"{shard}: cannot be read ({error.strerror or error})") from error
