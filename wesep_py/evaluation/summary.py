"""How the numbers were measured: stands beside them in every summary (law 7)."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from wesep_py import __version__
from wesep_py.common.names import printable
from wesep_py.evaluation.results import TrialRecord
from wesep_py.evaluation.scoring import LABELLED_DEFINITIONS, METRIC_DEFINITIONS, ALL_METRICS
from wesep_py.evaluation.trial_conditions import CONDITION_DEFINITIONS as BREAKDOWNS
from wesep_py.evaluation.trial_conditions import CONDITION_EDGES, SIR_EDGES_DB, UNKNOWN, bin_of
from wesep_py.simulation.trial_audio import CONDITIONS

if TYPE_CHECKING:
    from wesep_py.data.trials import Trial
    from wesep_py.evaluation.activity_labels import ActivityLabels
    from wesep_py.evaluation.scoring import MetricBackend
    from wesep_py.inference import Extractor


# ----------------------------------------
# How sure a mean is: bootstrap intervals that respect which trials belong together.

RESAMPLES = 2000
CONFIDENCE = 0.95
INTERVAL_DEFINITION = (
    f"{CONFIDENCE:.0%} percentile bootstrap (Efron and Tibshirani, 1993) over mixtures: all trials of a mixture "
    f"are drawn together; {RESAMPLES} resamples, seed 0"
)


@dataclass(frozen=True)
class Interval:
    """A mean, the interval it lies in with 95 % confidence, and the number of values behind it.

    Attributes:
        mean: None where there is no value.
        low: lower end; None where fewer than two mixtures have a value, for then nothing is known of the spread.
        high: upper end, likewise.
        count: number of values.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int

    def to_dict(self) -> dict[str, float | int | None]:
        """`{"mean": …, "low": …, "high": …, "count": …}`."""
        return asdict(self)


def bootstrap_mean(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    weights: Sequence[float] | None = None,
) -> Interval:
    """The mean of the values with its 95 % bootstrap interval (percentile method).

    Trials of one mixture share its voices and its noise, so their values go up and down together. Drawing whole
    groups keeps that: an interval over single trials would be too narrow.

    Args:
        values: one number a trial.
        groups: the mixture of each trial; None: each value is a group of its own.
        seed: of the resampling; the same values always give the same interval.
        resamples: number of bootstrap samples.
        weights: positive, of each value in the mean; None: all alike.

    Returns:
        The interval.

    Raises:
        ValueError: `groups` or `weights` has another length than `values`.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, sections 8.3 and 13.3.

    >>> bootstrap_mean([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0, count=3)
    """
    groups = range(len(values)) if groups is None else groups
    if len(groups) != len(values):
        raise ValueError(f"there are {len(groups)} groups for {len(values)} values")
    if weights is not None and len(weights) != len(values):
        raise ValueError(f"there are {len(weights)} weights for {len(values)} values")
    if not len(values):
        return Interval(None, None, None, 0)
    mean = float(np.average(values, weights=weights))
    indices: dict[Hashable, int] = {}
    membership = np.array([indices.setdefault(group, len(indices)) for group in groups])
    num_groups = len(indices)
    if num_groups < 2:
        return Interval(mean, None, None, len(values))
    each = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    sums = np.bincount(membership, weights=each * np.asarray(values, dtype=np.float64), minlength=num_groups)
    counts = np.bincount(membership, weights=each, minlength=num_groups)
    drawn = _draw(seed, resamples, num_groups)
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high), len(values))


@lru_cache(maxsize=4)
def _draw(seed: int, resamples: int, num_groups: int) -> np.ndarray:
    """Which groups each resample has, `[resamples, num_groups]`; the metrics of one set of trials share it."""
    drawn = np.random.default_rng(seed).integers(num_groups, size=(resamples, num_groups))
    drawn.setflags(write=False)
    return drawn


# ----------------------------------------
# All trials in a few numbers, each with its interval, its count and how it was measured.

DETECTED_DB = 20.0
"""An output less than so many dB below the mixture counts as an extracted voice."""
DEFAULT_PRESENCE_THRESHOLD = 0.5
"""From this probability on a model says that the voice is there, if its calibration names no other threshold."""
DECISION = {
    "by_level": f"the voice is taken to be there if the output is less than {DETECTED_DB:g} dB below the mixture "
    "(attenuation_db)",
    "by_presence": "the voice is taken to be there if the model gives it a probability of at least its own threshold "
    f"(presence_calibration; {DEFAULT_PRESENCE_THRESHOLD:g} where it is not calibrated)",
    "false_alarm_rate": "share of the trials with an absent target, or with a silent reference, whose voice is taken "
    "to be there, 0 to 1",
    "retention": "share of the trials with a target whose voice is taken to be there, 0 to 1; the rest is lost",
}


def summarise(records: Sequence[TrialRecord], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        records: one a trial, in any order.
        protocol: from `protocol.describe`; names every metric that was asked for.

    Returns:
        A dictionary for JSON: each metric `{mean, low, high, count}` over the scored trials; `counts`; `missing`
        (reasons and how often, for each metric); `absent` and `silent_reference` with their attenuation and false-alarm
        rate, the first also with the retention; `speed`; `failed`, which names each one; `breakdown`; `protocol`.
    """
    scored = [record for record in records if record.outcome == "scored"]
    names = [name for name in protocol["metrics"] if name != "attenuation_db"]
    outcomes = Counter(record.outcome for record in records)
    threshold = presence_threshold(protocol)
    return {
        **_metrics(scored, names),
        "counts": {
            "trials": len(records),
            **{outcome: outcomes[outcome] for outcome in ("scored", "silent_reference", "absent", "failed")},
            "silent_estimate": sum(record.silent_estimate for record in scored),
        },
        "missing": {
            name: dict(Counter(record.missing[name] for record in scored if name in record.missing))
            for name in names
            if any(name in record.missing for record in scored)
        },
        "absent": {
            **_nothing_there(records, "absent", threshold),
            "retention": _decided(scored, threshold),
        },
        "silent_reference": _nothing_there(records, "silent_reference", threshold),
        "speed": _speed(records, protocol),
        "failed": [
            {
                "mixture_id": record.mixture_id,
                "target_utterance_id": record.target_utterance_id,
                "error": record.error,
            }
            for record in records
            if record.outcome == "failed"
        ],
        "breakdown": _breakdown(scored, names),
        "protocol": dict(protocol),
    }


def sir_bin(sir_db: float | None) -> str:
    """The name of the bin that an SIR falls in; the lower edge belongs to the bin.

    >>> sir_bin(-5.0), sir_bin(12.0), sir_bin(None)
    ('-5 to 0', 'from 10', 'unknown')
    """
    return bin_of(sir_db, SIR_EDGES_DB)


def presence_threshold(protocol: Mapping[str, Any]) -> float:
    """From which probability on the model that a protocol speaks of takes a voice to be there."""
    return float((protocol.get("presence_calibration") or {}).get("threshold", DEFAULT_PRESENCE_THRESHOLD))


def _metrics(scored: Sequence[TrialRecord], names: Sequence[str]) -> dict[str, Any]:
    result = {}
    for name in names:
        having = [record for record in scored if name in record.values]
        weights = [record.weights.get(name, 1.0) for record in having]
        values = [record.values[name] for record in having]
        mixtures = [record.mixture_id for record in having]
        result[name] = bootstrap_mean(values, mixtures, weights=weights).to_dict()
    return result


def _nothing_there(records: Sequence[TrialRecord], outcome: str, threshold: float) -> dict[str, Any]:
    chosen = [record for record in records if record.outcome == outcome]
    return {
        "count": len(chosen),
        "attenuation_db": _mean_of(chosen, lambda record: record.attenuation_db),
        "false_alarm_rate": _decided(chosen, threshold),
    }


def _decided(chosen: Sequence[TrialRecord], threshold: float) -> dict[str, Any]:
    """How often the voice is taken to be there, by each rule of `DECISION`; null where a rule has no input."""
    return {
        "by_level": _mean_of(chosen, lambda record: _below(record.attenuation_db, DETECTED_DB)),
        "by_presence": _mean_of(chosen, lambda record: _at_least(record.presence, threshold)),
    }


def _below(value: float | None, limit: float) -> float | None:
    return None if value is None else float(value < limit)


def _at_least(value: float | None, limit: float) -> float | None:
    return None if value is None else float(value >= limit)


def _mean_of(records: Sequence[TrialRecord], value_of: Callable[[TrialRecord], float | None]) -> dict[str, Any]:
    pairs = [(value, record.mixture_id) for record in records if (value := value_of(record)) is not None]
    return bootstrap_mean([value for value, _ in pairs], [mixture for _, mixture in pairs]).to_dict()


def _speed(records: Sequence[TrialRecord], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Real-time factor: time of enrolling and extracting over duration of the mixtures."""
    timed = [(r.extraction_s, r.duration_s) for r in records if r.extraction_s and r.duration_s]
    return {
        "rtf": sum(spent for spent, _ in timed) / sum(length for _, length in timed) if timed else None,
        "audio_s": sum(length for _, length in timed),
        "threads": protocol["threads"],
        "device": protocol["device"],
    }


def _breakdown(scored: Sequence[TrialRecord], names: Sequence[str]) -> dict[str, Any]:
    """Metrics by SIR and, where they are known, by the other conditions and by the speakers."""
    tables = {"sir_db": _binned(scored, "sir_db")}
    for key in ("num_speakers", "gender_pair", "age_group"):
        known = [record for record in scored if getattr(record, key) not in (None, 0)]
        if known:
            groups = _grouped((str(getattr(record, key)), record) for record in known)
            tables[key] = dict(sorted(groups.items()))
    for key in CONDITION_EDGES:
        if key != "sir_db" and any(getattr(record, key) is not None for record in scored):
            tables[key] = _binned(scored, key)
    return {
        key: {group: {"trials": len(members), **_metrics(members, names)} for group, members in groups.items()}
        for key, groups in tables.items()
    }


def _binned(scored: Sequence[TrialRecord], key: str) -> dict[str, list[TrialRecord]]:
    """The trials in the bins of a condition, lowest first and unknown last."""

    def value_of(record: TrialRecord) -> float:
        value = getattr(record, key)
        return float("inf") if value is None else value

    groups = _grouped((bin_of(getattr(r, key), CONDITION_EDGES[key]), r) for r in sorted(scored, key=value_of))
    unknown = groups.pop(UNKNOWN, None)
    return groups if unknown is None else {**groups, UNKNOWN: unknown}


def _grouped(named: Iterable[tuple[str, TrialRecord]]) -> dict[str, list[TrialRecord]]:
    groups: dict[str, list[TrialRecord]] = {}
    for name, record in named:
        groups.setdefault(name, []).append(record)
    return groups


INTERVAL = INTERVAL_DEFINITION
PACKAGES = ("torch", "numpy", "scipy", "soundfile", "soxr", "fast_bss_eval", "pesq", "pystoi", "speechmos")


def describe_evaluation(
    extractor: Extractor,
    trials: Sequence[Trial],
    condition: str,
    metrics: Iterable[str],
    command: str | None = None,
    listeners: Iterable[MetricBackend] = (),
    labels: ActivityLabels | None = None,
) -> dict[str, Any]:
    """Everything that is needed to measure the same numbers again.

    Args:
        extractor: the model.
        trials: all trials, in order.
        condition: "clean" or "noisy".
        metrics: names out of `measures.ALL_METRICS`.
        command: the command line; None: that of this process.
        listeners: what else measures.
        labels: what says when the targets speak, where it is not their references.

    Returns:
        A dictionary for JSON: definition of every metric, condition, trials, model, software, command, date.
    """
    return {
        **describe_metrics(metrics, listeners, labels),
        "condition": f"{condition}: {CONDITIONS[condition]}",
        "sample_rate": extractor.sample_rate,
        "trials": {"count": len(trials), "sha256": trials_fingerprint(trials)},
        "model": {"name": extractor.name, "hash": extractor.model_hash},
        "presence_calibration": asdict(extractor.calibration),
        "max_enrollment_s": getattr(extractor, "max_enrollment_s", None),
        "device": str(extractor.device),
        **describe_environment(command),
    }


def describe_metrics(
    metrics: Iterable[str], listeners: Iterable[MetricBackend] = (), labels: ActivityLabels | None = None
) -> dict[str, Any]:
    """What every number means: of each metric, of intervals, breakdowns and decisions, and what listens."""
    names = [name for metric in metrics for name in ALL_METRICS[metric]]
    meaning = METRIC_DEFINITIONS if labels is None else {**METRIC_DEFINITIONS, **LABELLED_DEFINITIONS}
    return {
        "metrics": {name: meaning[name] for name in (*names, "attenuation_db")},
        "interval": INTERVAL,
        **BREAKDOWNS,
        "decision": dict(DECISION),
        **{listener.name: listener.describe() for listener in listeners},
        **({} if labels is None else {"labels": labels.describe()}),
    }


def describe_environment(command: str | None = None) -> dict[str, Any]:
    """By what software, which command (by default that of this process) and when something was measured."""
    return {
        "threads": _num_threads(),
        "versions": _versions(),
        "command": printable(command if command is not None else shlex.join(sys.argv)),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def trials_fingerprint(trials: Iterable[Trial]) -> str:
    """SHA-256 over mixture, target, sources with gains, noise and enrollment of all trials, without folders.

    Two results with the same trials_fingerprint and condition were measured on the same list.
    """
    digest = hashlib.sha256()
    for trial in trials:
        noise = trial.noise and (trial.noise.path.name, trial.noise.gain, trial.noise.offset_s)
        sources = [(source.utterance_id, source.path.name, source.gain) for source in trial.sources]
        mates = [source.utterance_id for source in trial.enrollment_sources]
        line = (trial.mixture_id, trial.target_utterance_id, trial.enrollment.name, sources, noise, mates)
        digest.update(repr(line).encode() + b"\n")
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {"wesep-py": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _num_threads() -> int | None:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else None
