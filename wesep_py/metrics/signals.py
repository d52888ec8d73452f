"""Checks that every metric makes of its signals, with the reasons that results report."""

from __future__ import annotations

import numpy as np

from wesep_py.metrics.errors import MetricError
from wesep_py.metrics.scale_invariant import EPS


def checked(signal: np.ndarray, name: str) -> np.ndarray:
    """The signal as a finite float64 array `[samples]`.

    Raises:
        MetricError: it has another number of axes, no samples, or samples that are not finite.
    """
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim != 1 or not signal.size:
        raise MetricError(f"the {name} has shape {list(signal.shape)}; one axis with samples is needed")
    if not np.isfinite(signal).all():
        raise MetricError(f"the {name} has samples that are not finite")
    return signal


def checked_pair(estimate: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate and reference as float64, of one length; the reference is not silent.

    Raises:
        MetricError: as `checked`; the lengths differ; the reference is silent.
    """
    estimate, reference = checked(estimate, "estimate"), checked(reference, "reference")
    if len(estimate) != len(reference):
        raise MetricError(f"the estimate has {len(estimate)} samples and the reference {len(reference)}")
    if is_silent(reference):
        raise MetricError("the reference is silent")
    return estimate, reference


def is_silent(signal: np.ndarray) -> bool:
    """Whether the energy of the signal, mean removed, is at most `EPS` (1e-8): a constant is silence too.

    >>> is_silent(np.full(16000, 0.5)), is_silent(np.array([1e-3, -1e-3]))
    (True, False)
    """
    signal = np.asarray(signal, dtype=np.float64)
    return bool(np.square(signal - signal.mean()).sum() <= EPS)


def attenuation_db(estimate: np.ndarray, mixture: np.ndarray) -> float:
    """Energy of the mixture over that of the estimate in dB: what is left when there was nothing to extract.

    Positive: the estimate is quieter. eps = 1e-8 is added to both energies, so silence gives a finite number.

    Args:
        estimate: `[samples]`.
        mixture: `[samples]`.

    >>> mixture = np.array([1.0, -1.0])
    >>> round(attenuation_db(0.1 * mixture, mixture), 3)
    20.0
    """
    energies = [float(np.square(np.asarray(s, dtype=np.float64)).sum()) + EPS for s in (mixture, estimate)]
    return float(10 * np.log10(energies[0] / energies[1]))
