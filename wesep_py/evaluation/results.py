"""Results on disk, as `evaluate` and `score` write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wesep_py.errors import InputError
from wesep_py.evaluation.journal import PER_TRIAL, RUN, SUMMARY
from wesep_py.evaluation.record import TrialRecord
from wesep_py.textfiles import COUNT, check_shape, read_json, read_jsonl

Key = tuple[str, ...]

AGAIN = "evaluate again, or get a whole copy"
_INTERVAL = {"mean": (float, None), "low": (float, None), "high": (float, None), "count": COUNT}
_NOTHING_THERE = {"count": COUNT, "attenuation_db": _INTERVAL, "false_alarm_rate?": {...: _INTERVAL}}
_SHAPE = {
    "protocol": {
        "condition": str,
        "trials": {"sha256": str},
        "metrics": {...: str},
        "model?": (dict, None),
        "date?": (str, None),
        "presence_calibration?": (dict, None),
    },
    "counts": {"trials": COUNT},
}
"""What everything reads of a summary."""
_REPORT_SHAPE = {
    "protocol": {"model": {"name": str}, "date": str},
    "counts": {"scored": COUNT, "silent_estimate": COUNT},
    "missing": {...: {...: COUNT}},
    "absent": {**_NOTHING_THERE, "retention?": {...: _INTERVAL}},
    "silent_reference": _NOTHING_THERE,
    "failed": [{"mixture_id": str, "target_utterance_id": str, "error": (str, None)}],
    "speed": {"rtf": (float, None), "audio_s": float, "threads": (COUNT, None), "device": (str, None)},
}
"""What a report shows of a summary, beside the interval of each metric."""


@dataclass(frozen=True)
class Results:
    """A finished run.

    Attributes:
        folder: where it lies.
        summary: the content of `summary.json`.
        records: the trials, in their order.
    """

    folder: Path
    summary: dict[str, Any]
    records: list[TrialRecord]

    @property
    def metrics(self) -> list[str]:
        """The names of what was measured of each scored trial."""
        return [name for name in self.summary["protocol"]["metrics"] if name != "attenuation_db"]


def read_results(folder: str | Path) -> Results:
    """Read the folder of a finished run.

    Raises:
        InputError: it is none, is not finished, or is damaged.
    """
    folder = Path(folder)
    if not (folder / SUMMARY).is_file():
        unfinished = (folder / RUN).exists()
        hint = "repeat its command to finish it" if unfinished else "name a folder that wesep evaluate or score wrote"
        raise InputError(f"{folder}: holds no {SUMMARY}; {hint}")
    summary = dict(read_json(folder / SUMMARY, "a summary of results", AGAIN).values)
    check_shape(summary, _SHAPE, str(folder / SUMMARY), AGAIN)
    rows = read_jsonl(folder / PER_TRIAL, "the trials of a result", f"the result is damaged: {AGAIN}")
    records = [TrialRecord.from_row(row) for row in rows]
    count = summary["counts"]["trials"]
    if count != len(records):
        raise InputError(f"{folder}: {SUMMARY} counts {count} trials and {PER_TRIAL} has {len(records)}; damaged")
    for number, record in enumerate(records):
        record.number = number if record.number is None else record.number
    return Results(folder, summary, records)


def key_of(record: TrialRecord, with_enrollment: bool = True) -> Key:
    """What tells a trial from the others of its list: mixture, target and, where they are known, enrollment."""
    key = record.mixture_id, record.target_utterance_id
    return (*key, record.enrollment) if with_enrollment else key


def check_reportable(results: Results) -> None:
    """Refuse results whose summary is none of this program's, before a report shows them.

    Raises:
        InputError: naming the key.
    """
    for record in results.records:
        if "si_sdri" in record.values and "si_sdr" not in record.values:
            raise InputError(
                f"{results.folder / PER_TRIAL}: trial {record.number} has si_sdri and no si_sdr; it is damaged: {AGAIN}"
            )
    place = str(results.folder / SUMMARY)
    metrics = dict.fromkeys(results.metrics, _INTERVAL)
    groups = {...: {"trials": COUNT, **metrics}}
    check_shape(results.summary, {**_REPORT_SHAPE, **metrics, "breakdown": {...: groups}}, place, AGAIN)
