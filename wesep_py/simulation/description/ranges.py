"""Gains that are the same number on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from wesep_py.audio.level import db_to_gain
from wesep_py.common.errors import nearest

# ----------------------------------------
# What the numbers of a configuration are allowed to be; each check raises a ValueError of one line.

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


# ----------------------------------------
# Choosing by weight.

Choice = TypeVar("Choice")


def choose(weights: Mapping[Choice, float], rng: np.random.Generator) -> Any:
    """One key, as likely as its weight says; the order of the keys does not matter.

    >>> choose({"a": 0.0, "b": 2.0}, np.random.default_rng(0))
    'b'
    """
    keys = sorted(weights, key=str)
    cumulative = np.cumsum([weights[key] for key in keys])
    return keys[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]


def level_gain(level_db: float) -> float:
    """The linear gain, rounded so that differences in the last bit between machines do not change a recipe.

    >>> level_gain(-20.0)
    0.1
    """
    return float(f"{db_to_gain(level_db):.7g}")


def gain_between(from_db: float, to_db: float) -> float:
    """The gain that brings a level to another; 1 where there is no level to start from.

    >>> gain_between(-20.0, -40.0), gain_between(-np.inf, -40.0)
    (0.1, 1.0)
    """
    return 1.0 if from_db == -np.inf else level_gain(to_db - from_db)
