"""Choosing by weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

Choice = TypeVar("Choice")


def choose(weights: Mapping[Choice, float], rng: np.random.Generator) -> Any:
    """One key, as likely as its weight says; the order of the keys does not matter.

    >>> choose({"a": 0.0, "b": 2.0}, np.random.default_rng(0))
    'b'
    """
    keys = sorted(weights, key=str)
    cumulative = np.cumsum([weights[key] for key in keys])
    return keys[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]
