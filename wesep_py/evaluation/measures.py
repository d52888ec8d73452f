"""What can be measured of a trial: the metrics of two signals, and those that need more than these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from wesep_py.errors import InputError, nearest, reason
from wesep_py.inference.activity import speech_mask
from wesep_py.metrics import DEFINITIONS, METRICS, MetricError, Scores, score
from wesep_py.metrics.dnsmos import dnsmos, load_network
from wesep_py.metrics.signals import checked, checked_pair, is_silent
from wesep_py.metrics.timing import COLLAR_S, FRAME_S, PAUSE_S, timing

BY_SIGNALS: dict[str, tuple[str, ...]] = {
    "timing": ("timing_precision", "timing_recall", "timing_f1"),
    "dnsmos": ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808"),
    "pdnsmos": ("pdnsmos_ovrl", "pdnsmos_sig", "pdnsmos_bak"),
}
"""Measured in the scoring processes, as `METRICS` are."""

BY_LISTENERS: dict[str, tuple[str, ...]] = {"similarity": ("similarity",), "wer": ("wer",)}
"""Measured by a `listeners.Listener`, which is given by name on the command line."""

MEASURES: dict[str, tuple[str, ...]] = {**METRICS, **BY_SIGNALS, **BY_LISTENERS}
"""All that can be measured, and the numbers that each gives."""

FREE = (*METRICS, "timing")
"""Those that need nothing but the installation: what `--metrics all` stands for."""


def _timing_definitions(activities: str, boundary: str) -> dict[str, str]:
    frames = (
        f"frames of {FRAME_S * 1000:g} ms; {activities} (wesep_py.inference.activity.speech_mask), pauses under "
        f"{PAUSE_S:g} s closed; {COLLAR_S:g} s before and after each boundary of the {boundary} not counted"
    )
    return {
        "timing_precision": f"share of the estimate's active frames in which the target speaks, 0 to 1; {frames}",
        "timing_recall": f"share of the frames in which the target speaks that are active in the estimate, 0 to 1; "
        f"{frames}",
        "timing_f1": "harmonic mean of timing_precision and timing_recall of each trial, 0 to 1",
    }


_MOS = "1 to 5 (speechmos)"
MEASURE_DEFINITIONS: dict[str, str] = {
    **DEFINITIONS,
    **_timing_definitions("activity of estimate and reference by energy", "reference"),
    "dnsmos_ovrl": f"DNSMOS P.835 overall opinion, {_MOS}",
    "dnsmos_sig": f"DNSMOS P.835 opinion of the speech, {_MOS}",
    "dnsmos_bak": f"DNSMOS P.835 opinion of the background, {_MOS}",
    "dnsmos_p808": f"DNSMOS P.808 overall opinion, {_MOS}",
    "pdnsmos_ovrl": f"personalised DNSMOS P.835 overall opinion, {_MOS}",
    "pdnsmos_sig": f"personalised DNSMOS P.835 opinion of the speech, {_MOS}",
    "pdnsmos_bak": f"personalised DNSMOS P.835 opinion of the background, {_MOS}",
    "similarity": "cosine of the embeddings of estimate and enrollment, -1 to 1",
    "wer": "word error rate: words to insert, delete or replace over words of the reference, all trials together; "
    "case and punctuation do not count, each ideograph is a word",
}
"""What each number means, in the words that results carry with them."""

LABELLED = _timing_definitions(
    "the target speaks where the labels say so; activity of the estimate by energy", "labels"
)
"""Those that mean something else where labels are given."""


def check_measures(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, if all of them can be measured.

    Raises:
        InputError: an unknown name; the nearest known one is named. No name.
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in MEASURES:
            raise InputError(f"metric {name!r} is not known; {nearest(name, MEASURES)}")
    if not chosen:
        raise InputError(f"no metric was named; {nearest('', MEASURES)}")
    return chosen


def parse_measures(text: str) -> tuple[str, ...]:
    """The measures of a command line, by commas; `all` stands for `FREE`.

    >>> parse_measures("si_sdr, pesq")
    ('si_sdr', 'pesq')
    """
    named = [name.strip() for name in text.split(",") if name.strip()]
    return check_measures(each for name in named for each in (FREE if name == "all" else (name,)))


def check_possible(chosen: Sequence[str], referenced: bool, labelled: bool) -> None:
    """Refuse, before anything is extracted, what cannot be measured of any trial.

    Args:
        chosen: from `check_measures`.
        referenced: whether any trial has a reference.
        labelled: whether there are labels.

    Raises:
        InputError: a metric that needs references, or labels; one whose package cannot be imported.
    """
    for name in chosen:
        if name in METRICS and not referenced:
            raise InputError(
                f"metric {name!r} needs references, and there are none; choose of timing (with --labels), dnsmos, "
                "pdnsmos, similarity (with --speaker-model), wer (with --recogniser) with --metrics"
            )
        if name == "timing" and not referenced and not labelled:
            raise InputError("metric 'timing' needs references or labels; give --labels")
        if name in ("dnsmos", "pdnsmos"):
            try:
                load_network()
            except MetricError as error:
                raise InputError(f"metric {name!r}: {error}") from error


def measure(
    estimate: np.ndarray,
    reference: np.ndarray | None,
    sample_rate: int,
    names: Sequence[str],
    mixture: np.ndarray | None,
    interferers: Sequence[np.ndarray] | None,
    activity: np.ndarray | None = None,
) -> Scores:
    """As `metrics.score`, with `BY_SIGNALS` too; those of listeners are passed over.

    Args:
        estimate, sample_rate, mixture, interferers: as `metrics.score`.
        reference: likewise; without one, what needs it is missing.
        names: out of `MEASURES`.
        activity: when the target speaks, bool in frames of `timing.FRAME_S`; `None`: where the reference does.
    """
    scores = Scores()
    for name in names:
        if name in BY_LISTENERS:
            continue
        try:
            if name in METRICS and reference is None:
                raise MetricError("there is no reference")
            if name in METRICS and reference is not None:
                found = score(estimate, reference, sample_rate, (name,), mixture, interferers)
                scores.values.update(found.values)
                scores.missing.update(found.missing)
            else:
                numbers = _COMPUTE[name](estimate, reference, sample_rate, activity)
                scores.values.update(zip(BY_SIGNALS[name], numbers, strict=False))
        except MetricError as error:
            scores.missing.update(dict.fromkeys(MEASURES[name], str(error)))
        except Exception as error:  # of whatever kind: it costs this metric of this trial, not the run
            scores.missing.update(dict.fromkeys(MEASURES[name], reason(error)))
    return scores


def _timing(
    estimate: np.ndarray, reference: np.ndarray | None, sample_rate: int, activity: np.ndarray | None
) -> tuple[float, float, float]:
    if activity is None:
        if reference is None:
            raise MetricError("there is neither a reference nor a label")
        estimate, reference = checked_pair(estimate, reference)
        activity = _speaks(reference, sample_rate)
    elif not activity.any():
        raise MetricError("the labels say that the target does not speak")
    estimate = checked(estimate, "estimate")
    return timing(_speaks(estimate, sample_rate) & (not is_silent(estimate)), activity)


def _speaks(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    return speech_mask(signal.astype(np.float32), sample_rate)[:: max(1, round(FRAME_S * sample_rate))]


Computed = Callable[[np.ndarray, "np.ndarray | None", int, "np.ndarray | None"], Iterable[float]]
_COMPUTE: dict[str, Computed] = {
    "timing": _timing,
    "dnsmos": lambda estimate, _, sample_rate, __: dnsmos(estimate, sample_rate).values(),
    "pdnsmos": lambda estimate, _, sample_rate, __: dnsmos(estimate, sample_rate, personalised=True).values(),
}
