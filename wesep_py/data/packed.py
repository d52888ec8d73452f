"""Packed corpora: all utterances decoded once into one memory-mapped file, so that training does not decode.

The folder holds

    samples-<fingerprint>.int16   little-endian samples of all utterances, one after the other
    index.json                    for each utterance: offset, length, exponent; written last

    samples:   | utterance A      | utterance B   | utterance C …
               0                  ↑ offset of B   ↑ offset of B + length of B        (counted in samples, 2 bytes each)

`index.json` names the file of samples and gives the reason for each recording that could not be read (`left_out`). The
fingerprint covers what was packed: ids, paths, start times, durations and speeds; sizes and modification times of the
files; and the sample rate. So a file that was repaired is packed by the next run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.files import atomic_path, write_json
from wesep_py.common.folders import visible_names
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import COUNT, check_schema, read_json
from wesep_py.data.manifest import Utterance, check_unique
from wesep_py.data.reader import OnProgress, Quantised, check_span, load_utterance

logger = logging.getLogger(__name__)

PACK_FORMAT = 1
PACK_INDEX_NAME = "index.json"
_SAMPLES_NAME = re.compile(r"samples-[0-9a-f]{16}\.int16")
_INDEX_SCHEMA = {
    "format": COUNT,
    "fingerprint": str,
    "sample_rate": range(1, 10**7),
    "samples": str,
    "num_samples": COUNT,
    "utterances": dict,
    "left_out?": {...: str},
}


class PackedReader:
    """Reads a folder that `pack` wrote. Returns the same samples as a `FileReader` of the same rate.

    A reader can be sent to other processes; all share one memory map.

    Args:
        folder: the folder that `pack` wrote.

    Attributes:
        left_out: by utterance id, the reason why it could not be packed.

    Raises:
        InputError: the folder holds no packed corpus, or one of another format version, or is incomplete.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        index = read_pack_index(self._folder)
        if index is None:
            raise InputError(f"{self._folder}: holds no packed corpus of format {PACK_FORMAT}; pack the corpus again")
        self._sample_rate: int = index["sample_rate"]
        self._samples_path = self._folder / index["samples"]
        self._spans: dict[str, tuple[int, int, int]] = {
            canonical(utterance_id): (offset, length, exponent)
            for utterance_id, (offset, length, exponent) in index["utterances"].items()
        }
        self.left_out: dict[str, str] = {
            canonical(utterance_id): reason for utterance_id, reason in index.get("left_out", {}).items()
        }
        self._samples: NDArray[np.int16] | None = None

    @property
    def sample_rate(self) -> int:
        """Sample rate of all returned audio, in Hz."""
        return self._sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return the samples from `start` to `stop` of an utterance, float32 `[samples]`; a new array each time.

        Args:
            utterance: one that was packed; it is looked up by its id.
            start: first sample, counted from the beginning of the utterance.
            stop: the sample to stop before; `None` for the end.

        Raises:
            AudioError: the recording could not be read when the corpus was packed.
            InputError: the utterance was not packed, or the positions are not inside it.
        """
        offset, length, exponent = self._span(utterance)
        start, stop = check_span(utterance, length, start, stop)
        if self._samples is None:
            self._samples = np.memmap(self._samples_path, dtype="<i2", mode="r")
        return Quantised(self._samples[offset + start : offset + stop], exponent).waveform()

    def length(self, utterance: Utterance) -> int:
        """Return the number of samples of an utterance at the reader's rate."""
        return self._span(utterance)[1]

    def _span(self, utterance: Utterance) -> tuple[int, int, int]:
        """Return offset and length in samples, and exponent, of an utterance."""
        try:
            return self._spans[utterance.utterance_id]
        except KeyError:
            if reason := self.left_out.get(utterance.utterance_id):
                raise AudioError(reason) from None
            raise InputError(
                f"{self._folder}: utterance {utterance.utterance_id!r} was not packed; pack the corpus again"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        # Each process maps the file itself: pickling the map would copy all samples.
        return {**self.__dict__, "_samples": None}


def pack(
    utterances: Sequence[Utterance],
    folder: str | os.PathLike[str],
    sample_rate: int,
    threads: int = 1,
    on_progress: OnProgress | None = None,
) -> PackedReader:
    """Decode utterances into a folder, and return a reader of it. Nothing is done if they are packed there already.

    Recordings that cannot be read are left out, logged and counted; the reader raises an error for them. A folder that
    holds another packed corpus is replaced, with a warning. Two processes may pack into one folder at the same time.

    Args:
        utterances: at least one, with ids that differ.
        folder: created if it does not exist; its parent must exist. 2 bytes per sample: 110 MiB per hour at 16 kHz.
        sample_rate: sample rate of the packed audio in Hz.
        threads: number of files that are decoded at once, at least 1.
        on_progress: called with the number of utterances done and the total number.

    Raises:
        AudioError: no recording can be read; nothing is changed.
        InputError: no utterance, an id that is used twice, or a folder that holds other files.
        WesepError: the disk is full or not writable.
    """
    folder = Path(folder)
    if not utterances:
        raise InputError(f"{folder}: there is no utterance to pack")
    check_unique(utterances)
    _prepare_folder(folder)
    fingerprint = pack_fingerprint(utterances, sample_rate)
    index = read_pack_index(folder)
    if index is not None and index["fingerprint"] == fingerprint:
        return _open_packed(folder, len(utterances))
    if index is not None:
        logger.warning("%s: holds another corpus, or files have changed; it is packed again and replaced", folder)
    # The name of the samples contains the fingerprint, so readers of the former pack are not disturbed.
    samples_name = f"samples-{fingerprint[:16]}.int16"
    spans: dict[str, tuple[int, int, int]] = {}
    left_out: dict[str, str] = {}
    offset = 0

    def load(utterance: Utterance) -> Quantised | AudioError:
        try:
            return load_utterance(utterance, sample_rate)
        except AudioError as error:
            return error

    with (
        atomic_path(folder / samples_name) as temporary,
        temporary.open("wb") as file,
        ThreadPoolExecutor(threads) as pool,
    ):
        # A few at a time, so that decoded audio does not pile up while the disk is slow.
        batch_size = 16 * threads
        for first in range(0, len(utterances), batch_size):
            batch = utterances[first : first + batch_size]
            for utterance, loaded in zip(batch, pool.map(load, batch), strict=True):
                if isinstance(loaded, AudioError):
                    left_out[utterance.utterance_id] = str(loaded)
                    logger.warning("left out of %s (%d so far): %s", folder, len(left_out), loaded)
                else:
                    file.write(loaded.samples.astype("<i2", copy=False).tobytes())
                    spans[utterance.utterance_id] = (offset, loaded.samples.size, loaded.exponent)
                    offset += loaded.samples.size
                if on_progress is not None:
                    on_progress(len(spans) + len(left_out), len(utterances))
        if not spans:
            raise AudioError(f"{folder}: none of {len(utterances)} recordings can be read; the last: {loaded}")
    write_json(
        folder / PACK_INDEX_NAME,
        {
            "format": PACK_FORMAT,
            "fingerprint": fingerprint,
            "sample_rate": sample_rate,
            "samples": samples_name,
            "num_samples": offset,
            "utterances": spans,
            "left_out": left_out,
        },
    )
    if index is not None and index["samples"] != samples_name:
        with suppress(FileNotFoundError):  # another process that packs the same may have removed it
            (folder / index["samples"]).unlink()
    return PackedReader(folder)


def _open_packed(folder: Path, num_utterances: int) -> PackedReader:
    reader = PackedReader(folder)
    if reader.left_out:
        first = next(iter(reader.left_out.values()))
        logger.warning(
            "%s: %d of %d recordings could not be read and are not in it; the first: %s",
            folder, len(reader.left_out), num_utterances, first,
        )  # fmt: skip
    return reader


def pack_fingerprint(utterances: Sequence[Utterance], sample_rate: int) -> str:
    """Return the hash by which a packed corpus is recognised: of ids, paths, times, speeds, files and sample rate."""
    digest = hashlib.sha256(json.dumps([PACK_FORMAT, sample_rate]).encode())
    for utterance in utterances:
        try:
            status = utterance.path.stat()
            file_facts = [status.st_size, status.st_mtime_ns]
        except OSError:
            file_facts = [None, None]
        # The speed is left out where it is 1: so folders that were packed before there were speeds are recognised.
        identity = [
            utterance.utterance_id, os.fspath(utterance.path), utterance.start_s, utterance.duration_s,
            *file_facts, *([] if utterance.speed == 1 else [utterance.speed]),
        ]  # fmt: skip
        digest.update(json.dumps(identity).encode() + b"\n")
    return digest.hexdigest()


def read_pack_index(folder: Path) -> dict[str, Any] | None:
    """Return the index of a packed corpus that is complete and of this format, or `None`."""
    try:
        index = dict(read_json(folder / PACK_INDEX_NAME, "the index of a packed corpus").values)
        check_schema(index, _INDEX_SCHEMA, str(folder / PACK_INDEX_NAME))
        size = (folder / index["samples"]).stat().st_size
    except (InputError, OSError):
        return None
    is_complete = size == 2 * index["num_samples"]
    if index["format"] != PACK_FORMAT or not _SAMPLES_NAME.fullmatch(index["samples"]) or not is_complete:
        return None
    return index if _spans_fit(index) else None


def _spans_fit(index: dict[str, Any]) -> bool:
    """Return whether every utterance lies within the samples, so that a damaged index never reads beyond them."""
    try:
        spans = np.array(list(index["utterances"].values()))
    except ValueError:  # lists of several lengths
        return False
    if spans.ndim != 2 or spans.shape[1] != 3 or spans.dtype != np.int64:
        return False
    offsets, lengths, exponents = spans.T
    ends = offsets + lengths
    return bool(
        ((offsets >= 0) & (lengths >= 0) & (ends <= index["num_samples"]) & (np.abs(exponents) < 1000)).all()
        and (ends >= offsets).all()  # the sum of two large numbers may have wrapped around
    )


def _is_pack_index(path: Path) -> bool:
    """Return whether a file is the index of a packed corpus, of any format version, complete or not."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(index, dict) and {"format", "fingerprint", "samples"} <= index.keys()


def _prepare_folder(folder: Path) -> None:
    """Create the folder, or check that it holds nothing but a packed corpus."""
    if folder.is_dir():
        names = visible_names(folder)
        pack_names = [name for name in names if name == PACK_INDEX_NAME or _SAMPLES_NAME.fullmatch(name)]
        if names != pack_names:
            foreign = next(name for name in names if name not in pack_names)
            raise InputError(
                f"{folder}: holds {foreign!r}, which does not belong to a packed corpus; name an empty folder"
            )
        if PACK_INDEX_NAME in names and not _is_pack_index(folder / PACK_INDEX_NAME):
            raise InputError(f"{folder / PACK_INDEX_NAME}: does not belong to a packed corpus; name an empty folder")
        return
    try:
        folder.mkdir()
    except FileNotFoundError as error:
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first") from error
    except FileExistsError as error:
        if not folder.is_dir():  # a folder here was made by another process that packs the same
            raise InputError(f"{folder}: is a file; name a folder") from error
