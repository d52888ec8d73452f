"""Gains that are the same number on every machine."""

from __future__ import annotations

import numpy as np

from wesep_py.audio.level import db_to_gain


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
