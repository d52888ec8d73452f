"""Take named files out of an archive that somebody else made: tar.gz, zip, or a wheel.

Nothing is unpacked but the files that are asked for. Each is written under a name of ours, so no path in the archive
counts; it has to be an ordinary file, and may not be larger than is allowed.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wesep_py.common.errors import InputError, WesepError, shorten
from wesep_py.common.names import listing
from wesep_py.models.downloading import check_free_space, in_mib

MAX_MEMBER_BYTES = 4 * 2**30
"""Largest file that is taken out of an archive."""
MAX_ARCHIVE_BYTES = 16 * 2**30
"""Largest sum of the sizes of all files in an archive."""
MAX_MEMBERS = 100_000
BLOCK_BYTES = 2**20

SUFFIXES = {".tar.gz": "tar.gz", ".tgz": "tar.gz", ".zip": "zip", ".whl": "zip"}
"""Formats by the ends of file names."""


def archive_format(path: Path) -> str | None:
    """Return the format of an archive by its name; `None` if it is none."""
    return next((kind for suffix, kind in SUFFIXES.items() if path.name.lower().endswith(suffix)), None)


def read_members(archive: Path, kind: str, wanted: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Write files of an archive into a folder.

    Args:
        archive: the file.
        kind: `tar.gz` or `zip`.
        wanted: for each role the path in the archive. A path may have further folders before it in the archive, as
            long as one file only ends in it.
        folder: the folder to write into, which exists.

    Returns:
        For each role the written file: `folder/ROLE` + the suffix of the path.

    Raises:
        InputError: the archive is damaged, lacks a file, has it twice, or as a link; a file is too large.
        WesepError: the disk is full.
    """
    with _naming_damage(archive):
        return (_read_tar if kind == "tar.gz" else _read_zip)(archive, wanted, folder)


def _read_tar(archive: Path, wanted: Mapping[str, str], folder: Path) -> dict[str, Path]:
    written: dict[str, tuple[str, Path]] = {}
    names: list[str] = []
    total = 0
    with tarfile.open(archive, "r:gz") as file:
        for member in file:
            total += member.size
            names.append(member.name)
            _check_sizes(archive, len(names), total)
            for role in _roles_of(member.name, wanted, archive, written):
                if not member.isreg():
                    raise InputError(f"{archive}: {shorten(member.name)} is a link or a device, not a file")
                source = file.extractfile(member)
                assert source is not None  # it is a regular file
                with source:
                    written[role] = member.name, _write(source, member.size, archive, wanted[role], role, folder)
    return _complete(archive, wanted, written, names)


def _read_zip(archive: Path, wanted: Mapping[str, str], folder: Path) -> dict[str, Path]:
    written: dict[str, tuple[str, Path]] = {}
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        _check_sizes(archive, len(members), sum(member.file_size for member in members))
        for member in members:
            for role in _roles_of(member.filename, wanted, archive, written):
                is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
                if member.is_dir() or is_link:
                    raise InputError(f"{archive}: {shorten(member.filename)} is a link or a folder, not a file")
                if member.flag_bits & 1:
                    raise InputError(f"{archive}: {shorten(member.filename)} is encrypted; unpack it, then use --from")
                with file.open(member) as source:
                    written[role] = (
                        member.filename,
                        _write(source, member.file_size, archive, wanted[role], role, folder),
                    )
    return _complete(archive, wanted, written, [member.filename for member in members])


def _roles_of(
    name: str, wanted: Mapping[str, str], archive: Path, written: Mapping[str, tuple[str, Path]]
) -> Iterator[str]:
    """Yield the roles of a file in an archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for role, path in wanted.items():
        needed = path.split("/")
        if parts[-len(needed) :] != needed:
            continue
        if ".." in parts or name.startswith("/"):
            raise InputError(f"{archive}: {shorten(name)} leads out of the archive; nothing of it is used")
        if role in written:
            raise InputError(f"{archive}: holds {shorten(written[role][0])} and {shorten(name)}; which is {role}?")
        yield role


def _write(source: IO[bytes], size: int, archive: Path, path: str, role: str, folder: Path) -> Path:
    if size > MAX_MEMBER_BYTES:
        raise InputError(f"{archive}: {path} has {in_mib(size)}; at most {in_mib(MAX_MEMBER_BYTES)} are allowed")
    check_free_space(folder, size, path)
    target = folder / f"{role}{Path(path).suffix}"
    left = size
    try:
        with target.open("wb") as file:
            while block := source.read(BLOCK_BYTES):
                left -= len(block)
                if left < 0:
                    raise InputError(f"{archive}: {path} is larger than the archive says; get a whole copy of it")
                file.write(block)
    except OSError as error:
        if isinstance(error, tarfile.TarError) or error.errno is None:
            raise
        raise WesepError(f"{target}: writing failed ({error.strerror or error}); make room there") from error
    if left:
        raise EOFError(f"{path} is cut short")
    return target


def _check_sizes(archive: Path, count: int, total: int) -> None:
    if count > MAX_MEMBERS or total > MAX_ARCHIVE_BYTES:
        raise InputError(
            f"{archive}: holds more than {MAX_MEMBERS} files, or more than {in_mib(MAX_ARCHIVE_BYTES)}; it is not read"
        )


def _complete(
    archive: Path, wanted: Mapping[str, str], written: Mapping[str, tuple[str, Path]], names: list[str]
) -> dict[str, Path]:
    if missing := [path for role, path in wanted.items() if role not in written]:
        raise InputError(f"{archive}: holds no {missing[0]}; it holds {listing(sorted(names)) or 'nothing'}")
    return {role: path for role, (_, path) in written.items()}


@contextmanager
def _naming_damage(archive: Path) -> Iterator[None]:
    """Turn the errors of a damaged archive into one line."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        if isinstance(error, (WesepError, FileNotFoundError, PermissionError)):
            raise
        raise InputError(f"{archive}: is no whole archive ({shorten(error, 100)}); get another copy of it") from error
