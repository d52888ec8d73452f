"""Summarise the trials of a run: means with bootstrap intervals, breakdowns, and the protocol of the measurement.

`summarise` makes the content of `summary.json`. Every summary carries its protocol: the definition of each value, the
trials, the model, the software and the command, so that the same numbers can be measured again.
"""

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
from wesep_py.audio.reading import FileSegment
from wesep_py.common.names import printable
from wesep_py.data.mixture_lists import GROUP_COLUMN
from wesep_py.evaluation.protocols import find_protocol
from wesep_py.evaluation.results import TrialRecord
from wesep_py.evaluation.scoring import (
    ALL_METRICS,
    BASELINE_DEFINITIONS,
    BASELINE_SUFFIX,
    LABELLED_DEFINITIONS,
    METRIC_DEFINITIONS,
    detected_definitions,
)
from wesep_py.evaluation.trial_conditions import (
    CONDITION_DEFINITIONS,
    CONDITION_EDGES,
    SIR_EDGES_DB,
    UNKNOWN,
    bin_name,
)
from wesep_py.simulation.trial_audio import CONDITIONS

if TYPE_CHECKING:
    from wesep_py.data.trials import Trial
    from wesep_py.evaluation.evaluator import EvaluationOptions, ScoringOptions
    from wesep_py.inference import Extractor

DETECTED_DB = 20.0
"""The target counts as detected where the output is less than this far below the mixture."""
DEFAULT_PRESENCE_THRESHOLD = 0.5
"""The probability from which a model without calibration detects the target."""
DECISION = {
    "by_level": f"the target is detected if the output is less than {DETECTED_DB:g} dB below the mixture "
    "(attenuation_db)",
    "by_presence": "the target is detected if the model gives it a probability of at least its own threshold "
    f"(presence_calibration; {DEFAULT_PRESENCE_THRESHOLD:g} where it is not calibrated)",
    "by_verifier": "the target is detected if the presence verifier gives it a probability of at least its threshold "
    "(presence_verifier)",
    "false_alarm_rate": "share of the trials with an absent target, or with a silent reference, whose target is "
    "detected, 0 to 1",
    "retention": "share of the trials with a target whose target is detected, 0 to 1; the others are missed",
}
Thresholds = tuple[float, float | None]
"""Lowest probabilities at which a target is detected: of the presence head, and of the verifier if there is one."""
RESAMPLES = 2000
CONFIDENCE = 0.95
RECORDED = "recordings: as they are"
"""The condition of a list of recordings without their sources."""
INTERVAL_DEFINITION = (
    f"{CONFIDENCE:.0%} percentile bootstrap (Efron and Tibshirani, 1993) over mixtures: all trials of a mixture "
    f"are drawn together; {RESAMPLES} resamples, seed 0"
)
PACKAGES = ("torch", "numpy", "scipy", "soundfile", "soxr", "fast_bss_eval", "pesq", "pystoi", "speechmos", "jiwer")


def summarise(records: Sequence[TrialRecord], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `summary.json`.

    Args:
        records: one per trial, in any order.
        protocol: from `describe_evaluation`; names every metric of the run.

    Returns:
        A dictionary for JSON: each metric as `{mean, low, high, count}` over the scored trials; `counts`; `missing`
        (reasons and their number, for each metric); `absent` and `silent_reference` with attenuation and false-alarm
        rate, the first also with the retention; `speed`; `failed`, which names each failed trial; `breakdown`;
        `protocol`.
    """
    scored = [record for record in records if record.outcome == "scored"]
    names = [name for name in protocol["metrics"] if name != "attenuation_db"]
    outcomes = Counter(record.outcome for record in records)
    thresholds = presence_threshold(protocol), verifier_threshold(protocol)
    return {
        **_metrics(scored, names),
        "counts": {
            "trials": len(records),
            **{outcome: outcomes[outcome] for outcome in ("scored", "silent_reference", "absent", "failed")},
            "silent_estimate": sum(record.silent_estimate for record in scored),
            **({"repaired": sum(bool(r.repaired) for r in records)} if "repair" in protocol else {}),
        },
        "missing": {
            name: dict(Counter(record.missing[name] for record in scored if name in record.missing))
            for name in names
            if any(name in record.missing for record in scored)
        },
        "absent": {
            **_without_target(records, "absent", thresholds),
            "retention": _detection_rates(scored, thresholds),
        },
        "silent_reference": _without_target(records, "silent_reference", thresholds),
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


def presence_threshold(protocol: Mapping[str, Any]) -> float:
    """Return the probability from which the model of a protocol detects the target."""
    return float((protocol.get("presence_calibration") or {}).get("threshold", DEFAULT_PRESENCE_THRESHOLD))


def verifier_threshold(protocol: Mapping[str, Any]) -> float | None:
    """Return the probability from which a protocol's verifier detects the target; `None` without a calibrated one."""
    calibration = (protocol.get("presence_verifier") or {}).get("calibration")
    return None if calibration is None else float(calibration["threshold"])


def _metrics(scored: Sequence[TrialRecord], names: Sequence[str]) -> dict[str, Any]:
    intervals = {}
    for name in names:
        measured = [record for record in scored if name in record.values]
        weights = [record.weights.get(name, 1.0) for record in measured]
        values = [record.values[name] for record in measured]
        mixtures = [record.mixture_id for record in measured]
        intervals[name] = bootstrap_mean(values, mixtures, weights=weights).to_dict()
    return intervals


def _without_target(records: Sequence[TrialRecord], outcome: str, thresholds: Thresholds) -> dict[str, Any]:
    matching = [record for record in records if record.outcome == outcome]
    return {
        "count": len(matching),
        "attenuation_db": _mean_of(matching, lambda record: record.attenuation_db),
        "false_alarm_rate": _detection_rates(matching, thresholds),
    }


def _detection_rates(records: Sequence[TrialRecord], thresholds: Thresholds) -> dict[str, Any]:
    """Return the share of detected targets by each rule of `DECISION`; null where a rule has no input."""

    def by_level(record: TrialRecord) -> float | None:
        return None if record.attenuation_db is None else float(record.attenuation_db < DETECTED_DB)

    def by_presence(record: TrialRecord) -> float | None:
        return None if record.presence is None else float(record.presence >= thresholds[0])

    def by_verifier(record: TrialRecord) -> float | None:
        missing = record.verified is None or thresholds[1] is None
        return None if missing else float(record.verified >= thresholds[1])

    rules = {"by_level": by_level, "by_presence": by_presence, "by_verifier": by_verifier}
    if thresholds[1] is None:
        del rules["by_verifier"]
    return {name: _mean_of(records, rule) for name, rule in rules.items()}


def _mean_of(records: Sequence[TrialRecord], value_of: Callable[[TrialRecord], float | None]) -> dict[str, Any]:
    pairs = [(value, record.mixture_id) for record in records if (value := value_of(record)) is not None]
    return bootstrap_mean([value for value, _ in pairs], [mixture for _, mixture in pairs]).to_dict()


def _speed(records: Sequence[TrialRecord], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the real-time factor: time of enrolling and extracting over duration of the mixtures."""
    timed = [(r.extraction_s, r.duration_s) for r in records if r.extraction_s and r.duration_s]
    audio_s = sum(duration_s for _, duration_s in timed)
    return {
        "rtf": sum(extraction_s for extraction_s, _ in timed) / audio_s if timed else None,
        "audio_s": audio_s,
        "threads": protocol["threads"],
        "device": protocol["device"],
    }


def _breakdown(scored: Sequence[TrialRecord], names: Sequence[str]) -> dict[str, Any]:
    """Return the metrics by SIR and, where they are known, by the other conditions and by the speakers."""
    tables = {"sir_db": _binned(scored, "sir_db")}
    for key in ("num_speakers", "gender_pair", "age_group"):
        known = [record for record in scored if getattr(record, key) not in (None, 0)]
        if known:
            groups = _grouped((str(getattr(record, key)), record) for record in known)
            tables[key] = dict(sorted(groups.items()))
    for name in dict.fromkeys(name for record in scored for name in record.groups):
        groups = _grouped((record.groups.get(name, UNKNOWN), record) for record in scored)
        tables[f"{GROUP_COLUMN}{name}"] = dict(sorted(groups.items()))
    for key in CONDITION_EDGES:
        if key != "sir_db" and any(getattr(record, key) is not None for record in scored):
            tables[key] = _binned(scored, key)
    return {
        key: {group: {"trials": len(members), **_metrics(members, names)} for group, members in groups.items()}
        for key, groups in tables.items()
    }


def _binned(scored: Sequence[TrialRecord], key: str) -> dict[str, list[TrialRecord]]:
    """Return the trials in the bins of a condition, lowest first and unknown last."""

    def value_of(record: TrialRecord) -> float:
        value = getattr(record, key)
        return float("inf") if value is None else value

    groups = _grouped((bin_name(getattr(r, key), CONDITION_EDGES[key]), r) for r in sorted(scored, key=value_of))
    unknown = groups.pop(UNKNOWN, None)
    return groups if unknown is None else {**groups, UNKNOWN: unknown}


def _grouped(named: Iterable[tuple[str, TrialRecord]]) -> dict[str, list[TrialRecord]]:
    groups: dict[str, list[TrialRecord]] = {}
    for name, record in named:
        groups.setdefault(name, []).append(record)
    return groups


def sir_bin(sir_db: float | None) -> str:
    """Return the name of the bin of an SIR; a bin includes its lower edge.

    >>> sir_bin(-5.0), sir_bin(12.0), sir_bin(None)
    ('-5 to 0', 'from 10', 'unknown')
    """
    return bin_name(sir_db, SIR_EDGES_DB)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval and the number of values behind it.

    Attributes:
        mean: `None` where there is no value.
        low: lower end; `None` where fewer than two mixtures have a value, because the spread is then unknown.
        high: upper end, likewise.
        count: number of values.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Return `{"mean": …, "low": …, "high": …, "count": …}`."""
        return asdict(self)


def bootstrap_mean(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    weights: Sequence[float] | None = None,
) -> Interval:
    """Return the mean of the values with its 95 % bootstrap interval (percentile method).

    Trials of one mixture share its voices and its noise, so their values are correlated. Drawing whole groups keeps
    the correlation: an interval over single trials would be too narrow.

    Args:
        values: one number per trial.
        groups: the mixture of each trial; `None`: each value is a group of its own.
        seed: of the resampling; the same values always give the same interval.
        resamples: number of bootstrap samples.
        weights: positive weight of each value in the mean; `None`: equal weights.

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
    # The mean of a resample is a ratio of sums over its groups: sums and weights per group are enough, and a group
    # with more trials counts more.
    value_weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    sums = np.bincount(membership, weights=value_weights * np.asarray(values, dtype=np.float64), minlength=num_groups)
    counts = np.bincount(membership, weights=value_weights, minlength=num_groups)
    drawn = _draw_groups(seed, resamples, num_groups)
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high), len(values))


@lru_cache(maxsize=4)
def _draw_groups(seed: int, resamples: int, num_groups: int) -> np.ndarray:
    """Return the groups of each resample, `[resamples, num_groups]`; the metrics of one set of trials share it."""
    drawn = np.random.default_rng(seed).integers(num_groups, size=(resamples, num_groups))
    drawn.setflags(write=False)
    return drawn


def describe_evaluation(extractor: Extractor, trials: Sequence[Trial], options: EvaluationOptions) -> dict[str, Any]:
    """Return the protocol of `evaluate`: everything that is needed to measure the same numbers again.

    Returns:
        A dictionary for JSON: definition of every value, condition, trials, model, software, command, date.
    """
    mixed = any(trial.sources for trial in trials)
    return {
        **describe_metrics(options),
        "condition": f"{options.condition}: {CONDITIONS[options.condition]}" if mixed else RECORDED,
        "sample_rate": extractor.sample_rate,
        "trials": {"count": len(trials), "sha256": trials_fingerprint(trials)},
        "model": {"name": extractor.name, "hash": extractor.model_hash},
        "presence_calibration": asdict(extractor.calibration),
        **_describe_verifier(extractor),
        "max_enrollment_s": getattr(extractor, "max_enrollment_s", None),
        "shifts": getattr(extractor, "shifts", 1),
        "mode": getattr(extractor, "mode", "offline"),
        **({"repair": repair} if (repair := getattr(extractor, "repair", "none")) != "none" else {}),
        "device": str(extractor.device),
        **describe_environment(options.command),
    }


def _describe_verifier(extractor: Extractor) -> dict[str, Any]:
    """Return what the presence verifier of an extractor is; nothing without one."""
    verifier = getattr(extractor, "verifier", None)
    if verifier is None:
        return {}
    calibration = None if verifier.calibration is None else asdict(verifier.calibration)
    about = {"encoder": verifier.name, "encoder_hash": verifier.encoder_hash, "calibration": calibration}
    return {"presence_verifier": about}


def describe_metrics(options: ScoringOptions) -> dict[str, Any]:
    """Return the definitions of metrics, intervals, breakdowns and decisions, and what the backends and labels are."""
    names = [name for metric in options.metrics for name in ALL_METRICS[metric]]
    meaning = {**METRIC_DEFINITIONS, **BASELINE_DEFINITIONS}
    if options.labels is not None:
        meaning |= LABELLED_DEFINITIONS
    if options.detector is not None:
        meaning |= detected_definitions(options.detector.name, options.labels is not None)
    if options.baseline:
        names += [f"{backend.name}{BASELINE_SUFFIX}" for backend in options.backends]
    scoring = find_protocol(options.protocol)
    if scoring is not None:
        meaning = {**meaning, **scoring.definitions}
    return {
        "metrics": {name: meaning[name] for name in (*names, "attenuation_db")},
        "interval": INTERVAL_DEFINITION,
        **CONDITION_DEFINITIONS,
        "decision": dict(DECISION),
        **({} if scoring is None else {"scoring": scoring.describe()}),
        **{backend.name: backend.describe() for backend in options.backends},
        **({} if options.labels is None else {"labels": options.labels.describe()}),
        **({} if options.detector is None else {"vad": options.detector.describe()}),
    }


def describe_environment(command: str | None = None) -> dict[str, Any]:
    """Return the software, the command (by default that of this process) and the date of a measurement."""
    torch = sys.modules.get("torch")
    return {
        "threads": int(torch.get_num_threads()) if torch else None,
        "versions": _versions(),
        "command": printable(command if command is not None else shlex.join(sys.argv)),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def trials_fingerprint(trials: Iterable[Trial]) -> str:
    """Return the SHA-256 of mixture, target, sources with gains, noise and enrollment of all trials, without folders.

    That of a segment of a recording includes its file and times.

    Two results with the same fingerprint and condition were measured on the same list.
    """
    digest = hashlib.sha256()
    for trial in trials:
        noise = trial.noise and (trial.noise.path.name, trial.noise.gain, trial.noise.offset_s)
        sources = [(source.utterance_id, source.path.name, source.gain) for source in trial.sources]
        enrollment_sources = [source.utterance_id for source in trial.enrollment_sources]
        line = (trial.mixture_id, trial.target_utterance_id, trial.enrollment.name, sources, noise, enrollment_sources)
        segments = [] if trial.sources else [path.name for path in trial.rendered.values() if FileSegment.parse(path)]
        digest.update(repr((*line, segments[0]) if segments else line).encode() + b"\n")
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {"wesep-py": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
