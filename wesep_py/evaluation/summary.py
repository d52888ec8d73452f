"""All trials in a few numbers, each with its interval, its count and how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from wesep_py.evaluation.bootstrap import bootstrap_mean
from wesep_py.evaluation.conditions import EDGES, SIR_EDGES_DB, UNKNOWN, bin_of
from wesep_py.evaluation.record import TrialRecord

HEARD_DB = 20.0
"""An output less than so many dB below the mixture counts as an extracted voice."""
PRESENT = 0.5
"""From this probability on a model says that the voice is there, if its calibration names no other threshold."""

DECISION = {
    "by_level": f"the voice is taken to be there if the output is less than {HEARD_DB:g} dB below the mixture "
    "(attenuation_db)",
    "by_presence": "the voice is taken to be there if the model gives it a probability of at least its own threshold "
    f"(presence_calibration; {PRESENT:g} where it is not calibrated)",
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
    threshold = threshold_of(protocol)
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


def threshold_of(protocol: Mapping[str, Any]) -> float:
    """From which probability on the model that a protocol speaks of takes a voice to be there."""
    return float((protocol.get("presence_calibration") or {}).get("threshold", PRESENT))


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
        "by_level": _mean_of(chosen, lambda record: _below(record.attenuation_db, HEARD_DB)),
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
    for key in EDGES:
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

    groups = _grouped((bin_of(getattr(r, key), EDGES[key]), r) for r in sorted(scored, key=value_of))
    unknown = groups.pop(UNKNOWN, None)
    return groups if unknown is None else {**groups, UNKNOWN: unknown}


def _grouped(named: Iterable[tuple[str, TrialRecord]]) -> dict[str, list[TrialRecord]]:
    groups: dict[str, list[TrialRecord]] = {}
    for name, record in named:
        groups.setdefault(name, []).append(record)
    return groups
