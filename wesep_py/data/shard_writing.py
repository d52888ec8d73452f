"""Writing shards: a corpus as tar files in the webdataset layout, with checksums and an index.

- `write_shards`: write a corpus, in parallel. It plans the shards (`plan_shards`), writes each (`write_shard`), and
  last the index and the summary (`write_shard_index`).
- `index_shards`: write an index for shards of other programs.
- `check_shards`: compare a folder of shards with its checksums.

A shard holds two files for each utterance, `KEY.json` and `KEY.flac`, where KEY is the utterance's id with all but
letters, digits, `-`, `_` and `~` written as `%XX`. The same corpus gives the same bytes for any number of processes.
The other files of the folder are described in `shard_store`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from wesep_py.audio.reading import AudioInfo, info
from wesep_py.common.errors import AudioError, InputError, OutputExistsError
from wesep_py.common.files import atomic_path, write_json
from wesep_py.common.folders import one_run_in, remove_temporary_files, visible_names
from wesep_py.common.names import is_hidden
from wesep_py.common.processes import Executor, check_executor, map_processes, stopped
from wesep_py.data.manifest import Utterance, check_unique
from wesep_py.data.reader import STORED_FORMATS, OnProgress, StoredFormat, encode_utterance
from wesep_py.data.remote import StorageFolder
from wesep_py.data.shard_store import SHARD_FORMAT, SHARD_INDEX_NAME, SHARD_SUMMARY_NAME, read_shard_summary
from wesep_py.data.store import utterance_to_record
from wesep_py.data.webdataset import read_shard_utterances

_SHARD_FILE = re.compile(r"\d{6}\.(tar|json)")
_SHARD_JSON = re.compile(r"\d{6}\.json")


@dataclass(frozen=True)
class ShardsResult:
    """Summary of a folder of shards that was written.

    Attributes:
        num_shards: shards in the folder.
        num_kept: those of them that were complete before.
        num_utterances: utterances in the folder.
        num_speakers: speakers in the folder.
        hours: hours of audio in the folder.
        size: size of all shards in bytes.
        left_out: a line for each recording that could not be read.
    """

    num_shards: int
    num_kept: int
    num_utterances: int
    num_speakers: int
    hours: float
    size: int
    left_out: tuple[str, ...]


def write_shards(
    utterances: Sequence[Utterance],
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    size_mib: float = 256,
    form: StoredFormat = "flac",
    shuffle: bool = True,
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    executor: Executor = "local",
) -> ShardsResult:
    """Write a corpus as tar shards with an index; complete shards of an interrupted run are kept.

    Recordings that cannot be read are left out, and named in the result and in `shards.json`.

    Args:
        utterances: at least one, with ids that differ.
        folder: created if it does not exist; its parent must exist.
        root: paths below it are written relative to it.
        size_mib: approximate size of a shard in MiB, above 0.
        form: encoding of the audio; see `encode_utterance`.
        shuffle: spread the utterances over the shards in a fixed random order, so that each holds many speakers;
            otherwise keep the given order.
        jobs: number of processes, at least 1; the written files do not depend on it.
        overwrite: replace the shards of another corpus.
        on_progress: called with the number of utterances done and the total number.
        executor: see `wesep_py.common.processes`; the written files do not depend on it.

    Raises:
        InputError: no utterance can be read, an id is used twice, the folder holds other files (also tar files that
            were not written here, with or without an index), or `executor` is `ray` and Ray is not installed.
        OutputExistsError: the folder holds shards of another corpus, and `overwrite` is false.
        WesepError: the disk is full or not writable, or another run is writing to the folder.
    """
    check_executor(executor)
    folder = Path(folder)
    plans, left_out = plan_shards(utterances, root, size_mib, form, shuffle)
    if not plans:
        raise InputError(f"{folder}: none of the {len(utterances)} recordings can be read; the first: {left_out[0]}")
    _check_folder(folder, plans, overwrite)
    with one_run_in(folder, "writing shards"):
        complete_names = _prepare_folder(folder, plans, overwrite)
        remaining = [plan for plan in plans if plan.name not in complete_names]
        num_utterances = sum(len(plan.utterances) for plan in plans)
        num_done = num_utterances - sum(len(plan.utterances) for plan in remaining)
        for position, _ in map_processes(_ShardWriter(str(folder)), remaining, jobs, executor):
            num_done += len(remaining[position].utterances)
            if on_progress is not None:
                on_progress(num_done, num_utterances)
        descriptions = (json.loads((folder / f"{plan.name}.json").read_text(encoding="utf-8")) for plan in plans)
        return write_shard_index(folder, descriptions, form, left_out, len(complete_names))


# Planning: which utterance goes into which shard, as a function of the corpus alone.

_SAMPLE_BYTES = {"PCM_S8": 2, "PCM_U8": 2, "PCM_16": 2, "PCM_24": 3}
# Approximate size of speech in FLAC, relative to wav.
_FLAC_SHARE = 0.6
# Approximate size of headers, padding and JSON of one utterance.
_TAR_BYTES = 2048


@dataclass(frozen=True)
class ShardPlan:
    """The content of one shard.

    Attributes:
        name: `000000` and so on.
        utterances: at least one.
        form: encoding of the audio.
        root: paths below it are written relative to it.
        fingerprint: hash of the content and of the files; a shard with the same fingerprint is not written again.
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
    """Distribute utterances over shards, by the sizes in the headers of their recordings.

    Returns:
        The plans of the shards, and a line for each utterance whose recording cannot be read.

    Raises:
        InputError: no utterance, an id that is used twice, or an impossible size or form.
    """
    if not utterances:
        raise InputError("there is no utterance to put into shards")
    if not size_mib > 0:
        raise InputError(f"size_mib: is {size_mib}; MiB above 0 are needed")
    if form not in STORED_FORMATS:
        raise InputError(f"format: is {form!r}; {', '.join(STORED_FORMATS)} are allowed")
    check_unique(utterances)
    if shuffle:
        # Sorted first, so that the shards do not depend on the order in which the utterances are given.
        by_id = sorted(utterances, key=lambda utterance: utterance.utterance_id)
        utterances = [by_id[n] for n in np.random.default_rng(0).permutation(len(by_id))]
    plans: list[ShardPlan] = []
    left_out: list[str] = []
    current: list[Utterance] = []
    current_bytes = 0.0
    base = None if root is None else os.fspath(root)
    with ThreadPoolExecutor(threads) as pool:
        for utterance, audio in zip(utterances, pool.map(_read_header, utterances), strict=True):
            if isinstance(audio, str):
                left_out.append(audio)
                continue
            expected_bytes = _expected_bytes(utterance, audio, form)
            if current and current_bytes + expected_bytes > size_mib * 2**20:
                plans.append(_plan_of(len(plans), current, form, base))
                current, current_bytes = [], 0.0
            current.append(utterance)
            current_bytes += expected_bytes
    if current:
        plans.append(_plan_of(len(plans), current, form, base))
    return plans, left_out


def _read_header(utterance: Utterance) -> AudioInfo | str:
    """Return the facts in the header of a recording, or the reason why it cannot be read."""
    try:
        return info(utterance.path)
    except AudioError as error:
        return str(error)


def _expected_bytes(utterance: Utterance, audio: AudioInfo, form: StoredFormat) -> float:
    """Estimate the size of an utterance in a shard. Floating point and decoded lossy audio need 4 bytes per sample."""
    num_samples = utterance.duration_s * utterance.speed * audio.sample_rate
    if form == "opus-as-is" and audio.subtype not in _SAMPLE_BYTES and audio.format in ("OGG", "MP3"):
        return _TAR_BYTES + utterance.path.stat().st_size
    width = _SAMPLE_BYTES.get(audio.subtype)
    return _TAR_BYTES + num_samples * (4 if width is None else width if form == "wav" else width * _FLAC_SHARE)


def _plan_of(number: int, utterances: list[Utterance], form: StoredFormat, root: str | None) -> ShardPlan:
    digest = hashlib.sha256(json.dumps([SHARD_FORMAT, form]).encode())
    for utterance in utterances:
        status = utterance.path.stat()
        identity = [utterance_to_record(utterance, root), status.st_size, status.st_mtime_ns]
        digest.update(json.dumps(identity).encode() + b"\n")
    return ShardPlan(f"{number:06d}", tuple(utterances), form, root, digest.hexdigest())


# Writing one shard.


def write_shard(plan: ShardPlan, folder: Path) -> None:
    """Write one shard, and next to it a JSON file that describes it; each appears complete or not at all.

    A shard depends on its plan alone, so any machine that can read the recordings may write it.
    """
    entries: list[dict[str, Any]] = []
    left_out: list[str] = []
    path = folder / f"{plan.name}.tar"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = _HashingWriter(file)
        with tarfile.open(fileobj=writer, mode="w", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for utterance in plan.utterances:
                if stopped():
                    raise KeyboardInterrupt
                try:
                    encoded = encode_utterance(utterance, plan.form)
                except AudioError as error:
                    left_out.append(str(error))
                    continue
                key = member_key(utterance.utterance_id)
                facts = {"sample_rate": encoded.sample_rate, "num_samples": encoded.num_samples}
                record = utterance_to_record(utterance, plan.root) | facts
                _add_member(tar, f"{key}.json", json.dumps(record, ensure_ascii=False, allow_nan=False).encode())
                offset = _add_member(tar, key + encoded.suffix, encoded.data)
                position = {"shard": path.name, "member": key + encoded.suffix, "offset": offset}
                entries.append(record | position | {"size": len(encoded.data), "crc32": zlib.crc32(encoded.data)})
    shard = {"name": path.name, "size": writer.size, "sha256": writer.digest.hexdigest()}
    description = {"format": SHARD_FORMAT, "fingerprint": plan.fingerprint, **shard, "left_out": left_out}
    write_json(folder / f"{plan.name}.json", description | {"utterances": entries})


def member_key(utterance_id: str) -> str:
    """Return the file name of an utterance in a shard. It has no dot: webdataset ends a key at the first one.

    >>> member_key("84-121123-0000"), member_key("a.b/c")
    ('84-121123-0000', 'a%2Eb%2Fc')
    """
    return quote(utterance_id, safe="").replace(".", "%2E")


@dataclass(frozen=True)
class _ShardWriter:
    """`write_shard` for a folder, as a callable that can be sent to other processes."""

    folder: str

    def __call__(self, plan: ShardPlan) -> None:
        write_shard(plan, Path(self.folder))


class _HashingWriter:
    """A file to write to; hashes and counts the bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file to a tar file, and return the byte at which its content begins. Its header has no time or owner."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))
    # The content fills whole blocks of 512 bytes, rounded up, and the tar file's position is now behind them:
    #
    #   | header | content … padding |
    #            ↑ returned          ↑ tar.offset
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


# The folder: what is complete, what is replaced, and what is refused.


def _prepare_folder(folder: Path, plans: Sequence[ShardPlan], overwrite: bool) -> set[str]:
    """Remove outdated files, and return the names of the shards that are complete and as planned."""
    complete_names = _check_folder(folder, plans, overwrite)
    names = [name for name in visible_names(folder) if _SHARD_FILE.fullmatch(name)]
    outdated = [name for name in names if Path(name).stem not in complete_names]
    if len(complete_names) < len(plans) or outdated:  # until all shards are there, the folder must not look complete
        (folder / SHARD_SUMMARY_NAME).unlink(missing_ok=True)
    # A shard is removed before the JSON that says that it was written here: if this run is killed between the two, the
    # next run still recognises the rest.
    for name in sorted(outdated, key=lambda name: (Path(name).stem, name.endswith(".json"))):
        (folder / name).unlink(missing_ok=True)
    files = {plan.name + suffix for plan in plans for suffix in (".tar", ".json")}
    remove_temporary_files(folder, {*files, *names, SHARD_SUMMARY_NAME, SHARD_INDEX_NAME})
    return complete_names


def _check_folder(folder: Path, plans: Sequence[ShardPlan], overwrite: bool) -> set[str]:
    """Return the names of complete shards. Refuse a folder with other files, or with another corpus; change nothing."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    names = visible_names(folder)
    listings = [name for name in names if name in (SHARD_SUMMARY_NAME, SHARD_INDEX_NAME)]
    if foreign := [name for name in names if name not in listings and not _SHARD_FILE.fullmatch(name)]:
        raise InputError(f"{folder}: holds {foreign[0]!r}, which is not a shard; name an empty folder")
    planned = {plan.name: plan for plan in plans}
    descriptions = {Path(name).stem: _read_description(folder / name) for name in names if _SHARD_JSON.fullmatch(name)}
    if unknown := [name for name, description in descriptions.items() if description is None]:
        raise InputError(f"{folder}: holds '{unknown[0]}.json', which does not describe a shard; name an empty folder")
    for name in (Path(name).stem for name in names if name.endswith(".tar")):
        if name not in descriptions and not _is_of_plan(folder / f"{name}.tar", planned.get(name)):
            raise InputError(
                f"{folder}: holds '{name}.tar', and no '{name}.json' says that `wesep shard` wrote it; it is not "
                "replaced: name an empty folder"
            )
    if not descriptions and listings:
        raise InputError(f"{folder}: holds {listings[0]!r} of another program; name an empty folder")
    complete_names, has_other_shards = set(), False
    for name, description in descriptions.items():
        if description is None or name not in planned or description["fingerprint"] != planned[name].fingerprint:
            has_other_shards = True
        elif (tar := folder / f"{name}.tar").is_file() and tar.stat().st_size == description["size"]:
            complete_names.add(name)
    if has_other_shards and not overwrite:
        raise OutputExistsError(
            f"{folder}: holds shards of another corpus, or of one that has changed; name another folder, or pass "
            "--overwrite"
        )
    return complete_names


def _read_description(path: Path) -> dict[str, Any] | None:
    """Read the JSON that `write_shard` wrote next to a shard, of any format version; `None` for any other file."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    keys = {"format", "fingerprint", "name", "size", "sha256", "utterances"}
    is_ours = isinstance(description, dict) and keys <= description.keys()
    return description if is_ours and description["name"] == f"{path.stem}.tar" else None


def _is_of_plan(path: Path, plan: ShardPlan | None) -> bool:
    """Return whether a tar file without its JSON holds nothing but utterances of a plan: a killed run left it."""
    if plan is None or not path.is_file():
        return False
    planned_keys = {member_key(utterance.utterance_id) for utterance in plan.utterances}
    try:
        with tarfile.open(path, "r:") as tar:
            keys = [member.name.partition(".")[0] for member in tar]
    except (tarfile.TarError, OSError, ValueError):
        return False
    return bool(keys) and planned_keys.issuperset(keys)


def write_shard_index(
    folder: Path, descriptions: Iterable[Mapping[str, Any]], form: str, left_out: Sequence[str] = (), num_kept: int = 0
) -> ShardsResult:
    """Write the index and then the summary of a folder whose shards are complete.

    Args:
        folder: the folder.
        descriptions: for each shard `name`, `size`, `sha256`, `left_out` and `utterances`, as `write_shard` writes.
        form: encoding of the audio.
        left_out: a line for each utterance that was left out before.
        num_kept: number of shards that were complete before, for the result.

    Raises:
        InputError: the descriptions contain no utterance.
    """
    left_out = list(left_out)
    shards, speakers, hours, num_utterances = [], set(), 0.0, 0
    digest = hashlib.sha256()
    with atomic_path(folder / SHARD_INDEX_NAME) as temporary, temporary.open("wb") as file:
        for description in descriptions:
            left_out += description["left_out"]
            shards.append({name: description[name] for name in ("name", "size", "sha256")})
            for entry in description["utterances"]:
                line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
                file.write(line)
                digest.update(line)
                speakers.add(entry["speaker_id"])
                hours += entry["num_samples"] / entry["sample_rate"] / 3600
                num_utterances += 1
        if not num_utterances:
            first = f"; the first: {left_out[0]}" if left_out else ""
            raise InputError(f"{folder}: none of the recordings can be read{first}")
    summary = {
        "format": SHARD_FORMAT,
        "audio": form,
        "num_utterances": num_utterances,
        "num_speakers": len(speakers),
        "index_sha256": digest.hexdigest(),
        "shards": shards,
        "left_out": left_out,
    }
    write_json(folder / SHARD_SUMMARY_NAME, summary)
    size = sum(shard["size"] for shard in shards)
    return ShardsResult(len(shards), num_kept, num_utterances, len(speakers), hours, size, tuple(left_out))


# An index for shards of other programs: after one reading, any utterance of them can be read at once.


def index_shards(
    folder: str | os.PathLike[str],
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> ShardsResult:
    """Write `index.jsonl` and `shards.json` into a folder of tar shards in the webdataset layout.

    Args:
        folder: holds `*.tar`, uncompressed; `webdataset` describes how utterances and speakers are recognised.
        jobs: number of processes, at least 1.
        overwrite: replace an existing index.
        on_progress: called with the number of shards done and the total number.

    Returns:
        A summary of the shards. Utterances without readable audio or a speaker are left out, and named.

    Raises:
        InputError: the folder has no tar file, or an utterance_id is used twice.
        AudioError: a shard is not a tar file, or is cut short.
        OutputExistsError: there is an index, and `overwrite` is false.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.glob("*.tar") if not is_hidden(path.name))
    if not paths:
        raise InputError(f"{folder}: holds no tar file; name a folder of shards")
    if irregular := [path for path in paths if not path.is_file()]:
        raise AudioError(f"{irregular[0]}: is not a file; name a folder of tar files")
    if not overwrite and any((folder / name).exists() for name in (SHARD_SUMMARY_NAME, SHARD_INDEX_NAME)):
        raise OutputExistsError(f"{folder}: has an index already; pass --overwrite to replace it")
    descriptions: dict[int, dict[str, Any]] = {}
    for position, description in map_processes(_ShardScanner(), paths, jobs):
        descriptions[position] = description
        if on_progress is not None:
            on_progress(len(descriptions), len(paths))
    in_order = [descriptions[position] for position in range(len(paths))]
    shard_of_utterance: dict[str, str] = {}
    for description in in_order:
        for entry in description["utterances"]:
            utterance_id = entry["utterance_id"]
            if utterance_id in shard_of_utterance:
                raise InputError(
                    f"{folder / entry['shard']}: utterance_id {utterance_id!r} is in "
                    f"{shard_of_utterance[utterance_id]} already; it must be unique"
                )
            shard_of_utterance[utterance_id] = entry["shard"]
    return write_shard_index(folder, in_order, "as it was")


@dataclass(frozen=True)
class _ShardScanner:
    """Describes a shard as `write_shard` does, as a callable that can be sent to other processes."""

    def __call__(self, path: Path) -> dict[str, Any]:
        left_out: list[str] = []
        entries = []
        with _HashingFile(path) as file:
            for item in read_shard_utterances(file, str(path), left_out.append):
                position = {"shard": path.name, "member": item.member, "offset": item.offset, "size": len(item.data)}
                facts = {"sample_rate": item.sample_rate, "num_samples": item.num_samples}
                record = utterance_to_record(item.utterance) | facts | position
                entries.append(record | {"crc32": zlib.crc32(item.data)})
            if file.is_compressed:
                raise InputError(f"{path}: is compressed; unpack it by gunzip, for an index points into the tar itself")
            shard = {"format": SHARD_FORMAT, "name": path.name, "size": file.size, "sha256": file.digest.hexdigest()}
        return shard | {"left_out": left_out, "utterances": entries}


class _HashingFile(FileIO):
    """A file that is read once from its beginning to its end; hashes and counts the bytes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.digest = hashlib.sha256()
        self.size = 0
        self.is_compressed = False

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        data = memoryview(buffer)[:count]
        if self.size == 0:
            self.is_compressed = bytes(data[:2]) == b"\x1f\x8b"
        self.digest.update(data)
        self.size += count
        return count


# Checking a folder of shards.

_READ_BYTES = 2**20


def check_shards(folder: str | os.PathLike[str], on_progress: OnProgress | None = None) -> list[str]:
    """Compare every shard of a folder, and its index, with their SHA-256, and return what is wrong.

    Args:
        folder: what `write_shards` wrote, or a copy of it; a URL works too, one shard at a time in memory.
        on_progress: called with the number of shards done and the total number.

    Returns:
        One line for each shard that is missing, cut short or damaged; empty if all are correct.

    Raises:
        InputError: there is no `shards.json` of this format.
    """
    files = StorageFolder(folder)
    summary = read_shard_summary(files)
    expected = {shard["name"]: (shard["size"], shard["sha256"]) for shard in summary["shards"]}
    expected[SHARD_INDEX_NAME] = (None, summary["index_sha256"])
    problems = []
    for done, (name, (expected_size, expected_sha256)) in enumerate(expected.items(), start=1):
        try:
            size, sha256 = _size_and_sha256(files, name)
        except InputError as error:
            problems.append(str(error))
        else:
            if expected_size is not None and size != expected_size:
                problems.append(f"{files.place(name)}: has {size} bytes; {expected_size} were written")
            elif sha256 != expected_sha256:
                problems.append(f"{files.place(name)}: is damaged: its SHA-256 is not that of what was written")
        if on_progress is not None:
            on_progress(done, len(expected))
    return problems


def _size_and_sha256(files: StorageFolder, name: str) -> tuple[int, str]:
    if files.is_remote:
        data = files.read(name)
        return len(data), hashlib.sha256(data).hexdigest()
    path = Path(files.place(name))
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a file but a folder, a device or a pipe")
    try:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                digest.update(data)
        return path.stat().st_size, digest.hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
