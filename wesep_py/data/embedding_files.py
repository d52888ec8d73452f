"""Precomputed embeddings: vectors in files, looked up by utterance or by speaker.

Two layouts are read: a folder of `.npy` files, each named after the utterance (or the speaker) of its vector, and
Kaldi's archives of vectors, as `xvector.scp` next to its `.ark` files.
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.media import AUDIO_SUFFIXES, MEDIA_SUFFIXES
from wesep_py.common.errors import InputError, naming, quoted
from wesep_py.common.names import canonical, is_hidden
from wesep_py.common.textfiles import open_lines
from wesep_py.data.manifest import FileLocator, Utterance, is_file
from wesep_py.data.recipe_lists import SOURCE_FOLDER, base_of

if TYPE_CHECKING:
    from wesep_py.data.trials import Trial

# Limits against damaged files: what they state must not be believed without bounds.
_MAX_VALUES = 1 << 20
_MAX_NAME_BYTES = 4096

Vector = NDArray[np.float32]
# A file, and the byte at which a vector of Kaldi begins in it; `None` for a `.npy` file.
_VectorPosition = tuple[Path, "int | None"]


class Embeddings:
    """Vectors by name, read when they are requested.

    Args:
        path: a folder of `.npy` files (also in folders below it), a Kaldi `.scp`, or a Kaldi `.ark`.
        dim: the required size of every vector; `None`: any.

    Attributes:
        path, dim: the arguments.

    Raises:
        InputError: the folder or file does not exist or holds no vector, or a line is no entry of an scp.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "alice.npy", np.array([3.0, 4.0]))
    >>> Embeddings(folder).of([Utterance("alice-1", "alice", Path("1.wav"), 2.0)])
    array([3., 4.], dtype=float32)
    """

    def __init__(self, path: str | os.PathLike[str], dim: int | None = None) -> None:
        self.path, self.dim = Path(path), dim
        if self.path.is_dir():
            self._positions = _find_npy(self.path)
        elif self.path.suffix == ".ark" and self.path.is_file():
            self._positions = _find_in_ark(self.path)
        else:
            self._positions = _read_scp(self.path)
        self._count = len(self._positions)
        self._positions = _alternative_names(self._positions) | self._positions
        if not self._positions:
            raise InputError(f"{self.path}: holds no embedding; give a folder of .npy files, or Kaldi's .scp or .ark")

    def __contains__(self, name: str) -> bool:
        return canonical(name) in self._positions

    def __len__(self) -> int:
        return self._count

    def read(self, name: str) -> Vector:
        """Return one vector as it is stored: float32 `[dim]`.

        Raises:
            InputError: the name is unknown, or its file holds no vector of `dim` finite numbers.
        """
        if name not in self:
            raise InputError(f"{self.path}: has no embedding {name!r}, one of {len(self)}")
        path, offset = self._positions[canonical(name)]
        vector = _read_npy(path) if offset is None else _read_at(path, offset)
        if vector.ndim != 1 or vector.size == 0 or not np.isfinite(vector).all():
            shape = list(vector.shape)
            raise InputError(f"{path}: embedding {name!r} has shape {shape}; finite numbers, [dim], are needed")
        if self.dim not in (None, vector.size):
            raise InputError(f"{path}: embedding {name!r} has {vector.size} numbers; the model takes {self.dim}")
        return vector.astype(np.float32)

    def of(self, utterances: Sequence[Utterance]) -> Vector:
        """Return the embedding of a speaker: the mean direction of its utterances, times their mean length.

        Cues combine several embeddings in the same way.

        Args:
            utterances: utterances of one speaker, at least one. If an utterance has no vector, the speaker's is used.

        Returns:
            float32 `[dim]`.

        Raises:
            InputError: as `read`; or there is no utterance, the vectors differ in size, or one is zero.
        """
        if not utterances:
            raise InputError(f"{self.path}: an embedding of no utterance was requested; enrollments are needed")
        names = dict.fromkeys(u.utterance_id if u.utterance_id in self else u.speaker_id for u in utterances)
        return self._mean(list(names))

    def of_trial(self, trial: Trial) -> Vector:
        """Return the embedding of a trial's enrollment, found by its path, or else the one of the target's speaker.

        For `a/s1/mix.wav` it is the first existing of `a/s1/mix`, `s1/mix`, `mix-s1` (the name in lists of mixtures)
        and `mix`.

        Raises:
            InputError: there is none, or as `of`.
        """
        path = trial.enrollment.with_suffix("")
        names = ["/".join(path.parts[start:]) for start in range(len(path.parts))]
        names.insert(-1, f"{path.name}-{path.parent.name}")
        if trial.target is not None and trial.target.speaker_id is not None:
            names.append(trial.target.speaker_id)
        name = next((name for name in names if name in self), None)
        if name is None:
            raise InputError(f"{self.path}: has no embedding of {trial.enrollment}; it would be called {path.name!r}")
        return self._mean([name])

    def require(self, utterances: Sequence[Utterance]) -> None:
        """Check that each utterance, or its speaker, has an embedding. No vector is read.

        Raises:
            InputError: an utterance and its speaker have none.
        """
        missing = [u for u in utterances if u.utterance_id not in self and u.speaker_id not in self]
        if missing:
            first = missing[0]
            raise InputError(
                f"{self.path}: has no embedding of {len(missing)} of {len(utterances)} utterances, such as "
                f"{first.utterance_id!r}, nor of its speaker {first.speaker_id!r}; compute them, or take these out"
            )

    def _mean(self, names: Sequence[str]) -> Vector:
        vectors = [self.read(name) for name in names]
        if len({vector.size for vector in vectors}) > 1:
            raise InputError(f"{self.path}: {', '.join(names)} differ in size; one network has to give all of them")
        lengths = [float(np.linalg.norm(vector)) for vector in vectors]
        if 0.0 in lengths:
            zero = names[lengths.index(0.0)]
            raise InputError(f"{self.path}: embedding {zero!r} is zero and has no direction; compute it again")
        if len(vectors) == 1:
            return vectors[0]
        mean = np.mean([vector / length for vector, length in zip(vectors, lengths, strict=True)], axis=0)
        return (mean * np.mean(lengths)).astype(np.float32)


def _alternative_names(positions: Mapping[str, _VectorPosition]) -> dict[str, _VectorPosition]:
    """Return further names of vectors that are called like files, as in WeSep's `embed.scp`.

    `s1/MIX.wav`, the first source of a mixture, is `s1/MIX` and, as an utterance of a list of mixtures, `MIX-s1`.
    """
    names: dict[str, _VectorPosition] = {}
    for name, position in positions.items():
        stem, dot, suffix = name.rpartition(".")
        if f".{suffix.lower()}" not in (*AUDIO_SUFFIXES, *MEDIA_SUFFIXES) or not dot:
            continue
        names.setdefault(stem, position)
        folder, _, file = stem.rpartition("/")
        if SOURCE_FOLDER.fullmatch(folder.rpartition("/")[2]):
            names.setdefault(f"{file}-{folder.rpartition('/')[2]}", position)
    return names


# Folders of .npy files.


def _find_npy(folder: Path) -> dict[str, _VectorPosition]:
    """Return the files by name if it is unique, and by their path below the folder (an id may have slashes)."""
    paths = sorted(path for path in folder.rglob("*.npy") if not any(map(is_hidden, path.relative_to(folder).parts)))
    names = [canonical(path.stem) for path in paths]
    counts = Counter(names)
    positions: dict[str, _VectorPosition] = {
        name: (path, None) for name, path in zip(names, paths, strict=True) if counts[name] == 1
    }
    return positions | {canonical(path.relative_to(folder).with_suffix("").as_posix()): (path, None) for path in paths}


def _read_npy(path: Path) -> NDArray[np.floating]:
    remedy = "save it with numpy.save"
    with naming(path, remedy):
        with path.open("rb") as file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                raise InputError(f"{path}: is not an array of numbers; {remedy}")
        # Memory-mapped, so that a header that states more than the file holds allocates no memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.size > _MAX_VALUES:
            content = f"{array.size} values of {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
            raise InputError(f"{path}: is not a vector of numbers (it holds {content}); {remedy}")
        return np.array(array, dtype=np.float64)


# Kaldi's archives. A vector is stored as its name, a blank, and then either
#
#     "\0B" "FV " 4 COUNT(int32) floats…      binary; "DV " for doubles; the 4 is the size of COUNT in bytes
#     " [ 0.1 0.2 … ]"                        text
#
# and `.scp` lists `NAME FILE.ark:OFFSET`, with the byte behind the blank as OFFSET.

_KALDI_TYPES = {b"FV ": np.dtype("<f4"), b"DV ": np.dtype("<f8")}
_OFFSET = re.compile(r"\d{1,15}", re.ASCII)


def _read_scp(path: Path) -> dict[str, _VectorPosition]:
    positions: dict[str, _VectorPosition] = {}
    locator: FileLocator | None = None
    for number, line in enumerate(open_lines(path, "a Kaldi scp of vectors"), start=1):
        if not line.strip():
            continue
        name, _, place = line.strip().partition(" ")
        file, colon, offset = place.strip().rpartition(":")
        if not colon or not _OFFSET.fullmatch(offset):
            raise InputError(
                f"{path}:{number}: {quoted(place.strip())} is not a position in an archive; give file.ark:offset"
            )
        archive = Path(file)
        locator = locator or FileLocator(base_of(path, file), path)
        positions[canonical(name)] = (archive if is_file(archive) else locator.find(file), int(offset))
    return positions


def _find_in_ark(path: Path) -> dict[str, _VectorPosition]:
    positions: dict[str, _VectorPosition] = {}
    with naming(path, "get a whole copy of it"), path.open("rb") as file:
        while name := _read_name(file, path):
            offset = file.tell()
            _read_vector(file, path)
            positions[canonical(name)] = (path, offset)
    return positions


def _read_name(file: BinaryIO, path: Path) -> str:
    """Read the name before a vector, up to the blank; empty at the end of the file."""
    name = b""
    while (byte := file.read(1)) not in (b"", b" "):
        name += byte
        if len(name) > _MAX_NAME_BYTES:
            raise InputError(f"{path}: holds no name of a vector at byte {file.tell() - len(name)}; give Kaldi's .ark")
    return name.decode("utf-8", errors="replace").strip()


def _read_at(path: Path, offset: int) -> NDArray[np.floating]:
    with naming(path, "put the archive next to its scp"), path.open("rb") as file:
        file.seek(offset)
        return _read_vector(file, path)


def _read_vector(file: BinaryIO, path: Path) -> NDArray[np.floating]:
    """Read the vector at the file's position, binary or text."""
    begin = file.tell()
    if file.read(2) != b"\0B":
        file.seek(begin)
        return _parse_text_vector(file.readline(32 * _MAX_VALUES), path, begin)
    dtype = _KALDI_TYPES.get(file.read(3))
    size = file.read(5)
    if dtype is None or len(size) < 5 or size[0] != 4:
        raise InputError(f"{path}: holds no vector of floats at byte {begin}; give vectors, not matrices")
    (count,) = struct.unpack("<i", size[1:])
    data = file.read(count * dtype.itemsize) if 0 <= count <= _MAX_VALUES else b""
    if len(data) != count * dtype.itemsize:
        raise InputError(f"{path}: is cut short at byte {begin}; write it again")
    return np.frombuffer(data, dtype)


def _parse_text_vector(line: bytes, path: Path, begin: int) -> NDArray[np.floating]:
    fields = line.split()
    try:
        if fields[:1] != [b"["] or fields[-1:] != [b"]"]:
            raise ValueError
        return np.array([float(field) for field in fields[1:-1]])
    except ValueError as error:
        raise InputError(f"{path}: holds no vector at byte {begin}; numbers between [ and ] are needed") from error
