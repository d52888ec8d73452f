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
    text, kind = shorten(error, LINE), type(error).__name__
    if not text:
        return kind
    return text if isinstance(error, (WesepError, OSError)) else f"{kind}: {text}"


SHOWN = 200
"""Characters of input that an error line repeats."""


def shorten(text: object, limit: int = SHOWN) -> str:
    """The text in one line without control characters; its middle is left out where it is longer than `limit`.

    >>> shorten("a\\n  b\\x00"), shorten("x" * 300, 9)
    ('a b?', 'xxxx…xxxx')
    """
    # Long input is cut before it is looked at closer: it may be of any size.
    text = str(text)
    text = text if len(text) <= 8 * limit else f"{text[: 4 * limit]}…{text[-4 * limit :]}"
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    if len(line) <= limit:
        return line
    half = (limit - 1) // 2
    return f"{line[:half]}…{line[len(line) - half :]}"


def nearest(given: str, allowed: Iterable[str]) -> str:
    """The end of an error about a name: the nearest allowed one, and all of them.

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
    """The value as an error line shows it: its `repr`, which never fails and is never longer than `limit`.

    >>> quoted("a" * 300, 9), quoted(10**5000), quoted([1, "b"])
    ("'aaa…aaa'", 'a value of type int', "[1, 'b']")
    """
    try:
        return f"a value of type {type(value).__name__}" if _is_huge(value) else shorten(_REPR.repr(value), limit)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, a list within itself
        return f"a value of type {type(value).__name__}"


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 10 * LINE


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
    wesep_py.common.errors.InputError: a.npy: cannot be read (EOFError: No data left in file); save it again
    """
    try:
        yield
    except WesepError:
        raise
    except Exception as problem:  # libraries raise whatever they like of a damaged file
        told = (problem.strerror if isinstance(problem, OSError) else None) or reason(problem)
        raise error(f"{place}: cannot be read ({shorten(told)}); {remedy}") from problem
