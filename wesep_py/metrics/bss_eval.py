"""SDR of BSS-Eval: distortion that a filter of 512 taps explains is forgiven."""

from __future__ import annotations

import numpy as np

from wesep_py.metrics.errors import MetricError
from wesep_py.metrics.signals import checked_pair, is_silent

FILTER_LENGTH = 512
"""Taps of the distortion filter: the value of BSS-Eval v3 and of every published table."""

LIMIT_DB = 100.0
"""Results are kept within ± this many dB: beyond it float64 measures its own rounding."""


def sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Signal-to-distortion ratio in dB, of BSS-Eval (version 3).

    The estimate is projected on the reference and its 511 delays; SDR is the energy of that projection over
    the energy of the rest. Computed by fast_bss_eval, with a direct solution.

    Args:
        estimate: `[samples]`.
        reference: `[samples]`.

    Returns:
        dB, within ±100.

    Raises:
        MetricError: a signal is silent or not finite, or the lengths differ.

    Source: Vincent, Gribonval, Févotte, "Performance measurement in blind audio source separation", IEEE
    TASLP 14(4), 2006; Scheibler, "SDR - medium rare with fast computations", ICASSP 2022.

    >>> random = np.random.default_rng(0)
    >>> reference, noise = random.standard_normal((2, 16000))
    >>> abs(sdr(reference + 0.1 * noise, reference) - 20) < 0.5
    True
    """
    from fast_bss_eval import sdr_loss

    estimate, reference = checked_pair(estimate, reference)
    if is_silent(estimate):
        raise MetricError("the estimate is silent")
    try:
        # One axis each: with a batch axis, fast_bss_eval 0.1.4 calls numpy.linalg.solve in a way NumPy 2
        # refuses.
        loss = float(sdr_loss(estimate, reference, filter_length=FILTER_LENGTH, clamp_db=LIMIT_DB))
    except np.linalg.LinAlgError as error:
        raise MetricError(f"the reference's correlation matrix has no inverse ({error})") from error
    if not np.isfinite(loss):
        raise MetricError("the projection on the reference has no finite solution")
    return -loss
