"""Files of one folder, on this machine or behind a URL, read whole or by ranges of bytes."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

from wesep_py.common.errors import AudioError, InputError

# Beyond this number, the file that was used longest ago is closed: a process may keep only a limited number open.
MAX_OPEN_FILES = 32


def is_url(location: str | os.PathLike[str]) -> bool:
    """Return whether a location is for fsspec (`s3://bucket/shards`), not a path.

    >>> is_url("https://host/shards"), is_url("data/shards")
    (True, False)
    """
    text = os.fspath(location)
    return "://" in text or "::" in text


def open_url(url: str) -> BinaryIO:
    """Open the file behind a URL for reading from its beginning.

    Raises:
        InputError: fsspec, or its extension for this kind of URL, is not installed.
        AudioError: the file cannot be opened.
    """
    system, path = _file_system(url)
    try:
        return system.open(path, "rb")
    except Exception as error:  # the errors of fsspec's backends have no class in common
        raise AudioError(f"{url}: cannot be read ({_one_line(error)})") from error


class StorageFolder:
    """Reads the files of a folder. Open files belong to one process; a copy in another process opens them anew.

    Args:
        location: a path, or any URL that fsspec opens. Credentials and other options are fsspec's own configuration.

    Raises:
        InputError: the location is a URL, and fsspec, or its extension for this kind of URL, is not installed.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.fspath(location)
        self.is_remote = is_url(location)
        self._reset()
        if self.is_remote:
            self._remote_path("")

    def place(self, name: str) -> str:
        """Return the full path or URL of one of the files."""
        return f"{self.location.rstrip('/')}/{name}" if self.is_remote else str(Path(self.location) / name)

    def read(self, name: str) -> bytes:
        """Read a whole file.

        Raises:
            InputError: the file does not exist or cannot be read.
        """
        try:
            if not self.is_remote:
                return self._regular_file(name).read_bytes()
            system, path = self._remote_path(name)
            return bytes(system.cat_file(path))
        except Exception as error:  # the errors of fsspec's backends have no class in common
            raise InputError(f"{self.place(name)}: cannot be read ({_one_line(error)})") from error

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """Read the bytes from `start` to `start + size` of a file.

        Raises:
            AudioError: the file cannot be read or ends before, or its server does not serve ranges.
        """
        try:
            if self.is_remote:
                system, path = self._remote_path(name)
                data = bytes(system.cat_file(path, start=start, end=start + size))
            else:
                file = self._open_file(name)
                file.seek(start)
                data = file.read(size)
        except Exception as error:
            raise AudioError(f"{self.place(name)}: cannot be read ({_one_line(error)})") from error
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

    def _open_file(self, name: str) -> BinaryIO:
        """Return an open local file; the ones used last stay open."""
        self._check_process()
        if name in self._files:
            self._files.move_to_end(name)
            return self._files[name]
        file = self._regular_file(name).open("rb")
        self._files[name] = file
        if len(self._files) > MAX_OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return file

    def _regular_file(self, name: str) -> Path:
        """Return the path of a local file, and refuse devices and pipes, which would be read without end."""
        path = Path(self.location) / name
        if path.exists() and not path.is_file():
            raise OSError("it is not a file but a folder, a device or a pipe")
        return path

    def _remote_path(self, name: str) -> tuple[Any, str]:
        self._check_process()
        if self._system is None:
            self._system, self._path = _file_system(self.location)
        return self._system, f"{self._path.rstrip('/')}/{name}"

    def _check_process(self) -> None:
        """Drop what another process opened: after a fork, both would move one read position in one file."""
        if self._pid != os.getpid():
            self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._system: Any = None
        self._path = ""

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "is_remote": self.is_remote}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()


def _file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise InputError(
            f"{url}: needs fsspec and its part for this kind of URL ({error}); pip install fsspec, "
            "with s3fs for s3://, gcsfs for gs://, aiohttp for http(s)://"
        ) from error
    except ValueError as error:
        raise InputError(f"{url}: is not a URL that fsspec opens ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
