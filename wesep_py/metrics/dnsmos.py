"""DNSMOS: listeners' opinion of speech, predicted without a reference, by the package `speechmos`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wesep_py.metrics.errors import MetricError
from wesep_py.metrics.signals import checked, is_silent

SAMPLE_RATE = 16000
MISSING = "speechmos cannot be imported ({error}): pip install 'wesep-py[mos]'"
PARTS = ("ovrl", "sig", "bak", "p808")


def load_network() -> Any:
    """The module of `speechmos` that holds the networks.

    Raises:
        MetricError: it cannot be imported, or a package that it needs.
    """
    try:
        from speechmos import dnsmos as network
    except ImportError as error:
        raise MetricError(MISSING.format(error=error)) from error
    return network


def dnsmos(estimate: np.ndarray, sample_rate: int, personalised: bool = False) -> dict[str, float]:
    """Predicted mean opinions (1 to 5) of a recording by itself.

    Args:
        estimate: `[samples]`; one that peaks beyond full scale is scaled to it, which the network wants.
        sample_rate: 16000 Hz.
        personalised: the network that also punishes other people's voices, meant for target speaker extraction.

    Returns:
        `ovrl` (overall), `sig` (speech), `bak` (background), all of P.835, and `p808` (overall, of P.808).

    Raises:
        MetricError: `speechmos` is not installed, another rate, a signal that is silent or not finite.

    Source: Reddy, Gopal, Cutler, "DNSMOS P.835", ICASSP 2022; the network of the Deep Noise Suppression Challenge.
    """
    if sample_rate != SAMPLE_RATE:
        raise MetricError(f"DNSMOS is defined at {SAMPLE_RATE} Hz, not at {sample_rate} Hz")
    signal = checked(estimate, "estimate")
    if is_silent(signal):
        raise MetricError("the estimate is silent")
    network = load_network()
    signal = signal / max(1.0, float(np.abs(signal).max()))
    kind = "dnsmos_personalized" if personalised else "dnsmos"
    try:
        result: Mapping[str, Any] = network.run(signal.astype(np.float32), sr=sample_rate, model_type=kind)
    except Exception as error:  # whatever the network's runtime raises costs this value only
        raise MetricError(f"speechmos: {type(error).__name__}: {' '.join(str(error).split())}") from error
    return {part: float(result[f"{part}_mos"]) for part in PARTS}
