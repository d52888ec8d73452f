"""What is known of one trial once it has been extracted and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from wesep_py.errors import InputError, nearest, quoted
from wesep_py.textfiles import COUNT, Row, check_shape

Outcome = Literal["scored", "silent_reference", "absent", "failed"]
"""scored: it counts in every metric. silent_reference, absent: nothing was there to extract; counted apart, with
the attenuation. failed: it could not be rendered or extracted; the record has the error."""


@dataclass
class TrialRecord:
    """One line of `per_trial.jsonl`.

    Attributes:
        mixture_id: name of the mixture.
        target_utterance_id: the target's utterance, or "-".
        enrollment: name of the enrollment's file.
        outcome: see `Outcome`.
        num_speakers: number of speakers in the mixture.
        duration_s: length of the mixture.
        extraction_s: time that enrolling and extracting took.
        sir_db: active level of the target over that of all interferers together; None where either is silent.
        overlap: share of the frames with speech in which two speakers or more are active; None where nobody speaks.
        level_db: active level of the target's reference in dB of full scale; None where it is silent or absent.
        enrollment_s: length of the enrollment.
        gender_pair: genders of all speakers, sorted ("f-m"); None where they were not asked for.
        age_group: of the target: child (under 13), teenager (under 18), adult, unknown; None likewise.
        presence: probability that the model gave for the target's presence; None if it gives none.
        presence_frames: its frames by their logits (`frame_calibration.frame_histogram`); None likewise, or where
            nobody knows when the target speaks.
        attenuation_db: of the estimate against the mixture.
        silent_estimate: whether the model returned silence (its SI-SDR is 0 dB by definition).
        values: a number for each metric.
        missing: the reason for each metric without one.
        weights: of the metrics whose mean is not one over trials: for `wer`, the words of the reference.
        error: why the trial failed.
        number: position in the list of trials, from 0.
    """

    mixture_id: str
    target_utterance_id: str
    enrollment: str
    outcome: Outcome = "scored"
    num_speakers: int = 0
    duration_s: float | None = None
    extraction_s: float | None = None
    sir_db: float | None = None
    overlap: float | None = None
    level_db: float | None = None
    enrollment_s: float | None = None
    gender_pair: str | None = None
    age_group: str | None = None
    presence: float | None = None
    presence_frames: dict[str, Any] | None = None
    attenuation_db: float | None = None
    silent_estimate: bool = False
    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    number: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record for JSON: the metrics stand beside the other keys; keys without a value are left out."""
        plain = asdict(self)
        values = plain.pop("values")
        kept = {key: value for key, value in plain.items() if value is not None and value != {}}
        return {**kept, **values}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialRecord:
        """The record that `to_dict` wrote; what is none of its attributes is a metric.

        Raises:
            InputError: an attribute is missing, or is of another kind.
        """
        return cls.from_row(Row("a trial", plain))

    @classmethod
    def from_row(cls, row: Row) -> TrialRecord:
        """The record of a line of `per_trial.jsonl`.

        Raises:
            InputError: an attribute is missing, or is of another kind; the message names the line.
        """
        check_record(row, "mixture_id", "target_utterance_id", "enrollment")
        known = {each.name for each in fields(cls)} - {"values"}
        values = {key: row.number(key) for key in row.values if key not in known}
        return cls(**{key: value for key, value in row.values.items() if key in known}, values=values)


_SHAPE = {
    **dict.fromkeys(("mixture_id", "target_utterance_id", "enrollment", "outcome"), str),
    **dict.fromkeys(("gender_pair", "age_group", "error"), (str, None)),
    **dict.fromkeys(("duration_s", "extraction_s", "sir_db", "overlap", "level_db", "enrollment_s"), (float, None)),
    **dict.fromkeys(("presence", "attenuation_db"), (float, None)),
    "num_speakers": COUNT,
    "presence_frames": ({"lowest": range(-(10**6), 10**6), "active": [COUNT], "inactive": [COUNT]}, None),
    "silent_estimate": bool,
    "missing": {...: str},
    "weights": {...: float},
    "number": (COUNT, None),
}


def check_record(row: Row, *needed: str) -> None:
    """Refuse a line of `per_trial.jsonl` with an attribute of another kind, or without one that is needed.

    Raises:
        InputError: naming the line and the attribute.
    """
    shape = {name if name in needed else f"{name}?": kind for name, kind in _SHAPE.items()}
    check_shape(row.values, shape, row.place, "evaluate again, or get a whole copy")
    if (outcome := row.values.get("outcome", "scored")) not in get_args(Outcome):
        raise InputError(f"{row.place}: outcome is {quoted(outcome)}; {nearest(outcome, get_args(Outcome))}")
