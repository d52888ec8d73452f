"""A corpus into tar shards in the webdataset layout, in parallel, each with checksums.

A shard holds two files for each utterance, `KEY.flac` and `KEY.json`, where KEY is the utterance's id with all but
letters, digits, `-`, `_` and `~` written as `%XX`. The same corpus gives the same bytes, however many processes write.
See `shard_store` for what else stands in the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from wesep_py.corpus.encoded import StoredFormat, encode_utterance
from wesep_py.corpus.processes import Executor, check_executor, map_processes, stopped
from wesep_py.corpus.shard_plan import ShardPlan, plan_shards
from wesep_py.corpus.shard_store import FORMAT, INDEX_NAME, SUMMARY_NAME
from wesep_py.corpus.store import to_record
from wesep_py.corpus.utterance import Utterance
from wesep_py.corpus.writing import clear_left_behind, one_run_in, visible
from wesep_py.errors import AudioError, InputError, OutputExistsError
from wesep_py.files import atomic_path, write_json

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
    return finish(folder, abouts, form, left_out, len(kept))


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
                record = to_record(utterance, plan.root) | facts
                _add(tar, f"{key}.json", json.dumps(record, ensure_ascii=False, allow_nan=False).encode())
                offset = _add(tar, key + encoded.suffix, encoded.data)
                place = {"shard": path.name, "member": key + encoded.suffix, "offset": offset}
                entries.append(record | place | {"size": len(encoded.data), "crc32": zlib.crc32(encoded.data)})
    shard = {"name": path.name, "size": writer.size, "sha256": writer.digest.hexdigest()}
    about = {"format": FORMAT, "fingerprint": plan.fingerprint, **shard, "left_out": left_out}
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
    names = [name for name in visible(folder) if _SHARD_FILE.fullmatch(name)]
    stale = [name for name in names if Path(name).stem not in kept]
    if len(kept) < len(plans) or stale:  # until all is there, nobody is to take it for complete
        (folder / SUMMARY_NAME).unlink(missing_ok=True)
    # A shard goes before what says that it was written here.
    for name in sorted(stale, key=lambda name: (Path(name).stem, name.endswith(".json"))):
        (folder / name).unlink(missing_ok=True)
    files = {plan.name + suffix for plan in plans for suffix in (".tar", ".json")}
    clear_left_behind(folder, {*files, *names, SUMMARY_NAME, INDEX_NAME})
    return kept


def _check_folder(folder: Path, plans: Sequence[ShardPlan], overwrite: bool) -> set[str]:
    """Refuse a folder that holds what was not written here, or another corpus; as `_claim`. Nothing is changed."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; name a folder")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    names = visible(folder)
    if strange := [n for n in names if n not in (SUMMARY_NAME, INDEX_NAME) and not _SHARD_FILE.fullmatch(n)]:
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
    if not abouts and (listing := [name for name in names if name in (SUMMARY_NAME, INDEX_NAME)]):
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


def finish(
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
    with atomic_path(folder / INDEX_NAME) as temporary, temporary.open("wb") as file:
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
    summary = {"format": FORMAT, "audio": form, "num_utterances": count, "num_speakers": len(speakers)}
    summary |= {"index_sha256": digest.hexdigest(), "shards": shards, "left_out": left_out}
    write_json(folder / SUMMARY_NAME, summary)
    size = sum(shard["size"] for shard in shards)
    return ShardsResult(len(shards), num_kept, count, len(speakers), hours, size, tuple(left_out))
