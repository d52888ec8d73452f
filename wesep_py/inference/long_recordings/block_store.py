"""Finished blocks of a long extraction, on disk: a killed run resumes after its last complete block.

Beside an output `NAME` lie:

- `.NAME.partial`: the blocks one after another, each as magic `WPB1`, CRC-32, length, and tensors (safetensors);
- `.NAME.partial.json`, the journal: `identity`, that is recording, model, voices and settings of the blocks; at the end
  also `writing`, the files that are being written from them;
- `.NAME.partial.state0` and `.state1`: states of a causal network after the last two blocks.

Blocks are only appended; a block that was not written completely is cut off when the run resumes. A file of such a name
that another program made is refused, and links are not followed.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import CheckpointError, InputError, WesepError
from wesep_py.common.files import hidden_name, open_regular, path_exists, write_json
from wesep_py.common.textfiles import read_json
from wesep_py.common.torchfiles import read_torch

_HEAD = struct.Struct("<4sIQ")
_MAGIC = b"WPB1"
Record = dict[str, NDArray[Any]]


class BlockStore:
    """Finished blocks of one extraction.

    Args:
        output: the file that the extraction will become; it determines the names.
        identity: plain values that the blocks depend on; blocks with another identity are discarded.

    Attributes:
        count: number of complete blocks.
        discarded: keys in which the identity of discarded blocks differs from this one.

    Raises:
        InputError: another process uses the files, or a file of this name was not made by wesep.
        WesepError: the disk is full or not writable.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any]) -> None:
        self.path = _blocks_path(output)
        self.journal = journal_path(output)
        self._identity = json.loads(json.dumps(identity))
        self.discarded = self._differing_keys()
        self.count = 0
        try:
            self._file: BinaryIO = self._open()
            if not _try_lock(self._file):
                self._file.close()
                raise InputError(f"{self.path}: another process is extracting this recording; wait for it")
            if self.discarded:
                self._file.truncate(0)
            self._offsets = self._find_records()
            self.count = len(self._offsets)
            if not self.count:
                self._write_journal()
        except InputError:
            raise
        except (OSError, WesepError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            reason = getattr(cause, "strerror", None) or cause
            raise WesepError(
                f"{self.path}: cannot be written ({reason}); finished blocks of a long recording are stored "
                "beside its output: choose an output elsewhere, or make room"
            ) from error

    def append(self, record: Record, state: Any = None) -> None:
        """Append a block, and the state of a causal network after it.

        Raises:
            WesepError: the disk is full; the blocks before are kept.
        """
        from safetensors.numpy import save

        payload = save({key: np.ascontiguousarray(value) for key, value in record.items()})
        try:
            if state is not None:
                self._save_state(state)
            end = self._file.seek(0, os.SEEK_END)
            remaining = memoryview(_HEAD.pack(_MAGIC, zlib.crc32(payload), len(payload)) + payload)
            while remaining:  # an unbuffered file may write less than it is given
                remaining = remaining[self._file.write(remaining) :]
        except OSError as error:
            raise WesepError(
                f"{self.path}: writing failed ({error.strerror or error}); make room, and the same command resumes"
            ) from error
        self._offsets.append(end)
        self.count += 1

    def records(self) -> Iterator[Record]:
        """Yield the blocks, in order."""
        for offset in self._offsets:
            yield self._read_record(offset)

    def last(self) -> Record:
        """Return the last block."""
        return self._read_record(self._offsets[-1])

    def state(self) -> Any:
        """Return the state of a causal network after the last block; `None` if none was stored."""
        try:
            stored = read_torch(self._state_path(self.count - 1), "the state of an extraction", allow_complex=True)
        except CheckpointError:
            return None
        return stored.get("state") if stored.get("index") == self.count - 1 else None

    def announce(self, paths: Iterable[Path]) -> None:
        """Note the files that are about to be written, for `interrupted_outputs`."""
        self._write_journal(writing=[str(path.resolve()) for path in paths])

    def restart(self) -> None:
        """Discard all blocks."""
        self._file.truncate(0)
        self._offsets, self.count = [], 0

    def close(self) -> None:
        """Leave the blocks to a later run; without any, remove the files."""
        self._file.close()
        if not self.count:
            self.remove()

    def remove(self) -> None:
        """Remove the files: the extraction is finished."""
        self._file.close()
        _remove(self.path)

    def _open(self) -> BinaryIO:
        """Open the file of the blocks, new or existing, if all files under its names were made by wesep."""
        existed = path_exists(self.path)
        file = os.fdopen(open_regular(self.path, os.O_RDWR), "r+b", buffering=0)
        foreign = [] if _has_magic(file) else [self.path]
        if not existed and _read_journal(self.journal) is None:
            # Without blocks and journal there was no run of wesep, so it made none of the other files either.
            foreign = [path for path in _files_of(self.path)[1:] if path_exists(path)]
        if foreign:
            file.close()
            if not existed:
                self.path.unlink()
            raise InputError(f"{foreign[0]}: is not a file of wesep, which stores finished blocks there; move it away")
        return file

    def _write_journal(self, **more: Any) -> None:
        write_json(self.journal, {"format": 1, "identity": self._identity, **more})

    def _differing_keys(self) -> list[str]:
        """Return the keys in which the identity of the existing blocks differs from this one."""
        if not path_exists(self.path):
            return []
        journal = _read_journal(self.journal)
        if journal is None:
            return ["journal"]
        stored = journal["identity"]
        return sorted(key for key in {*stored, *self._identity} if stored.get(key) != self._identity.get(key))

    def _find_records(self) -> list[int]:
        """Return where the complete blocks begin, and cut the file off after the last."""
        offsets, position, size = [], 0, self._file.seek(0, os.SEEK_END)
        while position < size:
            self._file.seek(position)
            head = self._file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                break
            magic, checksum, length = _HEAD.unpack(head)
            if magic != _MAGIC or position + _HEAD.size + length > size:
                break
            if zlib.crc32(self._file.read(length)) != checksum:
                break
            offsets.append(position)
            position += _HEAD.size + length
        self._file.truncate(position)
        return offsets

    def _read_record(self, offset: int) -> Record:
        from safetensors.numpy import load

        self._file.seek(offset)
        _, _, length = _HEAD.unpack(self._file.read(_HEAD.size))
        return load(self._file.read(length))

    def _state_path(self, index: int) -> Path:
        return _files_of(self.path)[2 + index % 2]

    def _save_state(self, state: Any) -> None:
        # Before the block itself, and never over the state of the block before:
        #
        #   state0: after block 0      after block 2      …
        #   state1:          after block 1      after block 3
        #
        # So whichever block turns out to be the last complete one, its state exists.
        import torch

        path = self._state_path(self.count)
        path.unlink(missing_ok=True)
        with os.fdopen(open_regular(path, os.O_WRONLY | os.O_EXCL), "wb") as file:
            torch.save({"index": self.count, "state": state}, file)


def journal_path(output: Path) -> Path:
    """Return the path of the journal for the blocks of an output."""
    return _files_of(_blocks_path(output))[1]


def interrupted_outputs(output: Path, identity: Mapping[str, Any]) -> set[Path]:
    """Return the files that a killed run of this very job had begun to write: they may be incomplete.

    Args:
        output: as that of `BlockStore`.
        identity: as that of `BlockStore`; with the journal of another recording, model or voice the result is empty.
    """
    journal = _read_journal(journal_path(output))
    if journal is None or journal.get("identity") != json.loads(json.dumps(identity)):
        return set()
    writing = journal.get("writing", [])
    return {Path(path) for path in writing if isinstance(path, str)} if isinstance(writing, list) else set()


def remove_stale_blocks(output: Path) -> None:
    """Remove the blocks of an earlier, unfinished job whose output has now been written by another one.

    Args:
        output: as that of `BlockStore`. Files that another process uses, or that wesep did not make, are left.
    """
    path, journal = _blocks_path(output), journal_path(output)
    if _read_journal(journal) is None or path.is_symlink():
        return
    try:
        with path.open("r+b") as file:
            if not _has_magic(file) or not _try_lock(file):
                return
            _remove(path)
    except FileNotFoundError:
        _remove(path)
    except OSError:  # the folder may not be writable; the files do no harm
        return


def _blocks_path(output: Path) -> Path:
    return output.with_name(hidden_name(output.name, ".partial", len(".partial.state0"), output.parent))


def _files_of(path: Path) -> list[Path]:
    """Return the file of the blocks, its journal, and its states."""
    return [path.with_name(path.name + tail) for tail in ("", ".json", ".state0", ".state1")]


def _read_journal(path: Path) -> dict[str, Any] | None:
    """Return the journal; `None` if there is none, or it is damaged or foreign: then `BlockStore` starts anew."""
    try:
        journal = None if path.is_symlink() else read_json(path, "the journal of an extraction").values
    except InputError:
        return None
    return journal if isinstance(journal, dict) and isinstance(journal.get("identity"), dict) else None


def _has_magic(file: BinaryIO) -> bool:
    """Return whether the file is empty, or begins as a file of blocks does."""
    file.seek(0)
    return _MAGIC.startswith(file.read(len(_MAGIC)))


def _remove(path: Path) -> None:
    files = _files_of(path)
    for file in (*files[2:], *files[:2]):  # the journal last: it shows that the others were made by wesep
        with suppress(FileNotFoundError):
            file.unlink()


def _try_lock(file: BinaryIO) -> bool:
    """Lock the file; return false if another process holds the lock. Without `fcntl` there are no locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
