"""What the user is told when something is wrong: one line with what was given, what is allowed, what to do.

The command line turns these into exit statuses: 2 for wrong input or usage, 3 when every target asked for
is absent, 1 for everything else.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LINE = 1000
"""Characters of an error line at most: a terminal shows them at a glance, a log keeps them whole."""
VALUE = 120
"""Characters of a value in an error line at most."""


class WesepError(Exception):
    """A failure whose message is written for the user. Exit status 1."""

    exit_status = 1


class InputError(WesepError, ValueError):
    """Wrong input or usage: a file, an argument or a value. Exit status 2."""

    exit_status = 2


class ConfigError(InputError):
    """A configuration with an unknown key, a wrong type or an impossible value."""


class AudioError(InputError):
    """A recording that is missing, is not audio, is damaged, or is too short for what was asked."""


class OutputExistsError(InputError):
    """An output is there already, and overwriting it was not asked for."""


class CheckpointError(InputError):
    """A checkpoint that is missing, incomplete, damaged, or of another format version."""


class TargetAbsentError(WesepError):
    """Every target that was asked for is absent from the recording. Exit status 3."""

    exit_status = 3


def reason(error: BaseException) -> str:
    """What went wrong, in one line; with the kind of error, where its message is not written for the user.

    >>> reason(InputError("a.wav: is\\n empty")), reason(KeyError("rate")), reason(ValueError())
    ('a.wav: is empty', "KeyError: 'rate'", 'ValueError')
    """
    text, kind = one_line(error), type(error).__name__
    if not text:
        return kind
    return text if isinstance(error, (WesepError, OSError)) else one_line(f"{kind}: {text}")


def one_line(text: object, limit: int = LINE) -> str:
    """Return a text as one line that any terminal shows: white space joined, control characters escaped, not too long.

    >>> one_line("a\\n\\x1b[31mred  b\\udce9")
    'a \\\\x1b[31mred b\\\\udce9'
    """
    try:
        joined = " ".join(str(text).split())
    except (ValueError, RecursionError):  # a whole number of thousands of digits, a list within itself
        joined = f"a value of type {type(text).__name__}"
    return shorten("".join(c if c.isprintable() else ascii(c)[1:-1] for c in shorten(joined, 4 * limit)), limit)


def shorten(text: str, limit: int = 300) -> str:
    """Cut the middle out of a text that is longer than `limit` characters.

    >>> shorten("abcdefghij", 7), shorten("abcdefghij", 10)
    ('abc…hij', 'abcdefghij')
    """
    if len(text) <= limit:
        return text
    begin = limit // 2
    return f"{text[:begin]}…{text[len(text) - (limit - begin - 1) :]}"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = VALUE
_REPR.maxlevel = 3


def quoted(value: object, limit: int = VALUE) -> str:
    """Return a value as an error line shows it: its `repr`, which never is longer than `limit`, and never fails.

    >>> quoted("a" * 300, 9), quoted(10**5000), quoted([1, "b"])
    ("'aaa…aaa'", 'a value of type int', "[1, 'b']")
    """
    try:
        return one_line(_REPR.repr(value), limit)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"


@contextmanager
def naming(place: object, remedy: str, error: type[WesepError] = InputError) -> Iterator[None]:
    """Turn whatever a library raises while the block reads a file into one line that names the file.

    Errors of this package pass through as they are.

    Args:
        place: the file, and where in it.
        remedy: what to do about it.
        error: what is raised instead.

    >>> with naming("a.npy", "save it again"):
    ...     raise EOFError("No data left in file")
    Traceback (most recent call last):
    wesep_py.errors.InputError: a.npy: cannot be read (EOFError: No data left in file); save it again
    """
    try:
        yield
    except WesepError:
        raise
    except OSError as problem:
        told = problem.strerror or reason(problem)
        raise error(f"{place}: cannot be read ({shorten(told, 200)}); {remedy}") from problem
    except Exception as problem:  # libraries raise whatever they like of a damaged file
        raise error(f"{place}: cannot be read ({shorten(reason(problem), 200)}); {remedy}") from problem


def nearest(given: str, allowed: Iterable[str]) -> str:
    """The end of an error about a name: the nearest allowed one, and all of them.

    >>> nearest("fillm", ["film", "concat"])
    "did you mean 'film'? (allowed: concat, film)"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(given[:LINE], [name[:LINE] for name in names[:LINE]], n=1, cutoff=0.5)
    listing = f"(allowed: {shorten(', '.join(names), 600) if names else 'none'})"
    return f"did you mean {close[0]!r}? {listing}" if close else listing
