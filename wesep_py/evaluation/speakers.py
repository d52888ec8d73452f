"""Who speaks in a trial, in groups that results are broken down by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wesep_py.corpus.trials import Trial

UNKNOWN = "unknown"
Speakers = Mapping[str, tuple[str | None, float | None]]
"""Gender and age in years of each speaker, as `corpus.read_speakers` gives them."""


def gender_pair(trial: Trial, speakers: Speakers) -> str:
    """The genders of all of the mixture's speakers, sorted: "f-f", "f-m", "m-m", "f-f-m", …, or "unknown"."""
    genders = [speakers.get(source.speaker_id or "", (None, None))[0] for source in trial.sources]
    known = sorted(gender for gender in genders if gender)
    return "-".join(known) if len(known) == len(genders) else UNKNOWN


def age_group(trial: Trial, speakers: Speakers) -> str:
    """The target's age group: "child" (under 13), "teenager" (under 18), "adult", or "unknown"."""
    if trial.target_index is None:
        return UNKNOWN
    age = speakers.get(trial.sources[trial.target_index].speaker_id or "", (None, None))[1]
    if age is None:
        return UNKNOWN
    return "child" if age < 13 else "teenager" if age < 18 else "adult"
