"""What is to be said of an enrollment: figures for each recording and for the voice, and warnings in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.config import construct

# ----------------------------------------
# How noisy an enrollment is: SNR and clipping, from the recording alone.

GAMMA_SHAPE = 0.4
SNR_RANGE_DB = (-10.0, 40.0)
"""What the estimate is limited to: beyond, the statistic hardly changes."""
# Pauses longer than twice this are left out: the model of speech has only the short ones.
MARGIN_S = 0.3
# Flat tops: at least so many samples in a row alike, within 1 % of the peak.
FLAT_SAMPLES = 3
NEAR_PEAK = 0.99
FULL_SCALE = 32767 / 32768


def estimate_snr_db(waveform: NDArray[np.float32], mask: NDArray[np.bool_], sample_rate: int) -> float | None:
    """WADA-SNR: speech's amplitudes have a Gamma distribution of shape 0.4, noise's a normal one; their sum tells.

    `ln E|x| − E ln|x|` grows with the SNR whatever the level, so it is looked up among the values that the two
    distributions give (Kim & Stern, "Robust signal-to-noise ratio estimation based on waveform amplitude distribution
    analysis", Interspeech 2008). Pauses longer than 0.6 s are left out. Other steady noise than white does; a second
    voice is speech, and does not count as noise. Above about 20 dB it says little more than "clean".

    Args:
        waveform: `[samples]`.
        mask: `[samples]`, true where somebody speaks.
        sample_rate: in Hz.

    Returns:
        dB from −10 to 40; `None` where nobody speaks.
    """
    heard = np.abs(waveform[_widened(mask, round(MARGIN_S * sample_rate))].astype(np.float64))
    heard = heard[heard > 0]
    if len(heard) == 0:
        return None
    levels, statistics = wada_table()
    return float(np.interp(np.log(heard.mean()) - np.log(heard).mean(), statistics, levels))


@lru_cache(maxsize=1)
def wada_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SNRs in dB, and `ln E|x| − E ln|x|` of Gamma-distributed speech in normal noise at each.

    For x = s + n with normal n of variance 1 and given s, `E|x|^a = 2^(a/2) Γ((1+a)/2) / √π · ₁F₁(−a/2; ½; −s²/2)`;
    its derivative at a = 0 is `E ln|x|`. The mean over s is taken at the midpoints of equal shares of its distribution.
    """
    from scipy.special import gamma, gammaincinv, hyp1f1

    levels = np.arange(SNR_RANGE_DB[0], SNR_RANGE_DB[1] + 1, 2)
    share = (np.arange(200) + 0.5) / 200
    speech = gammaincinv(GAMMA_SHAPE, share) / np.sqrt(GAMMA_SHAPE * (GAMMA_SHAPE + 1))
    scaled = speech * 10 ** (levels[:, None] / 20)

    def moment(order: float) -> NDArray[np.float64]:
        """`E|x|^order` of each; far above the noise it is that of the speech."""
        far = scaled > 30
        near = np.where(far, 0.0, scaled)
        value = 2 ** (order / 2) * gamma((1 + order) / 2) / np.sqrt(np.pi) * hyp1f1(-order / 2, 0.5, -(near**2) / 2)
        return np.where(far, scaled**order, value).mean(axis=1)

    step = 1e-3
    return levels, np.log(moment(1.0)) - (moment(step) - moment(-step)) / (2 * step)


def clipped_share(waveform: NDArray[np.float32]) -> float:
    """The share (0 to 1) of samples at full scale or in flat tops.

    Flat tops are three or more samples in a row of one value within 1 % of the highest or the lowest: what is left of
    clipping when the level was changed afterwards. Lossy coding rounds flat tops off; then full scale only is found.

    Args:
        waveform: `[samples]`, as it was recorded: not resampled.

    >>> sine = np.sin(np.arange(1000) / 10)
    >>> clipped_share(0.9 * sine), clipped_share(0.5 * np.clip(sine, -0.5, 0.5)) > 0.6
    (0.0, True)
    """
    if len(waveform) == 0:
        return 0.0
    clipped = np.abs(waveform) >= FULL_SCALE
    clipped[1:-1] &= clipped[:-2] | clipped[2:]  # one sample alone at full scale is a peak
    ends = np.flatnonzero(np.diff(waveform, append=np.nan) != 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    highest, lowest = float(waveform.max()), float(waveform.min())
    lengths, values = ends - starts + 1, waveform[starts]
    extreme = ((values > 0) & (values >= NEAR_PEAK * highest)) | ((values < 0) & (values <= NEAR_PEAK * lowest))
    clipped |= np.repeat((lengths >= FLAT_SAMPLES) & extreme, lengths)
    return float(clipped.mean())


def _widened(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """True wherever the mask is true at most `margin` samples away."""
    count = np.concatenate([[0], np.cumsum(mask)])
    at = np.arange(len(mask))
    return count[np.minimum(at + margin + 1, len(mask))] > count[np.maximum(at - margin, 0)]


# ----------------------------------------
# Whether embeddings are of one voice: those of an enrollment's windows, and those of several recordings.

SECOND_VOICE_SIMILARITY = 0.1
"""A second voice is suspected where a stretch of windows is less like the rest than this cosine."""
OUTLIER_SIMILARITY = 0.6
"""A recording is an outlier where it is less like the others than this, in parts of their own agreement."""
OUTLIER_WEIGHT = 0.1
"""What is left of an outlier's weight."""
MIN_SEGMENT_WINDOWS = 2
"""Windows, of a stretch and of the rest: an odd window is no voice."""


@dataclass(frozen=True)
class Agreement:
    """How alike several recordings of one voice are.

    Attributes:
        cosines: of each recording to the weighted mean of the others that are no outliers.
        others: mean of those others' own cosines, each to the rest of them; `None` where there are not two of them.
        outliers: indices of the recordings that are unlike the others, the most unlike first.
    """

    cosines: tuple[float, ...]
    others: tuple[float | None, ...]
    outliers: tuple[int, ...]


def coherence(embeddings: ArrayLike) -> float:
    """The mean cosine of embeddings `[windows, dim]` to their mean: 1 where all are alike, less the more they spread.

    >>> coherence([[1.0, 0.0], [2.0, 0.0]]), round(coherence([[1.0, 0.0], [0.0, 1.0]]), 3)
    (1.0, 0.707)
    """
    unit = _unit(embeddings)
    return float((unit @ _unit(unit.mean(axis=0))).mean())


def segment_similarity(embeddings: ArrayLike) -> float | None:
    """How like the rest of a recording its most unlike stretch is.

    People take turns: a second voice is a run of windows, not windows here and there. Of every run of at least two that
    leaves at least two, the mean embedding is compared with the mean of all others; the lowest cosine counts.

    Args:
        embeddings: `[windows, dim]`, of stretches of about equal length, in their order.

    Returns:
        A cosine; `None` for fewer than four windows.

    >>> stretch_likeness([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.6, 0.8]])
    0.6
    """
    unit = _unit(embeddings)
    count = len(unit)
    if count < 2 * MIN_SEGMENT_WINDOWS:
        return None
    before = np.concatenate([np.zeros((1, unit.shape[1])), np.cumsum(unit, axis=0)])
    first, last = np.triu_indices(count + 1, k=MIN_SEGMENT_WINDOWS)
    kept = last - first <= count - MIN_SEGMENT_WINDOWS
    stretches = before[last[kept]] - before[first[kept]]
    cosines = (_unit(stretches) * _unit(before[-1] - stretches)).sum(axis=1)
    return round(float(cosines.min()), 6)


def suspect_second_voice(embeddings: ArrayLike, threshold: float = SECOND_VOICE_SIMILARITY) -> bool | None:
    """Whether the windows of a recording seem to be of two voices in turn; `None` where they do not tell.

    Args:
        embeddings: `[windows, dim]`, in their order.
        threshold: two voices are suspected where `stretch_likeness` is below, from -1 (never) to 1. It depends on the
            encoder: how like each other it makes two people, and two seconds of one.

    >>> suspect_second_voice([[1.0, 0.0]] * 4), suspect_second_voice([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2)
    (False, True)
    """
    likeness = segment_similarity(embeddings)
    return None if likeness is None else likeness < threshold


def agreement(embeddings: ArrayLike, durations_s: Sequence[float], threshold: float = OUTLIER_SIMILARITY) -> Agreement:
    """How alike recordings of one voice are, and which of three or more are unlike the others.

    The one that is least like the others, in parts of their own agreement, is an outlier where that is below the
    threshold; then the same among the rest, down to two. Of two recordings alone none is the outlier.

    Args:
        embeddings: `[recordings, dim]`.
        durations_s: seconds of speech of each.
        threshold: from 0 (none is ever an outlier) to 1.
    """
    unit = _unit(embeddings)
    weights = np.maximum(np.asarray(durations_s, dtype=np.float64), 1e-3)
    kept, outliers = list(range(len(unit))), []
    while len(kept) > 2:
        parts = {}
        for index in kept:
            own, others = _compared(unit, weights, index, kept)
            if others is not None and others > 0:
                parts[index] = own / others
        if not parts or min(parts.values()) >= threshold:
            break
        worst = min(parts, key=lambda index: parts[index])
        kept.remove(worst)
        outliers.append(worst)
    compared = [_compared(unit, weights, index, kept) for index in range(len(unit))]
    return Agreement(tuple(c for c, _ in compared), tuple(o for _, o in compared), tuple(outliers))


def recording_weights(durations_s: Sequence[float], outliers: Sequence[int]) -> list[float]:
    """The share of each recording in the voice: as its seconds of speech, an outlier's a tenth; they sum to 1.

    >>> weights_of([3.0, 1.0], []), weights_of([0.0, 0.0], [])
    ([0.75, 0.25], [0.5, 0.5])
    """
    weights = np.maximum(np.asarray(durations_s, dtype=np.float64), 1e-3)
    weights[list(outliers)] *= OUTLIER_WEIGHT
    return [float(weight) for weight in weights / weights.sum()]


def _compared(
    unit: NDArray[np.float64], weights: NDArray[np.float64], index: int, kept: Sequence[int]
) -> tuple[float, float | None]:
    """A recording's cosine to the mean of the kept others, and the mean of theirs to one another."""

    def to_mean(one: int, others: list[int]) -> float:
        return float(unit[one] @ _unit((unit[others] * weights[others, None]).sum(axis=0)))

    others = [other for other in kept if other != index]
    if not others:
        return 1.0, None
    theirs = [to_mean(one, [other for other in others if other != one]) for one in others] if len(others) > 1 else []
    return to_mean(index, others), float(np.mean(theirs)) if theirs else None


def _unit(vectors: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(vectors, dtype=np.float64)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)


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
