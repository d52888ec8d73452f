"""Checks of ranges that the configuration's parts share."""

from __future__ import annotations

from collections.abc import Mapping


def at_least(least: int, values: Mapping[str, float], hint: str = "") -> None:
    """Refuse a value below `least`.

    Raises:
        ValueError: with the name of the first value that is.
    """
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}{f' ({hint})' if hint else ''}")


def positive(values: Mapping[str, float]) -> None:
    """Refuse a value that is not above 0.

    Raises:
        ValueError: with the name of the first value that is not.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be above 0")
