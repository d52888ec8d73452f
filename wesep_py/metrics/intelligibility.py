"""STOI and ESTOI: predicted share of words understood."""

from __future__ import annotations

import warnings

import numpy as np

from wesep_py.metrics.errors import MetricError
from wesep_py.metrics.signals import checked_pair, is_silent

MIN_DURATION_S = 0.4
"""30 frames of 256 samples every 128 at 10 kHz, the least that the definition needs."""


def stoi(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility.

    Args:
        estimate: `[samples]`.
        reference: `[samples]`.
        sample_rate: Hz; signals are resampled to 10 kHz.

    Returns:
        Mean correlation of third-octave envelopes, at most 1; 0 for a silent estimate.

    Raises:
        MetricError: the reference is silent, or has less than 0.4 s of speech; not finite; lengths differ.

    Source: Taal, Hendriks, Heusdens, Jensen, "An algorithm for intelligibility prediction of time-frequency
    weighted noisy speech", IEEE TASLP 19(7), 2011; by the package `pystoi`.

    >>> speech = np.random.default_rng(0).standard_normal(16000)
    >>> round(stoi(speech, speech, 16000), 3)
    1.0
    """
    return _compute(estimate, reference, sample_rate, extended=False)


def estoi(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Extended short-time objective intelligibility; arguments, result and errors as `stoi`.

    Source: Jensen, Taal, "An algorithm for predicting the intelligibility of speech masked by modulated noise
    maskers", IEEE/ACM TASLP 24(11), 2016; by the package `pystoi`.

    >>> speech = np.random.default_rng(0).standard_normal(16000)
    >>> round(estoi(speech, speech, 16000), 3)
    1.0
    """
    return _compute(estimate, reference, sample_rate, extended=True)


def _compute(estimate: np.ndarray, reference: np.ndarray, sample_rate: int, extended: bool) -> float:
    from pystoi import stoi as compute

    estimate, reference = checked_pair(estimate, reference)
    if len(reference) < MIN_DURATION_S * sample_rate:
        raise MetricError(f"the reference has {len(reference) / sample_rate:.3f} s; STOI needs {MIN_DURATION_S} s")
    if is_silent(estimate):
        return 0.0
    # pystoi dithers by 1e-16 with NumPy's global generator, which decides the correlation of frames that are
    # all # zeros: seeded here for the same result every time, and put back as it was.
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = float(compute(reference, estimate, sample_rate, extended=extended))
    finally:
        np.random.set_state(state)
    # pystoi returns 1e-5 with a warning where there is too little speech: no value, here.
    if any("Not enough STFT frames" in str(warning.message) for warning in caught):
        raise MetricError(f"the reference has less than {MIN_DURATION_S} s of speech once its pauses are left out")
    if not np.isfinite(value):
        raise MetricError("STOI gave no finite value")
    return value
