"""Which utterance goes into which shard: a function of the corpus, not of who writes the shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from wesep_py.audio.files import AudioInfo, info
from wesep_py.corpus.encoded import STORED_FORMATS, StoredFormat
from wesep_py.corpus.manifest import check_unique
from wesep_py.corpus.shard_store import FORMAT
from wesep_py.corpus.store import to_record
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import AudioError, InputError

_BYTES = {"PCM_S8": 2, "PCM_U8": 2, "PCM_16": 2, "PCM_24": 3}
# About what FLAC leaves of speech.
_FLAC_SHARE = 0.6
_TAR_BYTES = 2048  # headers, padding and JSON of one utterance


@dataclass(frozen=True)
class ShardPlan:
    """What goes into one shard.

    Attributes:
        name: `000000` and so on.
        utterances: at least one.
        form: how they are encoded.
        root: paths below it are written relative to it.
        fingerprint: of all that and of the files: a shard that has it need not be written again.
    """

    name: str
    utterances: tuple[Utterance, ...]
    form: StoredFormat
    root: str | None
    fingerprint: str


def plan_shards(
    utterances: Sequence[Utterance],
    root: str | os.PathLike[str] | None = None,
    size_mib: float = 256,
    form: StoredFormat = "flac",
    shuffle: bool = True,
    threads: int = 8,
) -> tuple[list[ShardPlan], list[str]]:
    """Which utterance goes into which shard, by the headers of the recordings.

    Returns:
        The shards to write, and a line for each utterance whose recording cannot be read.

    Raises:
        InputError: no utterance, an id that comes twice, or an impossible size or form.
    """
    if not utterances:
        raise InputError("there is no utterance to put into shards")
    if not size_mib > 0:
        raise InputError(f"size_mib: is {size_mib}; MiB above 0 are needed")
    if form not in STORED_FORMATS:
        raise InputError(f"format: is {form!r}; {', '.join(STORED_FORMATS)} are allowed")
    check_unique(utterances)
    if shuffle:
        in_order = sorted(utterances, key=lambda utterance: utterance.utterance_id)
        utterances = [in_order[n] for n in np.random.default_rng(0).permutation(len(in_order))]
    plans: list[ShardPlan] = []
    left_out: list[str] = []
    some: list[Utterance] = []
    size = 0.0
    base = None if root is None else os.fspath(root)
    with ThreadPoolExecutor(threads) as pool:
        for utterance, found in zip(utterances, pool.map(_header, utterances), strict=True):
            if isinstance(found, str):
                left_out.append(found)
                continue
            expected = _expected_bytes(utterance, found, form)
            if some and size + expected > size_mib * 2**20:
                plans.append(_plan(len(plans), some, form, base))
                some, size = [], 0.0
            some.append(utterance)
            size += expected
    if some:
        plans.append(_plan(len(plans), some, form, base))
    return plans, left_out


def _header(utterance: Utterance) -> AudioInfo | str:
    try:
        return info(utterance.path)
    except AudioError as error:
        return str(error)


def _expected_bytes(utterance: Utterance, found: AudioInfo, form: StoredFormat) -> float:
    samples = utterance.duration_s * utterance.speed * found.sample_rate
    if form == "opus-as-is" and found.subtype not in _BYTES and found.format in ("OGG", "MP3"):
        return _TAR_BYTES + utterance.path.stat().st_size
    width = _BYTES.get(found.subtype)
    return _TAR_BYTES + samples * (4 if width is None else width if form == "wav" else width * _FLAC_SHARE)


def _plan(number: int, utterances: list[Utterance], form: StoredFormat, root: str | None) -> ShardPlan:
    digest = hashlib.sha256(json.dumps([FORMAT, form]).encode())
    for utterance in utterances:
        status = utterance.path.stat()
        identity = [to_record(utterance, root), status.st_size, status.st_mtime_ns]
        digest.update(json.dumps(identity).encode() + b"\n")
    return ShardPlan(f"{number:06d}", tuple(utterances), form, root, digest.hexdigest())
