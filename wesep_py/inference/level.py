"""The level that the extracted voice has in the mixture."""

from __future__ import annotations

from typing import Literal

import numpy as np

Level = Literal["fitted", "learned"]
TRUSTED_DB = 6.0
"""A level that the network learned is corrected by this much at most: unsure of a voice, it makes it quieter."""


def gain_onto(estimate: np.ndarray, mixture: np.ndarray, level: Level = "fitted") -> float:
    """The gain that brings an estimate to the level (and polarity) its voice has in the mixture.

    Args:
        estimate: [channels, samples], any level.
        mixture: [channels, samples].
        level: as `gain_of_sums`.

    Returns:
        The linear gain; 0 for a silent estimate. One gain for all channels keeps their differences.

    >>> voice = np.array([[1.0, -1.0, 1.0, -1.0]])
    >>> gain_onto(-4 * voice, voice + [[1.0, 1.0, -1.0, -1.0]])
    -0.25
    """
    estimate = estimate.astype(np.float64)
    return gain_of_sums(float((estimate * mixture).sum()), float((estimate**2).sum()), estimate.size, level)


def gain_of_sums(product: float, energy: float, size: int, level: Level = "fitted") -> float:
    """The same, of what was summed over a recording that is not held.

    Networks trained on scale-invariant losses return a voice at any level, even turned around. The least-squares gain
    `<estimate, mixture> / <estimate, estimate>` minimises `||mixture - gain * estimate||`: it is the exact level where
    the estimate is the voice and the rest of the mixture does not correlate with it. Of a voice that is not there it
    makes as much as it can of what little is left; a network that learned the level is trusted as far as `TRUSTED_DB`.

    Args:
        product: `<estimate, mixture>` over all channels.
        energy: `<estimate, estimate>`.
        size: samples of all channels.
        level: `fitted` is that gain; `learned` the same, but of `TRUSTED_DB` at most (`ModelConfig.level`).

    Returns:
        The linear gain; 0 for a silent estimate.
    """
    if energy <= np.finfo(np.float32).tiny * size:
        return 0.0
    gain, most = product / energy, 10 ** (TRUSTED_DB / 20)
    return gain if level == "fitted" else min(max(gain, 1 / most), most)
