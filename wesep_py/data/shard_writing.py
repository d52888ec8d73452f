"""Whether a folder of shards is what was written: by the checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from wesep_py.data.reader import STORED_FORMATS, StoredFormat, encode_utterance
from wesep_py.data.remote import StorageFolder
from wesep_py.data.shard_store import SHARD_FORMAT, SHARD_INDEX_NAME, SHARD_SUMMARY_NAME, read_shard_summary
from wesep_py.data.store import utterance_to_record
from wesep_py.data.webdataset import read_shard_utterances

# ----------------------------------------
# Which utterance goes into which shard: a function of the corpus, not of who writes the shards.

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
    digest = hashlib.sha256(json.dumps([SHARD_FORMAT, form]).encode())
    for utterance in utterances:
        status = utterance.path.stat()
        identity = [utterance_to_record(utterance, root), status.st_size, status.st_mtime_ns]
        digest.update(json.dumps(identity).encode() + b"\n")
    return ShardPlan(f"{number:06d}", tuple(utterances), form, root, digest.hexdigest())


# ----------------------------------------
# A corpus into tar shards in the webdataset layout, in parallel, each with checksums.
#
# A shard holds two files for each utterance, `KEY.flac` and `KEY.json`, where KEY is the utterance's id with all but
# letters, digits, `-`, `_` and `~` written as `%XX`. The same corpus gives the same bytes, however many processes write.
# See `shard_store` for what else stands in the folder.

OnProgress = Callable[[int, int], None]
_SHARD_FILE = re.compile(r"\d{6}\.(tar|json)")


@dataclass(frozen=True)
class ShardsResult:
    """What `write_shards` did.

    Attributes:
        num_shards: in the folder.
        num_kept: of these, whole before it began.
        num_utterances: in the folder.
        num_speakers: in the folder.
        hours: of audio in the folder.
        size: of all shards, in bytes.
        left_out: recordings that could not be read, one line each.
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
    """Write a corpus as tar shards with an index; whole shards of an interrupted run are kept.

    Recordings that cannot be read are left out, and named in the result and in `shards.json`.

    Args:
        utterances: at least one, with ids that differ.
        folder: made if need be; its parent must exist.
        root: paths below it are written relative to it.
        size_mib: about how large a shard becomes, in MiB, above 0.
        form: see `encode_utterance`.
        shuffle: spread the utterances over the shards in a fixed random order, so that each holds many speakers;
            otherwise in the order given.
        jobs: processes, at least 1; what is written does not depend on it.
        overwrite: replace the shards of another corpus.
        on_progress: called with the number of utterances done and of all.
        executor: see `corpus.processes`; what is written does not depend on it.

    Raises:
        InputError: no utterance that can be read, an id that comes twice, a folder that holds something else (also tar
            files that were not written here, whether indexed or not), or `ray` where Ray is not installed.
        OutputExistsError: the folder holds shards of another corpus, and `overwrite` is false.
        WesepError: the disk is full or not writable, or another run writes there.
    """
    check_executor(executor)
    folder = Path(folder)
    plans, left_out = plan_shards(utterances, root, size_mib, form, shuffle)
    if not plans:
        raise InputError(f"{folder}: none of the {len(utterances)} recordings can be read; the first: {left_out[0]}")
    _check_folder(folder, plans, overwrite)
    with one_run_in(folder, "writing shards"):
        return _write(folder, plans, form, left_out, jobs, overwrite, on_progress, executor)


def _write(
    folder: Path,
    plans: Sequence[ShardPlan],
    form: StoredFormat,
    left_out: Sequence[str],
    jobs: int,
    overwrite: bool,
    on_progress: OnProgress | None,
    executor: Executor,
) -> ShardsResult:
    kept = _claim(folder, plans, overwrite)
    waiting = [plan for plan in plans if plan.name not in kept]
    total = sum(len(plan.utterances) for plan in plans)
    done = total - sum(len(plan.utterances) for plan in waiting)
    for position, _ in map_processes(_WriteShard(str(folder)), waiting, jobs, executor):
        done += len(waiting[position].utterances)
        if on_progress is not None:
            on_progress(done, total)
    abouts = (json.loads((folder / f"{plan.name}.json").read_text(encoding="utf-8")) for plan in plans)
    return write_shard_index(folder, abouts, form, left_out, len(kept))


def write_shard(plan: ShardPlan, folder: Path) -> None:
    """Write one shard, and beside it a JSON that says what it holds; both whole or not at all.

    Shards depend on nothing but their plan, so any machine that sees the recordings may write them.
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
                _add(tar, f"{key}.json", json.dumps(record, ensure_ascii=False, allow_nan=False).encode())
                offset = _add(tar, key + encoded.suffix, encoded.data)
                place = {"shard": path.name, "member": key + encoded.suffix, "offset": offset}
                entries.append(record | place | {"size": len(encoded.data), "crc32": zlib.crc32(encoded.data)})
    shard = {"name": path.name, "size": writer.size, "sha256": writer.digest.hexdigest()}
    about = {"format": SHARD_FORMAT, "fingerprint": plan.fingerprint, **shard, "left_out": left_out}
    write_json(folder / f"{plan.name}.json", about | {"utterances": entries})


def member_key(utterance_id: str) -> str:
    """An utterance's id as the name of a file, without a dot: webdataset ends a key at the first.

    >>> member_key("84-121123-0000"), member_key("a.b/c")
    ('84-121123-0000', 'a%2Eb%2Fc')
    """
    return quote(utterance_id, safe="").replace(".", "%2E")


@dataclass(frozen=True)
class _WriteShard:
    folder: str

    def __call__(self, plan: ShardPlan) -> None:
        write_shard(plan, Path(self.folder))


class _HashingWriter:
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


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file; the same file is the same bytes at any time. Returns where its content begins."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _claim(folder: Path, plans: Sequence[ShardPlan], overwrite: bool) -> set[str]:
    """Make the folder ready; the names of the shards in it that are whole and as planned."""
    kept = _check_folder(folder, plans, overwrite)
    names = [name for name in visible_names(folder) if _SHARD_FILE.fullmatch(name)]
    stale = [name for name in names if Path(name).stem not in kept]
    if len(kept) < len(plans) or stale:  # until all is there, nobody is to take it for complete
        (folder / SHARD_SUMMARY_NAME).unlink(missing_ok=True)
    # A shard goes before what says that it was written here.
    for name in sorted(stale, key=lambda name: (Path(name).stem, name.endswith(".json"))):
        (folder / name).unlink(missing_ok=True)
    files = {plan.name + suffix for plan in plans for suffix in (".tar", ".json")}
    remove_temporary_files(folder, {*files, *names, SHARD_SUMMARY_NAME, SHARD_INDEX_NAME})
    return kept


def _check_folder(folder: Path, plans: Sequence[ShardPlan], overwrite: bool) -> set[str]:
    """Refuse a folder that holds what was not written here, or another corpus; as `_claim`. Nothing is changed."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    names = visible_names(folder)
    if strange := [
        n for n in names if n not in (SHARD_SUMMARY_NAME, SHARD_INDEX_NAME) and not _SHARD_FILE.fullmatch(n)
    ]:
        raise InputError(f"{folder}: holds {strange[0]!r}, which is no shard; name an empty folder")
    planned = {plan.name: plan for plan in plans}
    listed = [name for name in names if re.fullmatch(r"\d{6}\.json", name)]
    abouts = {Path(name).stem: _read_about(folder / name) for name in listed}
    if unknown := [name for name, about in abouts.items() if about is None]:
        raise InputError(f"{folder}: holds '{unknown[0]}.json', which is of no shard; name an empty folder")
    for name in (Path(name).stem for name in names if name.endswith(".tar")):
        if name not in abouts and not _is_of_plan(folder / f"{name}.tar", planned.get(name)):
            raise InputError(
                f"{folder}: holds '{name}.tar', and no '{name}.json' says that `wesep shard` wrote it; it stays: name "
                " an empty folder"
            )
    if not abouts and (listing := [name for name in names if name in (SHARD_SUMMARY_NAME, SHARD_INDEX_NAME)]):
        raise InputError(f"{folder}: holds {listing[0]!r} of something else; name an empty folder")
    kept, others = set(), False
    for name, about in abouts.items():
        if about is None or name not in planned or about["fingerprint"] != planned[name].fingerprint:
            others = True
        elif (tar := folder / f"{name}.tar").is_file() and tar.stat().st_size == about["size"]:
            kept.add(name)
    if others and not overwrite:
        raise OutputExistsError(
            f"{folder}: holds shards of another corpus, or of one that has changed; name another folder, or pass "
            "--overwrite"
        )
    return kept


def _read_about(path: Path) -> dict[str, Any] | None:
    """What `write_shard` wrote beside a shard, of whatever format version; `None` of any other file."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(about, dict) and {"format", "fingerprint", "name", "size", "sha256", "utterances"} <= about.keys()
    return about if ours and about["name"] == f"{path.stem}.tar" else None


def _is_of_plan(path: Path, plan: ShardPlan | None) -> bool:
    """Whether a tar without its JSON is what a killed run had written of a plan: nothing but its utterances."""
    if plan is None or not path.is_file():
        return False
    keys = {member_key(utterance.utterance_id) for utterance in plan.utterances}
    try:
        with tarfile.open(path, "r:") as tar:
            found = [member.name.partition(".")[0] for member in tar]
    except (tarfile.TarError, OSError, ValueError):
        return False
    return bool(found) and keys.issuperset(found)


def write_shard_index(
    folder: Path, abouts: Iterable[Mapping[str, Any]], form: str, left_out: Sequence[str] = (), num_kept: int = 0
) -> ShardsResult:
    """Write the index and, last, the summary of a folder whose shards are there.

    Args:
        folder: the folder.
        abouts: of each shard `name`, `size`, `sha256`, `left_out` and `utterances`, as `write_shard` writes them.
        form: how the audio is encoded.
        left_out: a line for each utterance that was left out before.
        num_kept: for the result.

    Raises:
        InputError: there is no utterance in them.
    """
    left_out = list(left_out)
    shards, speakers, hours, count = [], set(), 0.0, 0
    digest = hashlib.sha256()
    with atomic_path(folder / SHARD_INDEX_NAME) as temporary, temporary.open("wb") as file:
        for about in abouts:
            left_out += about["left_out"]
            shards.append({name: about[name] for name in ("name", "size", "sha256")})
            for entry in about["utterances"]:
                line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
                file.write(line)
                digest.update(line)
                speakers.add(entry["speaker_id"])
                hours += entry["num_samples"] / entry["sample_rate"] / 3600
                count += 1
        if not count:
            first = f"; the first: {left_out[0]}" if left_out else ""
            raise InputError(f"{folder}: none of the recordings can be read{first}")
    summary = {"format": SHARD_FORMAT, "audio": form, "num_utterances": count, "num_speakers": len(speakers)}
    summary |= {"index_sha256": digest.hexdigest(), "shards": shards, "left_out": left_out}
    write_json(folder / SHARD_SUMMARY_NAME, summary)
    size = sum(shard["size"] for shard in shards)
    return ShardsResult(len(shards), num_kept, count, len(speakers), hours, size, tuple(left_out))


# ----------------------------------------
# An index for shards that came without one: after one reading, any utterance of them can be reached at once.


def index_shards(
    folder: str | os.PathLike[str],
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> ShardsResult:
    """Write `index.jsonl` and `shards.json` into a folder of tar shards in the webdataset layout.

    Args:
        folder: holds `*.tar`, uncompressed; see `webdataset` for what is taken as whose utterance.
        jobs: processes, at least 1.
        overwrite: replace an index that is there.
        on_progress: called with the number of shards done and of all.

    Returns:
        What the shards hold; utterances without readable audio or a speaker are left out, and named.

    Raises:
        InputError: no tar file in the folder, or an utterance_id that comes twice.
        AudioError: a shard that is no tar file, or cut short.
        OutputExistsError: there is an index, and `overwrite` is false.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.glob("*.tar") if not is_hidden(path.name))
    if not paths:
        raise InputError(f"{folder}: holds no tar file; name a folder of shards")
    if strange := [path for path in paths if not path.is_file()]:
        raise AudioError(f"{strange[0]}: is no file; name a folder of tar files")
    if not overwrite and any((folder / name).exists() for name in (SHARD_SUMMARY_NAME, SHARD_INDEX_NAME)):
        raise OutputExistsError(f"{folder}: has an index already; pass --overwrite to replace it")
    abouts: dict[int, dict[str, Any]] = {}
    for position, about in map_processes(_Scan(), paths, jobs):
        abouts[position] = about
        if on_progress is not None:
            on_progress(len(abouts), len(paths))
    in_order = [abouts[position] for position in range(len(paths))]
    seen: dict[str, str] = {}
    for about in in_order:
        for entry in about["utterances"]:
            name = entry["utterance_id"]
            if name in seen:
                raise InputError(
                    f"{folder / entry['shard']}: utterance_id {name!r} is in {seen[name]} already; it must be unique"
                )
            seen[name] = entry["shard"]
    return write_shard_index(folder, in_order, "as it was")


@dataclass(frozen=True)
class _Scan:
    def __call__(self, path: Path) -> dict[str, Any]:
        left_out: list[str] = []
        entries = []
        with _HashingFile(path) as file:
            for item in read_shard_utterances(file, str(path), left_out.append):
                place = {"shard": path.name, "member": item.member, "offset": item.offset, "size": len(item.data)}
                facts = {"sample_rate": item.sample_rate, "num_samples": item.num_samples}
                entries.append(utterance_to_record(item.utterance) | facts | place | {"crc32": zlib.crc32(item.data)})
            if file.is_compressed:
                raise InputError(f"{path}: is compressed; unpack it by gunzip, for an index points into the tar itself")
            about = {"format": SHARD_FORMAT, "name": path.name, "size": file.size, "sha256": file.digest.hexdigest()}
        return about | {"left_out": left_out, "utterances": entries}


class _HashingFile(FileIO):
    """A file that is read once, from beginning to end, and hashed on the way."""

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


_BLOCK_BYTES = 2**20


def check_shards(folder: str | os.PathLike[str], on_progress: Callable[[int, int], None] | None = None) -> list[str]:
    """What is wrong with a folder of shards: each shard against its SHA-256, and the index against its own.

    Args:
        folder: what `write_shards` wrote, or a copy of it; a URL works too, shard by shard through memory.
        on_progress: called with the number of shards done and of all.

    Returns:
        One line for each shard that is missing, cut short or damaged; none if all is well.

    Raises:
        InputError: there is no `shards.json`, or none of this format.
    """
    files = StorageFolder(folder)
    summary = read_shard_summary(files)
    expected = {shard["name"]: (shard["size"], shard["sha256"]) for shard in summary["shards"]}
    expected[SHARD_INDEX_NAME] = (None, summary["index_sha256"])
    problems = []
    for done, (name, (size, sha256)) in enumerate(expected.items(), start=1):
        try:
            found_size, found = _digest(files, name)
        except InputError as error:
            problems.append(str(error))
        else:
            if size is not None and found_size != size:
                problems.append(f"{files.place(name)}: has {found_size} bytes; {size} were written")
            elif found != sha256:
                problems.append(f"{files.place(name)}: is damaged: its SHA-256 is not that of what was written")
        if on_progress is not None:
            on_progress(done, len(expected))
    return problems


def _digest(files: StorageFolder, name: str) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    if files.is_remote:
        data = files.read(name)
        return len(data), hashlib.sha256(data).hexdigest()
    path = Path(files.place(name))
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no file, but a folder, a device or a pipe")
    try:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return path.stat().st_size, digest.hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
