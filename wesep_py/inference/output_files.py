"""What is done of a long extraction, on disk: a killed run goes on from its last whole block.

Beside the output lie `.NAME.partial`, blocks one after another, each with its length and a checksum, and
`.NAME.partial.json`, which says of what recording, model, voices and settings they are, and at the end
which files are being written from them. Blocks are only appended: what was cut off while it was written is cut off for
good when the run goes on. A file of such a name that somebody else made is refused, not written to, and links are not
followed.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.common.errors import CheckpointError, InputError, WesepError
from wesep_py.common.files import hidden_name, path_exists, open_regular, write_json
from wesep_py.common.textfiles import read_json
from wesep_py.common.torchfiles import read_torch
from wesep_py.inference.result import FLOAT_SUBTYPES, split_mixture, subtype_for

if TYPE_CHECKING:
    from wesep_py.inference.voice_print import Voice


# ----------------------------------------
# Extracted voices into files, within full scale, with the rests of the mixture beside them; all of them or none.

log = logging.getLogger(__name__)
READ_S = 4.0
"""Seconds of a long recording that are read at a time."""
Scaled = Callable[[int, float], Iterator[NDArray[np.float32]]]
"""Called with the number of a voice and its gain: its blocks `[channels, samples]` at the recording's rate."""


@dataclass(frozen=True)
class ExtractionTarget:
    """A voice, and where to.

    Attributes:
        name: of the target, for messages and timelines.
        voice: from `Extractor.enroll`.
        output: the file to write.
        rest: the file for the rest of the mixture; `None` for none.
    """

    name: str
    voice: Voice
    output: Path
    rest: Path | None = None


def write_voices(
    mixture: Path,
    about: audio.AudioInfo,
    wanted: Sequence[ExtractionTarget],
    scaled: Scaled,
    gains: Sequence[float],
    overwrite: bool = False,
) -> None:
    """Write every voice times its gain (0 for silence), and its rest; the files appear, whole, when all are written.

    Args:
        mixture: the recording.
        about: what its header says.
        wanted: the voices, and where to.
        scaled: what is written of each; called again where a voice may have to be scaled down.
        gains: one a voice; lowered where the format of its file would clip.
        overwrite: replace existing files.

    Raises:
        OutputExistsError, InputError, WesepError: as `audio.AudioWriter`.
    """
    gains = list(gains)
    with ExitStack() as stack:
        writers, rests, altered = [], [], [0] * len(gains)
        for i, one in enumerate(wanted):
            writers.append(audio_writer(one.output, about, overwrite))
            rests.append(None if one.rest is None else audio_writer(one.rest, about, overwrite))
            gains[i] = _within_full_scale(scaled, i, gains[i], writers[i])
        for writer in (*writers, *rests):
            if writer is not None:
                stack.enter_context(writer)
        voices = [_Taker(scaled(i, gain), about.num_channels) for i, gain in enumerate(gains)]
        for block in audio.read_blocks(mixture, round(READ_S * about.sample_rate)):
            for i, (voice, writer, rest) in enumerate(zip(voices, writers, rests, strict=True)):
                part = voice.take(block.shape[1])
                if rest is not None:
                    part, other, count = split_mixture(block, part, writer.subtype)
                    rest.write(other)
                    altered[i] += count
                writer.write(part)
    for one, count in zip(wanted, altered, strict=True):
        if count:
            log.warning("%s: %d samples gave way to keep the rest within full scale", one.output, count)


def audio_writer(path: Path, about: audio.AudioInfo, overwrite: bool) -> audio.AudioWriter:
    """What writes a voice of a recording that was `about`; nothing is opened before its `with`.

    Raises:
        AudioError: a format that does not take the recording's rate, channels or length.
    """
    subtype = subtype_for(path, about.format, about.subtype)
    return audio.AudioWriter(path, about.sample_rate, about.num_channels, subtype, overwrite, about.num_samples)


def _within_full_scale(scaled: Scaled, voice: int, gain: float, writer: audio.AudioWriter) -> float:
    """The gain; where the format would clip, so much lower that it does not."""
    if writer.subtype in FLOAT_SUBTYPES or gain == 0.0:
        return gain
    peak = max(float(np.abs(block).max()) for block in scaled(voice, gain))
    if peak <= 1.0:
        return gain
    log.warning("%s: the voice peaks at %.2f; scaled down to full scale", writer.path, peak)
    return gain / (peak * (1 + 1e-6))


class _Taker:
    """Blocks of one length out of blocks of another; zeros where they end early."""

    def __init__(self, blocks: Iterator[NDArray[np.float32]], num_channels: int) -> None:
        self._blocks, self._rest = blocks, np.zeros((num_channels, 0), np.float32)

    def take(self, count: int) -> NDArray[np.float32]:
        parts, size = [self._rest], self._rest.shape[1]
        while size < count and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            size += block.shape[1]
        joined = np.concatenate(parts, axis=1)
        if size < count:
            joined = np.pad(joined, ((0, 0), (0, count - size)))
        taken, self._rest = joined[:, :count], joined[:, count:]
        return taken


_HEAD = struct.Struct("<4sIQ")
_MAGIC = b"WPB1"
Record = dict[str, NDArray[Any]]


def interrupted_outputs(output: Path, identity: Mapping[str, Any]) -> set[Path]:
    """The files that a run of this very job, which was killed, had begun to write: they are not finished.

    Args:
        output: as that of `Partial`.
        identity: as that of `Partial`; a journal of another recording, model or voice says nothing of this one.
    """
    journal = _read_journal(journal_path(output))
    if journal is None or journal.get("identity") != json.loads(json.dumps(identity)):
        return set()
    writing = journal.get("writing", [])
    return {Path(path) for path in writing if isinstance(path, str)} if isinstance(writing, list) else set()


def remove_stale_blocks(output: Path) -> None:
    """Remove the blocks of another job, which will not become this output any more: a new one has been written.

    Args:
        output: as that of `Partial`. What another process is at, and what is not ours, is left.
    """
    path, journal = _path_of(output), journal_path(output)
    if _read_journal(journal) is None or path.is_symlink():
        return
    try:
        with path.open("r+b") as file:
            if not _is_ours(file) or not _try_lock(file):
                return
            _remove(path)
    except FileNotFoundError:
        _remove(path)
    except OSError:  # it may lie where nothing can be removed; it is in nobody's way
        return


class BlockStore:
    """The blocks of an extraction that is not finished.

    Args:
        output: the file that it will become; it decides on the names.
        identity: what the blocks depend on, as plain values; blocks with another one are thrown away.

    Attributes:
        count: whole blocks that are there.
        discarded: the keys in which blocks that were there differ from this run; they are gone.

    Raises:
        InputError: another process is at it, or a file of this name is not of wesep.
        WesepError: the disk is full or not writable.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any]) -> None:
        self.path = _path_of(output)
        self.journal = journal_path(output)
        identity = json.loads(json.dumps(identity))
        self._identity = identity
        self.discarded = self._differing(identity)
        self.count = 0
        try:
            self._file: BinaryIO = self._open()
            self._lock()
            if self.discarded:
                self._file.truncate(0)
            self._offsets = self._whole_records()
            self.count = len(self._offsets)
            if not self.count:
                self._note()
        except InputError:
            raise
        except (OSError, WesepError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            why = getattr(cause, "strerror", None) or cause
            raise WesepError(
                f"{self.path}: cannot be written ({why}); what is done of a long recording is kept "
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
        try:
            kept = read_torch(self._state_path(self.count - 1), "the state of an extraction", allow_complex=True)
        except CheckpointError:
            return None
        return kept.get("state") if kept.get("index") == self.count - 1 else None

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
        _remove(self.path)

    def _open(self) -> BinaryIO:
        """The file of the blocks, begun or gone on with, if all that lies under its names is ours."""
        begun = path_exists(self.path)
        file = os.fdopen(open_regular(self.path, os.O_RDWR), "r+b", buffering=0)
        others = [] if _is_ours(file) else [self.path]
        if not begun and _read_journal(self.journal) is None:
            # Names that only a run of ours gives, and no such run was here.
            others = [path for path in _files_of(self.path)[1:] if path_exists(path)]
        if others:
            file.close()
            if not begun:
                self.path.unlink()
            raise InputError(f"{others[0]}: is no file of wesep, which keeps a part of its work there; move it away")
        return file

    def _note(self, **more: Any) -> None:
        write_json(self.journal, {"format": 1, "identity": self._identity, **more})

    def _differing(self, identity: Mapping[str, Any]) -> list[str]:
        if not path_exists(self.path):
            return []
        journal = _read_journal(self.journal)
        if journal is None:
            return ["journal"]
        begun = journal["identity"]
        return sorted(key for key in {*begun, *identity} if begun.get(key) != identity.get(key))

    def _lock(self) -> None:
        if not _try_lock(self._file):
            self._file.close()
            raise InputError(f"{self.path}: another process is extracting this recording; wait for it")

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
        return _files_of(self.path)[2 + index % 2]

    def _save_state(self, state: Any) -> None:
        # Before the block itself, and never over the state of the block before: whichever block turns out to be the
        # last whole one, its state is there.
        import torch

        path = self._state_path(self.count)
        path.unlink(missing_ok=True)
        with os.fdopen(open_regular(path, os.O_WRONLY | os.O_EXCL), "wb") as file:
            torch.save({"index": self.count, "state": state}, file)


def _path_of(output: Path) -> Path:
    return output.with_name(hidden_name(output.name, ".partial", len(".partial.state0"), output.parent))


def journal_path(output: Path) -> Path:
    """Where it is noted what the blocks of an output are of."""
    return _files_of(_path_of(output))[1]


def _files_of(path: Path) -> list[Path]:
    """The file of the blocks, its journal, and its states."""
    return [path.with_name(path.name + tail) for tail in ("", ".json", ".state0", ".state1")]


def _read_journal(path: Path) -> dict[str, Any] | None:
    """What the journal says; `None` where there is none, or it is damaged or not ours: then `Partial` begins anew."""
    try:
        journal = None if path.is_symlink() else read_json(path, "the journal of an extraction").values
    except InputError:
        return None
    return journal if isinstance(journal, dict) and isinstance(journal.get("identity"), dict) else None


def _is_ours(file: BinaryIO) -> bool:
    """True if the file is empty, or begins as one of blocks does."""
    file.seek(0)
    return _MAGIC.startswith(file.read(len(_MAGIC)))


def _remove(path: Path) -> None:
    files = _files_of(path)
    for file in (*files[2:], *files[:2]):  # the journal last: by it the others are known to be ours
        with suppress(FileNotFoundError):
            file.unlink()


def _try_lock(file: BinaryIO) -> bool:
    """Lock the file; false where another process has it. Without such locks, two runs at once are the user's affair."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
