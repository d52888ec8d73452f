"""What is known of one trial once it has been extracted and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

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
            TypeError: an attribute without a default is missing.
        """
        known = {each.name for each in fields(cls)} - {"values"}
        values = {key: float(value) for key, value in plain.items() if key not in known}
        return cls(**{key: value for key, value in plain.items() if key in known}, values=values)
