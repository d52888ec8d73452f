"""Files of one folder, on this machine or behind a URL, whole or by ranges of bytes."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

from wesep_py.common.errors import AudioError, InputError

# More shards than this are closed and opened again: a process may have only so many files open.
MAX_OPEN_FILES = 32


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location is for fsspec (`s3://bucket/shards`), not a path.

    >>> is_url("https://host/shards"), is_url("data/shards")
    (True, False)
    """
    text = os.fspath(location)
    return "://" in text or "::" in text


def open_url(url: str) -> BinaryIO:
    """A file behind a URL, to be read from its beginning.

    Raises:
        InputError: fsspec, or what it needs for this kind of URL, is not installed.
        AudioError: the file cannot be opened.
    """
    system, path = _file_system(url)
    try:
        return system.open(path, "rb")
    except Exception as error:  # the errors of fsspec's backends have no class in common
        raise AudioError(f"{url}: cannot be read ({_reason(error)})") from error


class StorageFolder:
    """Reads files of a folder. What it opens belongs to the process that opened it; a copy of it opens anew.

    Args:
        location: a path, or any URL that fsspec opens; credentials and the like are fsspec's own configuration.

    Raises:
        InputError: a URL, and fsspec, or what it needs for this kind of URL, is not installed.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.fspath(location)
        self.is_remote = is_url(location)
        self._forget()
        if self.is_remote:
            self._remote("")

    def place(self, name: str) -> str:
        """The full name of one of the files."""
        return f"{self.location.rstrip('/')}/{name}" if self.is_remote else str(Path(self.location) / name)

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            InputError: it is not there, or cannot be read.
        """
        try:
            if not self.is_remote:
                return self._regular(name).read_bytes()
            system, path = self._remote(name)
            return bytes(system.cat_file(path))
        except Exception as error:  # the errors of fsspec's backends have no class in common
            raise InputError(f"{self.place(name)}: cannot be read ({_reason(error)})") from error

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """The bytes from `start` to `start + size` of a file.

        Raises:
            AudioError: the file cannot be read, or ends before, or its server knows no ranges.
        """
        try:
            if self.is_remote:
                system, path = self._remote(name)
                data = bytes(system.cat_file(path, start=start, end=start + size))
            else:
                file = self._file(name)
                file.seek(start)
                data = file.read(size)
        except Exception as error:
            raise AudioError(f"{self.place(name)}: cannot be read ({_reason(error)})") from error
        if len(data) > size:
            raise AudioError(
                f"{self.place(name)}: its server sends whole files only, not ranges of bytes; copy the shards to this "
                "machine, or give another server"
            )
        if len(data) < size:
            raise AudioError(
                f"{self.place(name)}: is cut short: bytes {start} to {start + size} were to be read and the file ends "
                "before; get a whole copy of it"
            )
        return data

    def _file(self, name: str) -> BinaryIO:
        self._own()
        if name in self._files:
            self._files.move_to_end(name)
            return self._files[name]
        file = self._regular(name).open("rb")
        self._files[name] = file
        if len(self._files) > MAX_OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return file

    def _regular(self, name: str) -> Path:
        """A file of this machine; a device or a pipe would be read without end."""
        path = Path(self.location) / name
        if path.exists() and not path.is_file():
            raise OSError("it is no file, but a folder, a device or a pipe")
        return path

    def _remote(self, name: str) -> tuple[Any, str]:
        self._own()
        if self._system is None:
            self._system, self._path = _file_system(self.location)
        return self._system, f"{self._path.rstrip('/')}/{name}"

    def _own(self) -> None:
        """Leave what another process opened: after a fork, both would move one position in one file."""
        if self._pid != os.getpid():
            self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._system: Any = None
        self._path = ""

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "is_remote": self.is_remote}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def _file_system(url: str) -> tuple[Any, str]:
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise InputError(
            f"{url}: needs fsspec and its part for this kind of URL ({error}); pip install fsspec, "
            "with s3fs for s3://, gcsfs for gs://, aiohttp for http(s)://"
        ) from error
    except ValueError as error:
        raise InputError(f"{url}: is no URL that fsspec opens ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
