"""Where the files of a list are: paths as they are written, in another spelling, or of a data set that has moved."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from wesep_py.errors import InputError
from wesep_py.names import spellings

logger = logging.getLogger(__name__)

_SEPARATORS = re.compile(r"[\\/]+")
_DRIVE = re.compile(r"[A-Za-z]:")


def is_file(path: Path) -> bool:
    """True if a path is a file; also of names that no file can have (too long, or with a NUL) it is told."""
    return os.path.isfile(path)  # noqa: PTH113


class Places:
    """Finds the files that a list names.

    A path is taken as it is written, from the root on. Where nothing is there it is tried in the other spelling of its
    letters (NFC, NFD). Of an absolute path, or one of Windows, its end is then looked for under the root, the longest
    that is there: the data set has moved. The log says so, once for a list.

    Args:
        root: the folder that relative paths start from.
        what: the list, for messages.
        moved: whether ends of paths are looked for.
        say: whether the log says so.
    """

    def __init__(
        self, root: str | os.PathLike[str], what: str | os.PathLike[str], moved: bool = True, say: bool = True
    ) -> None:
        self.root = Path(root)
        self._what = os.fspath(what)
        self._moved, self._say = moved, say
        self._taken: dict[Path, tuple[str, ...]] = {}
        self._steps: dict[tuple[Path, str], Path | None] = {}

    def find(self, text: str, is_there: Callable[[Path], bool] = is_file) -> Path:
        """Return the path of a file that the list names; where it is nowhere, as it is written.

        Args:
            text: what the list says.
            is_there: tells whether a path is the one; by default, whether it is a file.

        Raises:
            InputError: two files of the list would be the same one under the root.
        """
        written = self.root / text
        is_elsewhere = Path(text).is_absolute() or "\\" in text or bool(_DRIVE.match(text))
        if (text.isascii() and not is_elsewhere) or is_there(written):
            return written
        if not is_elsewhere:
            return self._descend(self.root, Path(text).parts, is_there) or written
        if Path(text).is_absolute() and (spelled := self._descend(Path("/"), Path(text).parts[1:], is_there)):
            return spelled
        parts = tuple(part for part in _SEPARATORS.split(_DRIVE.sub("", text, count=1)) if part not in ("", "."))
        if not (text.startswith(("/", "\\")) or _DRIVE.match(text)) and (
            found := self._descend(self.root, parts, is_there)
        ):
            return found  # a relative path of Windows
        if not self._moved:
            return written
        for first in range(len(parts)):
            tail = parts[first:]
            if ".." in tail and (first or Path(text).is_absolute()):
                continue
            if found := self._descend(self.root, tail, is_there):
                self._take(found, parts, text)
                return found
        return written

    def _descend(self, folder: Path, parts: tuple[str, ...], is_there: Callable[[Path], bool]) -> Path | None:
        """The path below a folder, each part in whichever spelling is there."""
        for part in parts[:-1]:
            key = folder, part
            if key not in self._steps:
                forms = (folder / form for form in spellings(part))
                self._steps[key] = next((form for form in forms if os.path.isdir(form)), None)  # noqa: PTH112
            if (step := self._steps[key]) is None:
                return None
            folder = step
        return next((path for form in spellings(parts[-1]) if is_there(path := folder / form)), None) if parts else None

    def _take(self, found: Path, parts: tuple[str, ...], text: str) -> None:
        if not self._taken and self._say:
            logger.warning(
                "%s: %s is not there, and is taken from %s; so are further paths of a data set that has moved",
                self._what,
                text,
                found,
            )
        other = self._taken.setdefault(found, parts)
        if other != parts:
            raise InputError(
                f"{self._what}: {'/'.join(other)} and {'/'.join(parts)} would both be {found}, which has moved; name "
                "with --root the folder that holds both"
            )
