"""All trials in a few numbers, each with its interval, its count and how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wesep_py.evaluation.bootstrap import bootstrap_mean
from wesep_py.evaluation.record import TrialRecord

SIR_EDGES_DB = (-10.0, -5.0, 0.0, 5.0, 10.0)


def summarise(records: Sequence[TrialRecord], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        records: one a trial, in any order.
        protocol: from `protocol.describe`; names every metric that was asked for.

    Returns:
        A dictionary for JSON: each metric `{mean, low, high, count}` over the scored trials; `counts`; `missing`
        (reasons and how often, for each metric); `absent` and `silent_reference` with their attenuation; `speed`;
        `failed`, which names each one; `breakdown`; `protocol`.
    """
    scored = [record for record in records if record.outcome == "scored"]
    names = [name for name in protocol["metrics"] if name != "attenuation_db"]
    outcomes = Counter(record.outcome for record in records)
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
        "absent": _attenuation(records, "absent"),
        "silent_reference": _attenuation(records, "silent_reference"),
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
    if sir_db is None:
        return "unknown"
    above = sum(sir_db >= edge for edge in SIR_EDGES_DB)
    if above == 0:
        return f"under {SIR_EDGES_DB[0]:g}"
    if above == len(SIR_EDGES_DB):
        return f"from {SIR_EDGES_DB[-1]:g}"
    return f"{SIR_EDGES_DB[above - 1]:g} to {SIR_EDGES_DB[above]:g}"


def _metrics(scored: Sequence[TrialRecord], names: Sequence[str]) -> dict[str, Any]:
    result = {}
    for name in names:
        having = [record for record in scored if name in record.values]
        values = [record.values[name] for record in having]
        result[name] = bootstrap_mean(values, [record.mixture_id for record in having]).to_dict()
    return result


def _attenuation(records: Sequence[TrialRecord], outcome: str) -> dict[str, Any]:
    chosen = [record for record in records if record.outcome == outcome]
    values = [record.attenuation_db for record in chosen if record.attenuation_db is not None]
    return {
        "count": len(chosen),
        "attenuation_db": bootstrap_mean(values, [record.mixture_id for record in chosen]).to_dict(),
    }


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
    """Metrics by SIR and, where they are known, by number, genders and age of the speakers."""
    ordered = sorted(scored, key=lambda record: float("inf") if record.sir_db is None else record.sir_db)
    tables = {"sir_db": _grouped((sir_bin(record.sir_db), record) for record in ordered)}
    for key in ("num_speakers", "gender_pair", "age_group"):
        known = [record for record in scored if getattr(record, key) is not None]
        if known:
            groups = _grouped((str(getattr(record, key)), record) for record in known)
            tables[key] = dict(sorted(groups.items()))
    return {
        key: {group: {"trials": len(members), **_metrics(members, names)} for group, members in groups.items()}
        for key, groups in tables.items()
    }


def _grouped(named: Iterable[tuple[str, TrialRecord]]) -> dict[str, list[TrialRecord]]:
    groups: dict[str, list[TrialRecord]] = {}
    for name, record in named:
        groups.setdefault(name, []).append(record)
    return groups
