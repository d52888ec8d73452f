"""Exceptions whose messages are written for the user, and helpers that word these messages.

A message is one line: what was given, what is allowed, what to do. The command line prints it and turns the class
into an exit status:

    WesepError              1   any failure
    ├── InputError          2   wrong input or usage
    │   ├── ConfigError         configuration
    │   ├── AudioError          recording
    │   ├── OutputExistsError   output that would be overwritten
    │   └── CheckpointError     checkpoint
    └── TargetAbsentError   3   every target is absent from the recording
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LINE = 1000
"""Maximum length of an error line in characters."""
SHOWN = 200
"""Maximum number of characters of the user's input that an error line repeats."""


class WesepError(Exception):
    """Base class of errors whose message is written for the user. Exit status 1."""

    exit_status = 1


class InputError(WesepError, ValueError):
    """Invalid input or usage: a file, an argument or a value. Exit status 2."""

    exit_status = 2


class ConfigError(InputError):
    """Invalid configuration: an unknown or missing key, a wrong type, or a value that is not allowed."""


class AudioError(InputError):
    """Unusable recording: missing, not audio, damaged, or too short for the operation."""


class OutputExistsError(InputError):
    """Output that exists already, while overwriting was not requested."""


class CheckpointError(InputError):
    """Unusable checkpoint: missing, incomplete, damaged, or of another format version."""


class TargetAbsentError(WesepError):
    """Every requested target is absent from the recording. Exit status 3."""

    exit_status = 3


def reason(error: BaseException) -> str:
    """Return the message of an error in one line.

    The class name precedes the message unless the message alone is clear (errors of this package and of the system).

    >>> reason(InputError("a.wav: is\\n empty")), reason(KeyError("rate")), reason(ValueError())
    ('a.wav: is empty', "KeyError: 'rate'", 'ValueError')
    """
    text, kind = shorten(error, LINE), type(error).__name__
    if not text:
        return kind
    return text if isinstance(error, (WesepError, OSError)) else f"{kind}: {text}"


def shorten(text: object, limit: int = SHOWN) -> str:
    """Return a text as one line of at most `limit` printable characters.

    White space is collapsed, other control characters become `?`, and the middle of a long text becomes `…`.

    >>> shorten("a\\n  b\\x00"), shorten("x" * 300, 9)
    ('a b?', 'xxxx…xxxx')
    """
    # Cut long input first: it may be of any size, and the steps below read every character.
    text = str(text)
    text = text if len(text) <= 8 * limit else f"{text[: 4 * limit]}…{text[-4 * limit :]}"
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    if len(line) <= limit:
        return line
    half = (limit - 1) // 2
    return f"{line[:half]}…{line[len(line) - half :]}"


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Return the end of an error line about a name: the nearest allowed name, and all allowed names.

    >>> nearest("fillm", ["film", "concat"])
    "did you mean 'film'? (allowed: concat, film)"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(given[:SHOWN], names[:LINE], n=1, cutoff=0.5)
    listing = f"(allowed: {shorten(', '.join(names), 3 * SHOWN) if names else 'none'})"
    return f"did you mean {close[0]!r}? {listing}" if close else listing


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = SHOWN


def quoted(value: object, limit: int = 120) -> str:
    """Return the `repr` of a value for an error line: at most `limit` characters, and for any value.

    >>> quoted("a" * 300, 9), quoted(10**5000), quoted([1, "b"])
    ("'aaa…aaa'", 'a value of type int', "[1, 'b']")
    """
    try:
        return f"a value of type {type(value).__name__}" if _is_huge(value) else shorten(_REPR.repr(value), limit)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list that contains itself
        return f"a value of type {type(value).__name__}"


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 10 * LINE


@contextmanager
def naming(place: object, remedy: str, error: type[WesepError] = InputError) -> Iterator[None]:
    """Turn any exception that the block raises while it reads a file into one line that names the file.

    Errors of this package pass through unchanged.

    Args:
        place: the file, with the position in it where that is known.
        remedy: advice for the user, the last part of the line.
        error: class of the exception that is raised instead.

    >>> with naming("a.npy", "save it again"):
    ...     raise EOFError("No data left in file")
    Traceback (most recent call last):
    wesep_py.common.errors.InputError: a.npy: cannot be read (EOFError: No data left in file); save it again
    """
    try:
        yield
    except WesepError:
        raise
    except Exception as problem:  # a damaged file can make a library raise any class of exception
        cause = (problem.strerror if isinstance(problem, OSError) else None) or reason(problem)
        raise error(f"{place}: cannot be read ({shorten(cause)}); {remedy}") from problem
