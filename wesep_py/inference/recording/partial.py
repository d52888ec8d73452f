"""What is done of a long extraction, on disk: a killed run goes on from its last whole block.

Beside the output lie `.NAME.partial`, blocks one after another, each with its length and a checksum, and
`.NAME.partial.json`, which says of what recording, model, voices and settings they are, and at the end
which files are being written from them. Blocks are only appended: what was cut off while it was written is cut off for
good when the run goes on.
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

from wesep_py.errors import InputError, WesepError
from wesep_py.files import write_json
from wesep_py.textfiles import check_shape, read_json

_HEAD = struct.Struct("<4sIQ")
_MAGIC = b"WPB1"

Record = dict[str, NDArray[Any]]


def being_written(output: Path) -> set[Path]:
    """The files that a run which was killed had begun to write from its blocks: they are not finished.

    Args:
        output: as that of `Partial`.
    """
    journal = _journal_of(output)
    try:
        told = read_json(journal, "the journal of an extraction").values
        check_shape(told, {"writing?": [str]}, str(journal))
    except InputError:  # none, or damaged: then `Partial` begins anew
        return set()
    return {Path(path) for path in told.get("writing", [])}


class Partial:
    """The blocks of an extraction that is not finished.

    Args:
        output: the file that it will become; it decides on the names.
        identity: what the blocks depend on, as plain values; blocks with another one are thrown away.

    Attributes:
        count: whole blocks that are there.
        discarded: the keys in which blocks that were there differ from this run; they are gone.

    Raises:
        InputError: another process is at it.
        WesepError: the disk is full or not writable.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any]) -> None:
        self.path = output.with_name(f".{output.name}.partial")
        self.journal = _journal_of(output)
        identity = json.loads(json.dumps(identity))
        self._identity = identity
        self.discarded = self._differing(identity)
        self.count = 0
        try:
            self._file: BinaryIO = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
            self._lock()
            if self.discarded:
                self._file.truncate(0)
            self._offsets = self._whole_records()
            self.count = len(self._offsets)
            if not self.count:
                self._note()
        except OSError as error:
            raise WesepError(
                f"{self.path}: cannot be written ({error.strerror or error}); what is done of a long recording is kept "
                "beside its output: name one elsewhere, or make room"
            ) from error

    def append(self, record: Record, state: Any = None) -> None:
        """Add a block, and with it what a causal network goes on from.

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
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
        except OSError as error:
            raise WesepError(
                f"{self.path}: writing failed ({error.strerror or error}); make room, and the same command goes on"
            ) from error
        self._offsets.append(end)
        self.count += 1

    def records(self) -> Iterator[Record]:
        """The blocks, in order."""
        for offset in self._offsets:
            yield self._record(offset)

    def last(self) -> Record:
        """The last block."""
        return self._record(self._offsets[-1])

    def state(self) -> Any:
        """What a causal network goes on from after the last block; `None` where none was kept."""
        import torch

        path = self._state_path(self.count - 1)
        try:
            kept = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError):
            return None
        return kept["state"] if kept["index"] == self.count - 1 else None

    def announce(self, paths: Iterable[Path]) -> None:
        """Note the files that are about to be written, for `being_written`."""
        self._note(writing=[str(path.resolve()) for path in paths])

    def restart(self) -> None:
        """Throw the blocks away."""
        self._file.truncate(0)
        self._offsets, self.count = [], 0

    def close(self) -> None:
        """Leave the blocks for a later run; nothing is left of none."""
        self._file.close()
        if not self.count:
            self.remove()

    def remove(self) -> None:
        """The extraction is finished: delete all."""
        self._file.close()
        for path in (self.path, self.journal, self._state_path(0), self._state_path(1)):
            with suppress(FileNotFoundError):
                path.unlink()

    def _note(self, **more: Any) -> None:
        write_json(self.journal, {"format": 1, "identity": self._identity, **more})

    def _differing(self, identity: Mapping[str, Any]) -> list[str]:
        if not self.path.exists():
            return []
        try:
            begun = read_json(self.journal, "the journal of an extraction").row("identity").values
        except InputError:
            return ["journal"]
        return sorted(key for key in {*begun, *identity} if begun.get(key) != identity.get(key))

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not POSIX: two runs at once are the user's affair
            return
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{self.path}: another process is extracting this recording; wait for it") from None

    def _whole_records(self) -> list[int]:
        """Where the whole blocks begin; the file is cut behind the last."""
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

    def _record(self, offset: int) -> Record:
        from safetensors.numpy import load

        self._file.seek(offset)
        _, _, length = _HEAD.unpack(self._file.read(_HEAD.size))
        return load(self._file.read(length))

    def _state_path(self, index: int) -> Path:
        return self.path.with_name(f"{self.path.name}.state{index % 2}")

    def _save_state(self, state: Any) -> None:
        # Before the block itself, and never over the state of the block before: whichever block turns out to be the
        # last whole one, its state is there.
        import torch

        torch.save({"index": self.count, "state": state}, self._state_path(self.count))


def _journal_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial.json")
