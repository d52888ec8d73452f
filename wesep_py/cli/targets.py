"""Parse `--enroll`, `--enroll-like` and `--enroll-not` into targets, without a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wesep_py.common.errors import AudioError, InputError
from wesep_py.common.names import printable

VOICE_SUFFIX = ".voice"
LONGEST_NAME = 100
"""Maximum bytes of the name of a target, which becomes part of a file name."""
LONGEST_FILE_NAME = 255
"""Maximum bytes of a file name on every usual file system."""


@dataclass
class Target:
    """One person to extract.

    Attributes:
        name: from `NAME=FILE`, otherwise the stem of the first file.
        named: whether the user gave the name.
        files: recordings of the voice, or one voice print.
        like: a voice print that selects the most similar of several voices in a recording.
        negatives: recordings of persons who are not meant.
    """

    name: str
    named: bool
    files: list[Path] = field(default_factory=list)
    like: Path | None = None
    negatives: list[Path] = field(default_factory=list)

    @property
    def inputs(self) -> list[Path]:
        """Return all files that are read for the voice."""
        return [*self.files, *([self.like] if self.like else []), *self.negatives]

    @property
    def voice_print(self) -> Path | None:
        """Return the voice print if one was given instead of recordings."""
        return next((file for file in self.files if file.suffix.lower() == VOICE_SUFFIX), None)


@dataclass(frozen=True)
class Job:
    """One recording, one target, one file to write."""

    mixture: Path
    target: Target
    output: Path
    rest: Path | None = None


def parse_targets(
    enrollments: Sequence[str],
    prints: Sequence[str] = (),
    bad: list[tuple[Target, Exception]] | None = None,
    negatives: Sequence[str] = (),
) -> list[Target]:
    """Return the targets of `--enroll FILE`, `--enroll NAME=FILE`, …, in order of first mention.

    Files without a name are of one voice, and so are files under the same name. A file may be a recording, a folder of
    recordings or a voice print.

    Args:
        enrollments: values of `--enroll`.
        prints: values of `--enroll-like`: `PRINT` or `NAME=PRINT`.
        bad: receives the targets whose name cannot be part of a file name, with the reason, while the others are
            returned; `None` makes them an error.
        negatives: values of `--enroll-not`: `FILE`, for all targets, or `NAME=FILE`.

    Raises:
        InputError: no enrollment; some files with a name and some without; a voice print and other files for one voice;
            a print of `--enroll-like`, or a file of `--enroll-not`, that does not belong to an enrollment.
        AudioError: a file that does not exist, or a folder without recordings.
    """
    if not enrollments:
        raise InputError(
            "no enrollment was given; add --enroll FILE with a recording of the voice, or mark a segment in which it "
            "speaks alone: --enroll meeting.wav@0:12-0:18 (`wesep find meeting.wav` suggests some)"
        )
    targets: dict[str | None, Target] = {}
    bad_names: set[str | None] = set()
    for text in enrollments:
        try:
            name, path = _split(text)
        except InputError as error:
            if bad is None or not text.partition("=")[1]:
                raise
            name = text.partition("=")[0]
            if name not in bad_names:
                bad.append((Target(name, True), error))
            bad_names.add(name)
            continue
        if targets and (name is None) != (None in targets):
            raise InputError(f"--enroll {text}: give every file a NAME=, or none (then all are one voice)")
        files = enrollment_files(path)
        targets.setdefault(name, Target(name or default_name(path), name is not None)).files.extend(files)
    for target in targets.values():
        require_alone(target)
    for text in prints:
        if text.partition("=")[0] not in bad_names:
            _add_print(text, targets)
    for text in negatives:
        if text.partition("=")[0] not in bad_names:
            _add_negative(text, targets)
    return list(targets.values())


def require_alone(target: Target) -> None:
    """Check that a voice print is the only file of its target.

    Raises:
        InputError: there are other files.
    """
    if target.voice_print is not None and len(target.files) > 1:
        raise InputError(
            f"{target.voice_print}: is a voice print, which cannot be joined with other files; "
            "to join recordings, give them all to `wesep enroll`"
        )


def _add_print(text: str, targets: dict[str | None, Target]) -> None:
    """Enter a value of `--enroll-like` at its target."""
    name, path = _split(text, "--enroll-like")
    if name not in targets:
        names = ", ".join(f"{target_name}={path}" for target_name in targets if target_name is not None)
        allowed = f"with a name of --enroll: {names}" if names else f"without a name: {path}"
        raise InputError(f"--enroll-like {text}: give it {allowed}")
    target = targets[name]
    if target.voice_print is not None:
        raise InputError(f"--enroll-like {text}: {target.voice_print} is one voice; the option is for recordings")
    if target.like is not None:
        raise InputError(f"--enroll-like {text}: {target.like} was given already; one print per voice is allowed")
    if path.suffix.lower() != VOICE_SUFFIX:
        raise InputError(f"--enroll-like {text}: a voice print (NAME.voice) is needed; `wesep enroll` makes one")
    target.like = path


def _add_negative(text: str, targets: dict[str | None, Target]) -> None:
    """Enter a value of `--enroll-not` at its target, or at all targets."""
    name, path = _split(text, "--enroll-not")
    if name is not None and name not in targets:
        names = ", ".join(f"{target_name}={path}" for target_name in targets if target_name is not None)
        allowed = f"{names}, or {path} for all" if names else f"it without a name: {path}"
        raise InputError(f"--enroll-not {text}: no --enroll has this name; give {allowed}")
    if path.suffix.lower() == VOICE_SUFFIX:
        raise InputError(f"--enroll-not {text}: is a voice print; recordings of the person who is not meant are needed")
    files = enrollment_files(path)
    for target in targets.values() if name is None else [targets[name]]:
        target.negatives.extend(files)


def enrollment_files(path: Path) -> list[Path]:
    """Return the file itself (also for a segment, `FILE@12.3-17.8`), or the recordings in a folder.

    Raises:
        AudioError: the file does not exist, or the folder holds no recordings.
        InputError: the segment ends before it begins.
    """
    from wesep_py.inference import audio_files, segment_of

    if path.is_dir():
        return audio_files(path)
    segment = segment_of(path)
    if not (path if segment is None else Path(segment.path)).is_file():
        raise AudioError(f"{path}: no such file; an enrollment is a recording, a folder of them or a voice print")
    return [path]


def _split(text: str, option: str = "--enroll") -> tuple[str | None, Path]:
    """Split `NAME=FILE` or `FILE`; an existing path may contain `=`."""
    name, equals, path = text.partition("=")
    if not equals or _exists(text):
        return None, Path(text)
    if not name or not path or not _is_name(name):
        shown = text if len(text) <= 2 * LONGEST_NAME else f"{text[:LONGEST_NAME]}…"
        raise InputError(
            f"{option} {printable(shown)}: FILE or NAME=FILE is needed, NAME without a slash and of at most "
            f"{LONGEST_NAME} bytes"
        )
    return name, Path(path)


def check_target_name(name: str) -> None:
    """Check that the name of a target can be part of a file name.

    Raises:
        InputError: the name is too long, or holds a slash or an unprintable character.
    """
    if not _is_name(name):
        short = printable(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…")
        raise InputError(
            f"the name {short!r} becomes part of a file name; give one without a slash, of at most {LONGEST_NAME} bytes"
        )


def check_file_name(path: Path) -> None:
    """Check that a file system can hold a file of this name.

    Raises:
        InputError: the name is too long or holds a NUL.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: a file name cannot contain NUL; give another")
    if (size := len(os.fsencode(path.name))) > LONGEST_FILE_NAME:
        raise InputError(
            f"{path.name[:LONGEST_NAME]}…: a file name has at most {LONGEST_FILE_NAME} bytes, and this one {size}; "
            "give a shorter one"
        )


def _is_name(name: str) -> bool:
    fits = len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME
    return fits and not any(sign in "/\\\x7f" or sign < " " for sign in name)


def file_of(path: Path) -> Path:
    """Return the file itself; `path` may name a segment of it."""
    from wesep_py.inference import segment_of

    segment = segment_of(path)
    return path if segment is None else Path(segment.path)


def default_name(path: Path) -> str:
    """Return what a target without a name is called, after its first file; a stretch of it does not count.

    >>> default_name(Path("enr.wav@0.2-2.5"))
    'enr'
    """
    return file_of(path).stem


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or it contains NUL
        return False
