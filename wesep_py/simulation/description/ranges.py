"""Ranges and weights of a configuration: their checks, and the choice by weight.

Each check raises a ValueError of one line that names the key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from wesep_py.common.errors import nearest

Range = tuple[float, float]


def check_range(name: str, value: Range, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise ValueError unless `low` ≤ value[0] ≤ value[1] ≤ `high`."""
    if not (low <= value[0] <= value[1] <= high):
        limits = f"{low:g} ≤ " if low > -math.inf else ""
        upper = f" ≤ {high:g}" if high < math.inf else ""
        raise ValueError(f"{name}: is {list(value)}; give [low, high] with {limits}low ≤ high{upper}")


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless a value is a number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: is {value}; a number above 0 is needed")


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless a value is between 0 and 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: is {value}; a probability between 0 and 1 is needed")


def check_choice_weights(name: str, weights: Mapping[Any, Any], allowed: tuple[Any, ...]) -> dict[Any, float]:
    """Return the weights as floats by their allowed keys; a ValueError names the entry that is wrong.

    Keys may be given as text: YAML and the command line have `"2"` for 2.
    """
    checked: dict[Any, float] = {}
    known = {str(key): key for key in allowed}
    for choice, weight in weights.items():
        if str(choice) not in known:
            raise ValueError(f"{name}: no choice is called {choice!r}; {nearest(str(choice), known)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"{name}.{choice}: is {weight!r}; a weight of 0 or more is needed")
        checked[known[str(choice)]] = float(weight)
    if sum(checked.values()) <= 0:
        raise ValueError(f"{name}: has no weight above 0; give one to at least one of {', '.join(map(str, allowed))}")
    return checked


def as_weights(value: Any) -> Mapping[Any, Any]:
    """Return a mapping unchanged, and any other value as the only choice.

    >>> as_weights(2)
    {2: 1.0}
    """
    return value if isinstance(value, Mapping) else {value: 1.0}


Choice = TypeVar("Choice")


def choose(weights: Mapping[Choice, float], rng: np.random.Generator) -> Any:
    """Draw a key with a probability proportional to its weight; the order of the keys does not matter.

    >>> choose({"a": 0.0, "b": 2.0}, np.random.default_rng(0))
    'b'
    """
    keys = sorted(weights, key=str)
    cumulative = np.cumsum([weights[key] for key in keys])
    return keys[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]
