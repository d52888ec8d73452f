"""A bank of rooms as one file: an uncompressed tar of what its folder holds, whose samples are read where they lie."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from wesep_py.errors import InputError
from wesep_py.files import atomic_path

SUFFIX = ".tar"


class Place(NamedTuple):
    """Where bytes lie: in which file, from which byte on, how many."""

    file: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def find_in_tar(path: Path) -> dict[str, Place]:
    """Where the files of a tar lie, by their names without folders; those that reach beyond its end are left out.

    Raises:
        InputError: it is no tar, or a compressed one.
    """
    size = path.stat().st_size
    found = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                if member.isreg() and member.offset_data + member.size <= size:
                    place = Place(path, member.offset_data, member.size)
                    found[PurePosixPath(member.name).name] = place
    except tarfile.ReadError as error:
        if not found:
            raise InputError(f"{path}: is cut short, or no uncompressed tar ({error}); make the bank anew") from error
    return found


def write_tar(folder: Path, names: tuple[str, ...], path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Files of a folder as a tar, whole or not at all; its bytes are a function of theirs alone.

    Args:
        folder: holds them.
        names: in the order in which they are to stand.
        path: the tar.
        overwrite: whether it may be there already.

    Raises:
        OutputExistsError, WesepError: as `files.atomic_path`.
    """
    with atomic_path(path, overwrite) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            about = tarfile.TarInfo(name)
            about.size = (folder / name).stat().st_size
            with (folder / name).open("rb") as file:
                tar.addfile(about, file)
