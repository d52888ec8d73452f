"""What is to be said of an enrollment: figures for each recording and for the voice, and warnings in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from wesep_py.config import construct

MIN_SPEECH_S = 1.0
"""Less speech than this says too little of a voice: `wesep enroll` refuses it."""
GOOD_SPEECH_S = 3.0
NOISY_DB = 10.0
CLEAN_DB = 30.0
CLIPPED_SHARE = 0.001
NO_ENCODER = "the model has no speaker encoder"


@dataclass(frozen=True)
class RecordingQuality:
    """One recording of an enrollment.

    Attributes:
        name: the path, or `recording 2` for an array.
        duration_s, speech_s: seconds in all, and of speech.
        snr_db: estimated SNR (`snr.estimate_snr_db`); `None` without speech.
        clipped: share of clipped samples, 0 to 1 (`snr.clipped_share`).
        coherence: mean cosine of the embeddings of windows of 1 s to their mean; `None` for fewer than two windows or
            without a speaker encoder.
        likeness: of its most unlike stretch to the rest, a cosine (`likeness.stretch_likeness`).
        second_voice: whether two voices are suspected; `None` where that cannot be told.
        voices: how many the speaker encoder hears; `None` for one that hears a single voice. It then decides on
            `second_voice`.
        chosen: the number of the voice that was taken, from 1; `None` where it was not one of several.
        cosine_to_print, next_cosine: of it, and of the next nearest voice, to the print that it should be like.
        cosine: of its embedding to that of the other recordings; `None` for a single one.
        others: the cosine at which those others agree; `None` where there are not two of them.
        outlier: whether it is unlike the others.
        weight: its share in the voice; the shares sum to 1.
    """

    name: str
    duration_s: float
    speech_s: float
    snr_db: float | None
    clipped: float
    coherence: float | None = None
    likeness: float | None = None
    second_voice: bool | None = None
    cosine: float | None = None
    others: float | None = None
    outlier: bool = False
    weight: float = 1.0
    voices: int | None = None
    chosen: int | None = None
    cosine_to_print: float | None = None
    next_cosine: float | None = None


@dataclass(frozen=True)
class VoiceQuality:
    """An enrollment: its recordings, and what they say together.

    Attributes:
        recordings: one or more.
        vad: what told speech from pauses: `energy` or `silero`.
        coherence: mean cosine of the windows of all recordings to their mean; `None` as above.
        unlike: two recordings that are unlike each other: it cannot be said which is the wrong one.
        untold: why nothing can be said of second voices and outliers; `None` where it can.
    """

    recordings: tuple[RecordingQuality, ...]
    vad: str
    coherence: float | None = None
    unlike: bool = False
    untold: str | None = None

    @property
    def duration_s(self) -> float:
        """Seconds of all recordings."""
        return sum(one.duration_s for one in self.recordings)

    @property
    def speech_s(self) -> float:
        """Seconds of speech in all recordings."""
        return sum(one.speech_s for one in self.recordings)

    @property
    def snr_db(self) -> float | None:
        """The recordings' SNRs in dB, averaged by their speech; `None` without speech."""
        heard = [(one.snr_db, one.speech_s) for one in self.recordings if one.snr_db is not None and one.speech_s > 0]
        return _average(heard)

    @property
    def clipped(self) -> float:
        """Share of clipped samples of all recordings, 0 to 1."""
        return _average([(one.clipped, one.duration_s) for one in self.recordings]) or 0.0

    @property
    def second_voice(self) -> bool | None:
        """Whether two voices are suspected in any recording; `None` where it can be told of none."""
        told = [one.second_voice for one in self.recordings if one.second_voice is not None]
        return any(told) if told else None

    @property
    def warnings(self) -> list[str]:
        """What is wrong, and what to do about it: a line each; empty for a good enrollment."""
        lines = [line for one in self.recordings for line in _warnings(one, len(self.recordings) > 1)]
        if self.unlike:
            one, other = self.recordings
            lines.append(
                f"{one.name} and {other.name} sound unlike each other (cosine {one.cosine:.2f}): "
                "are they the same person?"
            )
        if self.speech_s < GOOD_SPEECH_S:
            lines.append(f"there are only {self.speech_s:.1f} s of speech: 5 to 10 s make a better voice print")
        return lines

    @property
    def notes(self) -> list[str]:
        """Which voice of each recording was taken, where one was chosen by a print: a line each."""
        return [_chosen(one) for one in self.recordings if one.cosine_to_print is not None]

    def table(self) -> str:
        """The figures as lines of text: a recording each, and the voice where there are several."""
        rows = [("recording", "speech", "SNR", "clipped", "coherence", "second voice", "weight")]
        rows += [_row(one, self.untold) for one in self.recordings]
        if len(self.recordings) > 1:
            rows.append(
                (
                    "the voice",
                    f"{self.speech_s:.1f} of {self.duration_s:.1f} s",
                    _db(self.snr_db),
                    f"{100 * self.clipped:.1f} %",
                    _number(self.coherence),
                    _yes_no(self.second_voice, self.untold),
                    "",
                )
            )
        lines = _aligned(rows)
        if self.untold:
            lines.append(f"whether two voices speak, or these are of one person, cannot be told: {self.untold}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the attributes, the voice's figures and the warnings."""
        of_voice = ("duration_s", "speech_s", "snr_db", "clipped", "second_voice", "warnings")
        return {**asdict(self), **{name: getattr(self, name) for name in of_voice}}

    @classmethod
    def from_json(cls, text: str) -> VoiceQuality:
        """From the JSON of `as_dict`; keys that this version does not know are passed over.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        given = json.loads(text)
        recordings = [_known(RecordingQuality, one) for one in given["recordings"]]
        if not recordings:
            raise ValueError("recordings: is empty")
        return construct(cls, {**_known(cls, given), "recordings": recordings}, "quality")


def _warnings(one: RecordingQuality, several: bool) -> list[str]:
    lines = []
    if several and one.speech_s < 0.1:
        lines.append(f"no speech was found in {one.name}: leave it out")
    if one.snr_db is not None and one.snr_db < NOISY_DB:
        lines.append(
            f"{one.name} sounds noisy (SNR about {one.snr_db:.0f} dB): a cleaner recording makes a better print"
        )
    if one.clipped > CLIPPED_SHARE:
        lines.append(f"{100 * one.clipped:.1f} % of {one.name} is clipped: record it again at a lower level")
    if one.second_voice and one.voices is not None and one.chosen is None:
        lines.append(
            f"{one.voices} voices are heard in {one.name}: cut it to where the one you mean speaks alone, make a print "
            "of each (wesep enroll --list), or take the one that is like a print (wesep extract --enroll-like)"
        )
    if one.second_voice and one.voices is None:
        lines.append(
            f"two people seem to speak in {one.name} (cosine {one.likeness:.2f} of a stretch to the rest): "
            "cut it to where the one you mean speaks alone"
        )
    if one.outlier:
        lines.append(
            f"{one.name} sounds unlike the others (cosine {one.cosine:.2f}; the others agree at {one.others:.2f}): "
            "is it the same person?"
        )
    return lines


def _chosen(one: RecordingQuality) -> str:
    line = f"{one.name}: voice {one.chosen} of {one.voices} is taken (cosine to the print {one.cosine_to_print:.2f}"
    return f"{line}; the next {one.next_cosine:.2f})" if one.next_cosine is not None else f"{line})"


def _row(one: RecordingQuality, untold: str | None) -> tuple[str, ...]:
    return (
        one.name,
        f"{one.speech_s:.1f} of {one.duration_s:.1f} s",
        _db(one.snr_db),
        f"{100 * one.clipped:.1f} %",
        _number(one.coherence),
        _yes_no(one.second_voice, untold),
        f"{one.weight:.2f}",
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns of one width each: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _yes_no(told: bool | None, untold: str | None) -> str:
    return ("-" if untold else "too short") if told is None else "suspected" if told else "no"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _db(value: float | None) -> str:
    return "-" if value is None else f"over {CLEAN_DB:.0f} dB" if value > CLEAN_DB else f"{value:.0f} dB"


def _average(weighted: Sequence[tuple[float | None, float]]) -> float | None:
    values, weights = [value for value, _ in weighted], [weight for _, weight in weighted]
    return float(np.average(values, weights=weights)) if sum(weights) > 0 else None


def _known(kind: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return {key: value for key, value in given.items() if key in names}
