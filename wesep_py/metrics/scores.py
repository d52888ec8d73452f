"""All the numbers of one extraction, and how each is defined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from wesep_py.common.errors import InputError, nearest
from wesep_py.metrics.perception import estoi, pesq, stoi
from wesep_py.metrics.separation import EPS, SDR_FILTER_LENGTH, SDR_LIMIT_DB, MetricError, checked_signal, checked_pair, sdr, si_sdr

ACCURACY_THRESHOLD_DB = 1.0
"""A trial succeeds if its SI-SDRi is greater."""

METRICS: dict[str, tuple[str, ...]] = {
    "si_sdr": ("si_sdr", "si_sdri", "accuracy", "confusion"),
    "sdr": ("sdr", "sdri"),
    "pesq": ("pesq",),
    "stoi": ("stoi",),
    "estoi": ("estoi",),
}
"""The metrics that can be asked for, and the numbers that each gives."""

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
"""What each number means, in the words that results carry with them."""


@dataclass(frozen=True)
class Scores:
    """The numbers of one extraction.

    Attributes:
        values: a number for each name of `METRICS` that could be computed; accuracy and confusion are 0 or 1.
        missing: for each other name that was asked for, the reason why it has no value.
    """

    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def check_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, if all of them are metrics.

    Raises:
        InputError: an unknown name; the nearest known one is named. No name.

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
    """Score one estimate; what cannot be computed is missing, with its reason.

    Args:
        estimate: `[samples]`.
        reference: `[samples]`, the target alone.
        sample_rate: Hz.
        metrics: names out of `METRICS`.
        mixture: `[samples]`, the unprocessed mixture, for improvements and accuracy. Without it they are
            missing.
        interferers: each interfering speaker's signal in the mixture `[samples]`, for confusion; an empty
            sequence is a mixture without interferer, whose confusion is 0. None: unknown, and confusion is
            missing.

    Returns:
        The numbers, and the reasons for those that are missing.

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
            _decide(scores, estimate, interferers)
    return scores


def _decide(scores: Scores, estimate: np.ndarray, interferers: Sequence[np.ndarray] | None) -> None:
    """Accuracy and confusion, from SI-SDR and SI-SDRi."""
    if "si_sdri" in scores.values:
        scores.values["accuracy"] = float(scores.values["si_sdri"] > ACCURACY_THRESHOLD_DB)
    else:
        scores.missing["accuracy"] = scores.missing["si_sdri"]
    if interferers is None:
        scores.missing["confusion"] = "no interferers were given"
        return
    try:
        nearest_db = max(
            (si_sdr(checked_signal(estimate, "estimate"), checked_signal(s, "interferer")) for s in interferers),
            default=-np.inf,
        )
    except (MetricError, InputError) as error:
        scores.missing["confusion"] = str(error)
        return
    scores.values["confusion"] = float(nearest_db > scores.values["si_sdr"])
