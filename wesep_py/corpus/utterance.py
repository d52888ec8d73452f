"""One stretch of one person's speech in a recording: what every corpus is a list of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from wesep_py.errors import InputError
from wesep_py.names import canonical


@dataclass(frozen=True)
class Utterance:
    """A recording, or a stretch of one, and who speaks in it.

    Args:
        utterance_id: its name, unique in its corpus, without white space. Ids are kept in one spelling (NFC), so that
            they match however they were written.
        speaker_id: who speaks; the same text for the same person throughout a corpus, without white space.
        path: the audio file, absolute or relative to the working folder. Of several channels it is the first.
        duration_s: length in seconds, greater than 0; at another `speed`, of what is heard.
        start_s: where the utterance begins in the file, in seconds, at least 0. More than 0 for a segment.
        gender: `m`, `f` or any other text, or `None` where it is not known.
        age: in years, at least 0, or `None`.
        text: what is said, or `None`.
        speed: how much faster than recorded it is played, pitch and all; above 0 (see `perturb_speed`).

    Raises:
        InputError: an empty or spaced id, or a value out of its range. The message begins with the field.

    >>> Utterance("alice-1", "alice", Path("alice/1.wav"), 2.5).stop_s
    2.5
    """

    utterance_id: str
    speaker_id: str
    path: Path
    duration_s: float
    start_s: float = 0.0
    gender: str | None = None
    age: float | None = None
    text: str | None = None
    speed: float = 1.0

    def __post_init__(self) -> None:
        for field in ("utterance_id", "speaker_id"):
            value = canonical(getattr(self, field))
            object.__setattr__(self, field, value)
            if not value or value.split() != [value]:
                raise InputError(f"{field}: is {value!r}; a name without white space is needed")
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise InputError(f"duration_s: is {self.duration_s!r}; seconds greater than 0 are needed")
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise InputError(f"start_s: is {self.start_s!r}; seconds of at least 0 are needed")
        if self.age is not None and not (math.isfinite(self.age) and self.age >= 0):
            raise InputError(f"age: is {self.age!r}; years of at least 0 are needed, or nothing")
        if not (math.isfinite(self.speed) and self.speed > 0):
            raise InputError(f"speed: is {self.speed!r}; a factor above 0 is needed")

    @property
    def stop_s(self) -> float:
        """Where the utterance ends in its file, in seconds."""
        return self.start_s + self.duration_s * self.speed
