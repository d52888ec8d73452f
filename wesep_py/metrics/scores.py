"""Compute several metrics of one estimate at once, and define each value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from wesep_py.common.errors import InputError, nearest
from wesep_py.metrics.perception import estoi, pesq, stoi
from wesep_py.metrics.separation import (
    EPS,
    SDR_FILTER_LENGTH,
    SDR_LIMIT_DB,
    MetricError,
    checked_pair,
    checked_signal,
    sdr,
    si_sdr,
)

ACCURACY_THRESHOLD_DB = 1.0
"""A trial counts as accurate if its SI-SDRi is greater, in dB."""

METRICS: dict[str, tuple[str, ...]] = {
    "si_sdr": ("si_sdr", "si_sdri", "accuracy", "confusion"),
    "sdr": ("sdr", "sdri"),
    "pesq": ("pesq",),
    "stoi": ("stoi",),
    "estoi": ("estoi",),
}
"""The metrics, and the values that each gives."""

_PROJECTION = "mean removed from both, reference scaled by projection"
DEFINITIONS: dict[str, str] = {
    "si_sdr": f"SI-SDR in dB (Le Roux et al., 2019): {_PROJECTION}, eps = {EPS:g} added to both energies",
    "si_sdri": "SI-SDR of the estimate less SI-SDR of the unprocessed mixture (first channel), in dB",
    "accuracy": f"share of trials with SI-SDRi > {ACCURACY_THRESHOLD_DB:g} dB, 0 to 1",
    "confusion": "share of trials whose estimate has a higher SI-SDR against an interfering speaker than "
    "against the target, 0 to 1",
    "sdr": f"BSS-Eval v3 SDR in dB with a distortion filter of {SDR_FILTER_LENGTH} taps, within ±{SDR_LIMIT_DB:g} dB "
    "(fast_bss_eval)",
    "sdri": "SDR of the estimate less SDR of the unprocessed mixture (first channel), in dB",
    "pesq": "PESQ MOS-LQO: ITU-T P.862.2 wide-band at 16 kHz, P.862.1 narrow-band at 8 kHz (pesq)",
    "stoi": "STOI (Taal et al., 2011) at 10 kHz, 0 to 1 (pystoi)",
    "estoi": "ESTOI (Jensen and Taal, 2016) at 10 kHz, 0 to 1 (pystoi)",
    "attenuation_db": f"energy of the mixture over that of the estimate, in dB, eps = {EPS:g} added to both",
}
"""Definition of each value, as every summary carries it."""


@dataclass(frozen=True)
class Scores:
    """Values of the metrics of one estimate.

    Attributes:
        values: the values that could be computed, by name; accuracy and confusion are 0 or 1.
        missing: the reason for each requested value that could not be computed.
    """

    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def check_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of metrics, each once.

    Raises:
        InputError: a name is unknown (the nearest known one is suggested), or there is none.

    >>> check_metrics(["si_sdr", "pesq"])
    ('si_sdr', 'pesq')
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in METRICS:
            raise InputError(f"metric {name!r} is not known; {nearest(name, METRICS)}")
    if not chosen:
        raise InputError(f"no metric was named; {nearest('', METRICS)}")
    return chosen


def score(
    estimate: np.ndarray,
    reference: np.ndarray,
    sample_rate: int,
    metrics: Sequence[str] = ("si_sdr",),
    mixture: np.ndarray | None = None,
    interferers: Sequence[np.ndarray] | None = None,
) -> Scores:
    """Score one estimate; a value that cannot be computed is missing, with the reason.

    Args:
        estimate: `[samples]`.
        reference: `[samples]`, the target alone.
        sample_rate: Hz.
        metrics: names out of `METRICS`.
        mixture: `[samples]`, the unprocessed mixture, for improvements and accuracy; `None`: these are missing.
        interferers: each interfering speaker's signal in the mixture, `[samples]`, for confusion. An empty sequence is
            a mixture without interferers, whose confusion is 0. `None`: unknown, and confusion is missing.

    Raises:
        InputError: an unknown metric.

    >>> random = np.random.default_rng(0)
    >>> target, other = random.standard_normal((2, 16000))
    >>> scores = score(target + 0.1 * other, target, 16000, mixture=target + other, interferers=[other])
    >>> round(scores.values["si_sdri"]), scores.values["accuracy"], scores.values["confusion"]
    (20, 1.0, 0.0)
    """
    scores = Scores()
    compute: dict[str, Callable[[np.ndarray], float]] = {
        "si_sdr": lambda signal: si_sdr(*checked_pair(signal, reference)),
        "sdr": lambda signal: sdr(signal, reference),
        "pesq": lambda signal: pesq(signal, reference, sample_rate),
        "stoi": lambda signal: stoi(signal, reference, sample_rate),
        "estoi": lambda signal: estoi(signal, reference, sample_rate),
    }
    for name in check_metrics(metrics):
        improvement = f"{name}i" if f"{name}i" in METRICS[name] else None
        try:
            scores.values[name] = compute[name](estimate)
        except MetricError as error:
            scores.missing.update(dict.fromkeys(METRICS[name], str(error)))
            continue
        if improvement and mixture is None:
            scores.missing[improvement] = "no mixture was given"
        elif improvement:
            try:
                scores.values[improvement] = scores.values[name] - compute[name](mixture)
            except MetricError as error:
                scores.missing[improvement] = f"the mixture has no {name}: {error}"
        if name == "si_sdr":
            _add_decisions(scores, estimate, interferers)
    return scores


def _add_decisions(scores: Scores, estimate: np.ndarray, interferers: Sequence[np.ndarray] | None) -> None:
    """Add accuracy and confusion, which follow from SI-SDR and SI-SDRi."""
    if "si_sdri" in scores.values:
        scores.values["accuracy"] = float(scores.values["si_sdri"] > ACCURACY_THRESHOLD_DB)
    else:
        scores.missing["accuracy"] = scores.missing["si_sdri"]
    if interferers is None:
        scores.missing["confusion"] = "no interferers were given"
        return
    try:
        best_interferer_db = max(
            (si_sdr(checked_signal(estimate, "estimate"), checked_signal(s, "interferer")) for s in interferers),
            default=-np.inf,
        )
    except (MetricError, InputError) as error:
        scores.missing["confusion"] = str(error)
        return
    scores.values["confusion"] = float(best_interferer_db > scores.values["si_sdr"])
