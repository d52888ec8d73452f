"""What `--enroll` and `--enroll-like` say: the voices that are wanted. Knows nothing of models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.names import printable

VOICE_SUFFIX = ".voice"
LONGEST_NAME = 100
"""Bytes of a target's name, which becomes part of a file's."""
LONGEST_FILE_NAME = 255
"""Bytes of a file's name, on every usual file system."""


@dataclass
class Target:
    """One person to extract.

    Attributes:
        name: as given by `NAME=FILE`, else the first file's stem.
        named: whether the user gave the name.
        files: recordings of the voice; or one voice print.
        like: a voice print; of several voices in a recording the one that is nearest to it is meant.
    """

    name: str
    named: bool
    files: list[Path] = field(default_factory=list)
    like: Path | None = None

    @property
    def voice_print(self) -> Path | None:
        """The voice print, where one was given instead of recordings."""
        return next((file for file in self.files if file.suffix.lower() == VOICE_SUFFIX), None)


@dataclass(frozen=True)
class Job:
    """One recording, one target, one file to write."""

    mixture: Path
    target: Target
    output: Path
    rest: Path | None = None


def parse_targets(
    enrollments: Sequence[str], prints: Sequence[str] = (), bad: list[tuple[Target, Exception]] | None = None
) -> list[Target]:
    """The targets that `--enroll FILE`, `--enroll NAME=FILE`, … ask for, in order of first mention.

    Files without a name, and files under the same name, are all of one voice. A file may be a recording, a
    folder of recordings or a voice print.

    Args:
        enrollments: what `--enroll` was given.
        prints: what `--enroll-like` was given: `PRINT` or `NAME=PRINT`.
        bad: gets the targets whose name cannot be part of a file's, with the reason; without it they are an error. The
            others are found all the same.

    Raises:
        InputError: none given; some files with a name and some without; a voice print and something else for
            one voice; a print to choose by that does not fit the enrollments.
        AudioError: a file that does not exist, a folder without recordings.
    """
    if not enrollments:
        raise InputError("no enrollment was given; add --enroll FILE with a recording of the voice")
    targets: dict[str | None, Target] = {}
    left_out: set[str | None] = set()
    for text in enrollments:
        try:
            name, path = _split(text)
        except InputError as error:
            if bad is None or not text.partition("=")[1]:
                raise
            name = text.partition("=")[0]
            if name not in left_out:
                bad.append((Target(name, True), error))
            left_out.add(name)
            continue
        if targets and (name is None) != (None in targets):
            raise InputError(f"--enroll {text}: give every file a NAME=, or none (then all are one voice)")
        files = enrollment_files(path)
        targets.setdefault(name, Target(name or default_name(path), name is not None)).files.extend(files)
    for target in targets.values():
        require_alone(target)
    for text in prints:
        if text.partition("=")[0] not in left_out:
            _add_print(text, targets)
    return list(targets.values())


def require_alone(target: Target) -> None:
    """Refuse a voice print beside something else.

    Raises:
        InputError: there is one.
    """
    if target.voice_print is not None and len(target.files) > 1:
        raise InputError(
            f"{target.voice_print}: is a voice print, and stands alone; "
            "to join recordings, give them all to `wesep enroll`"
        )


def _add_print(text: str, targets: dict[str | None, Target]) -> None:
    """What `--enroll-like` says, entered at its target."""
    name, path = _split(text, "--enroll-like")
    if name not in targets:
        names = ", ".join(f"{known}={path}" for known in targets if known is not None)
        wanted = f"with a name of --enroll: {names}" if names else f"without a name: {path}"
        raise InputError(f"--enroll-like {text}: give it {wanted}")
    target = targets[name]
    if target.voice_print is not None:
        raise InputError(f"--enroll-like {text}: {target.voice_print} is one voice; the option is for recordings")
    if target.like is not None:
        raise InputError(f"--enroll-like {text}: {target.like} was given already; one print a voice is allowed")
    if path.suffix.lower() != VOICE_SUFFIX:
        raise InputError(f"--enroll-like {text}: a voice print (NAME.voice) is needed; `wesep enroll` makes one")
    target.like = path


def enrollment_files(path: Path) -> list[Path]:
    """The file itself, also where a stretch of it is meant (`FILE@12.3-17.8`), or the recordings in a folder.

    Raises:
        AudioError: it does not exist, or is a folder without recordings.
        InputError: a stretch that ends before it begins.
    """
    from wesep_py.inference import audio_files, segment_of

    if path.is_dir():
        return audio_files(path)
    stretch = segment_of(path)
    if not (path if stretch is None else Path(stretch.path)).is_file():
        raise AudioError(f"{path}: no such file; an enrollment is a recording, a folder of them or a voice print")
    return [path]


def _split(text: str, option: str = "--enroll") -> tuple[str | None, Path]:
    """`NAME=FILE` or `FILE`; a path that exists is a path even if it holds an `=`."""
    name, equals, path = text.partition("=")
    if not equals or _is_there(text):
        return None, Path(text)
    if not name or not path or not _is_name(name):
        given = text if len(text) <= 2 * LONGEST_NAME else f"{text[:LONGEST_NAME]}…"
        raise InputError(
            f"{option} {printable(given)}: FILE or NAME=FILE is needed, NAME without a slash and of at most "
            f"{LONGEST_NAME} bytes"
        )
    return name, Path(path)


def check_target_name(name: str) -> None:
    """Refuse a target's name that cannot be part of a file's.

    Raises:
        InputError: it is too long, or holds a slash or a character that cannot be printed.
    """
    if not _is_name(name):
        short = printable(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…")
        raise InputError(
            f"the name {short!r} becomes part of a file's; give one without a slash and of at most {LONGEST_NAME} bytes"
        )


def check_file_name(path: Path) -> None:
    """Refuse a file that no file system can hold, by its name.

    Raises:
        InputError: the name is too long, or holds a NUL.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: no file has a name with a NUL in it; give another")
    if (size := len(os.fsencode(path.name))) > LONGEST_FILE_NAME:
        raise InputError(
            f"{path.name[:LONGEST_NAME]}…: a file's name has at most {LONGEST_FILE_NAME} bytes, and this {size}; give "
            "a shorter one"
        )


def _is_name(name: str) -> bool:
    fits = len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME
    return fits and not any(sign in "/\\\x7f" or sign < " " for sign in name)


def file_of(path: Path) -> Path:
    """The file itself, of which `path` may name a stretch."""
    from wesep_py.inference import segment_of

    stretch = segment_of(path)
    return path if stretch is None else Path(stretch.path)


def default_name(path: Path) -> str:
    """Return what a target without a name is called, after its first file; a stretch of it does not count.

    >>> default_name(Path("enr.wav@0.2-2.5"))
    'enr'
    """
    return file_of(path).stem


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or with a NUL
        return False
