"""Arguments of public networks: completed by their defaults, and what cannot be translated said in full."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from wesep_py.errors import ConfigError, WesepError, nearest, shorten


class UntranslatableError(ConfigError):
    """Arguments that have no counterpart here: `lines` has one for each, and the message all of them."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


@contextmanager
def translating() -> Iterator[None]:
    """Arguments of a wrong type, of which a translation can make nothing, are a `ConfigError` of one line."""
    try:
        yield
    except WesepError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"arguments: cannot be translated ({type(error).__name__}: {shorten(error)})") from error


def complete(
    args: Mapping[str, Any],
    defaults: Mapping[str, Any],
    inert: Collection[str] = (),
    only: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The arguments, with the defaults of those that are not given.

    Args:
        args: as the public configuration has them.
        defaults: those that are translated.
        inert: those that change nothing that is computed.
        only: arguments that a network of ours can be built with one value of.

    Raises:
        UntranslatableError: an unknown argument, or another value than the only one.
    """
    only = only or {}
    lines = [
        f"{shorten(key, 60)}: cannot be translated; {nearest(shorten(key, 60), [*defaults, *only])}"
        for key in args
        if key not in defaults and key not in inert and key not in only
    ]
    lines += [
        f"{key}: {shorten(repr(args[key]), 60)} cannot be translated; only {value!r} is"
        for key, value in only.items()
        if key in args and args[key] != value
    ]
    if lines:
        raise UntranslatableError(lines)
    return {**defaults, **args}
