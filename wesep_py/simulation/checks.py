"""What the numbers of a configuration are allowed to be; each check raises a ValueError of one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from wesep_py.errors import nearest

Range = tuple[float, float]


def check_range(name: str, value: Range, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuse a range whose ends are not in order between `low` and `high`."""
    if not (low <= value[0] <= value[1] <= high):
        limits = f"{low:g} ≤ " if low > -math.inf else ""
        upper = f" ≤ {high:g}" if high < math.inf else ""
        raise ValueError(f"{name}: is {list(value)}; give [low, high] with {limits}low ≤ high{upper}")


def check_positive(name: str, value: float) -> None:
    """Refuse what is not a number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: is {value}; a number above 0 is needed")


def check_probability(name: str, value: float) -> None:
    """Refuse what does not lie between 0 and 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: is {value}; a probability between 0 and 1 is needed")


def check_weights(name: str, weights: Mapping[Any, Any], allowed: tuple[Any, ...]) -> dict[Any, float]:
    """The weights with keys of the allowed kind, or a ValueError that says which entry is wrong."""
    checked: dict[Any, float] = {}
    for given, weight in weights.items():
        known = {str(key): key for key in allowed}
        if str(given) not in known:
            raise ValueError(f"{name}: no choice is called {given!r}; {nearest(str(given), known)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"{name}.{given}: is {weight!r}; a weight of 0 or more is needed")
        checked[known[str(given)]] = float(weight)
    if sum(checked.values()) <= 0:
        raise ValueError(f"{name}: has no weight above 0; give one to at least one of {', '.join(map(str, allowed))}")
    return checked


def as_weights(value: Any) -> Mapping[Any, Any]:
    """A mapping as it is; anything else as the one choice there is.

    >>> as_weights(2)
    {2: 1.0}
    """
    return value if isinstance(value, Mapping) else {value: 1.0}
