"""Results on disk, as `evaluate` and `score` write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wesep_py.errors import InputError
from wesep_py.evaluation.journal import PER_TRIAL, RUN, SUMMARY
from wesep_py.evaluation.record import TrialRecord

Key = tuple[str, ...]


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
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        lines = (folder / PER_TRIAL).read_text(encoding="utf-8").splitlines()
        records = [TrialRecord.from_dict(json.loads(line)) for line in lines if line.strip()]
        count = summary["counts"]["trials"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}: its results are damaged ({error})") from error
    if count != len(records):
        raise InputError(f"{folder}: {SUMMARY} counts {count} trials and {PER_TRIAL} has {len(records)}; damaged")
    for number, record in enumerate(records):
        record.number = number if record.number is None else record.number
    return Results(folder, summary, records)


def key_of(record: TrialRecord, with_enrollment: bool = True) -> Key:
    """What tells a trial from the others of its list: mixture, target and, where they are known, enrollment."""
    key = record.mixture_id, record.target_utterance_id
    return (*key, record.enrollment) if with_enrollment else key
