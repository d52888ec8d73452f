"""Quality of an enrollment: figures per recording and for the voice, and warnings in words.

1. SNR and clipping, from a recording alone: `estimate_snr_db`, `clipped_share`.
2. One voice or several, from embeddings: `segment_similarity` within a recording, `compare_recordings` between them.
3. The report: `RecordingQuality` and `VoiceQuality`, with warnings, a table and JSON.

`wesep_py.inference.enrolling.enrollment.assess_recordings` puts the three together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.config import construct

# 1. SNR and clipping.

SNR_RANGE_DB = (-10.0, 40.0)
"""The estimate is limited to this range; beyond it the statistic hardly changes."""
WADA_STATISTICS = np.array([
    0.411731, 0.414330, 0.419180, 0.427507, 0.440703, 0.460123, 0.486788, 0.521134, 0.562885,
    0.611101, 0.664369, 0.721051, 0.779514, 0.838296, 0.896200, 0.952306, 1.005971, 1.056778,
    1.104495, 1.149024, 1.190379, 1.228635, 1.263916, 1.296378, 1.326193, 1.353533,
])  # fmt: skip
"""`ln E|x| − E ln|x|` of Gamma-distributed speech in normal noise, at SNRs of −10, −8, … 40 dB.

For x = s + n with normal n of variance 1 and a fixed s, `E|x|^a = 2^(a/2) Γ((1+a)/2) / √π · ₁F₁(−a/2; ½; −s²/2)`; its
derivative at a = 0 is `E ln|x|`. The mean over s is taken at the midpoints of equal shares of its distribution.
`test_the_wada_table_is_that_of_its_formula` computes the numbers.
"""
# Pauses longer than twice this are left out, because the model of speech has only short pauses.
MARGIN_S = 0.3
# Flat tops: at least this number of equal samples in a row, within 1 % of the peak.
FLAT_SAMPLES = 3
NEAR_PEAK = 0.99
FULL_SCALE = 32767 / 32768


def estimate_snr_db(waveform: NDArray[np.float32], mask: NDArray[np.bool_], sample_rate: int) -> float | None:
    """Estimate the SNR of a recording by WADA-SNR.

    The amplitudes of speech have a Gamma distribution of shape 0.4, those of noise a normal one, so the distribution of
    their sum shows the SNR: `ln E|x| − E ln|x|` grows with it, whatever the level, and is looked up among
    `WADA_STATISTICS` (Kim & Stern, "Robust signal-to-noise ratio estimation based on waveform amplitude distribution
    analysis", Interspeech 2008). Pauses longer than 0.6 s are left out. Steady noise other than white works too; a
    second voice is speech, and does not count as noise. Above about 20 dB the estimate says little more than "clean".

    Args:
        waveform: `[samples]`.
        mask: `[samples]`, true where somebody speaks.
        sample_rate: in Hz.

    Returns:
        dB from −10 to 40; `None` if nobody speaks.
    """
    magnitudes = np.abs(waveform[_widened(mask, round(MARGIN_S * sample_rate))].astype(np.float64))
    magnitudes = magnitudes[magnitudes > 0]
    if len(magnitudes) == 0:
        return None
    levels = np.linspace(*SNR_RANGE_DB, len(WADA_STATISTICS))
    return float(np.interp(np.log(magnitudes.mean()) - np.log(magnitudes).mean(), WADA_STATISTICS, levels))


def clipped_share(waveform: NDArray[np.float32]) -> float:
    """Return the share (0 to 1) of samples at full scale or in flat tops.

    Flat tops are three or more equal samples in a row within 1 % of the highest or the lowest: they remain if the level
    was changed after clipping. Lossy coding rounds them off; then only clipping at full scale is detected.

    Args:
        waveform: `[samples]`, as it was recorded: not resampled.

    >>> sine = np.sin(np.arange(1000) / 10)
    >>> clipped_share(0.9 * sine), clipped_share(0.5 * np.clip(sine, -0.5, 0.5)) > 0.6
    (0.0, True)
    """
    if len(waveform) == 0:
        return 0.0
    clipped = np.abs(waveform) >= FULL_SCALE
    clipped[1:-1] &= clipped[:-2] | clipped[2:]  # a single sample at full scale is a peak
    # Runs of equal samples: NaN differs from everything, so the last run ends at the last sample.
    ends = np.flatnonzero(np.diff(waveform, append=np.nan) != 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    highest, lowest = float(waveform.max()), float(waveform.min())
    lengths, values = ends - starts + 1, waveform[starts]
    extreme = ((values > 0) & (values >= NEAR_PEAK * highest)) | ((values < 0) & (values <= NEAR_PEAK * lowest))
    clipped |= np.repeat((lengths >= FLAT_SAMPLES) & extreme, lengths)
    return float(clipped.mean())


def _widened(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Return a mask that is true wherever the given one is true at most `margin` samples away."""
    count = np.concatenate([[0], np.cumsum(mask)])
    at = np.arange(len(mask))
    return count[np.minimum(at + margin + 1, len(mask))] > count[np.maximum(at - margin, 0)]


# 2. One voice or several: embeddings of the windows of a recording, and of several recordings.

SECOND_VOICE_SIMILARITY = 0.1
"""A second voice is suspected if the cosine of a segment of windows to the others is below this."""
OUTLIER_SIMILARITY = 0.6
"""A recording is an outlier if its cosine to the others, divided by theirs to one another, is below this."""
OUTLIER_WEIGHT = 0.1
"""Factor on the weight of an outlier."""
MIN_SEGMENT_WINDOWS = 2
"""Fewest windows of a segment, and of what is left without it: a single odd window is not a voice."""


@dataclass(frozen=True)
class RecordingAgreement:
    """Similarity of several recordings of one voice.

    Attributes:
        cosines: of each recording to the weighted mean of the others that are not outliers.
        others: mean of those others' own cosines, each to the rest of them; `None` if they are fewer than two.
        outliers: indices of the recordings that differ from the others, the least similar first.
    """

    cosines: tuple[float, ...]
    others: tuple[float | None, ...]
    outliers: tuple[int, ...]


def coherence(embeddings: ArrayLike) -> float:
    """Return the mean cosine of embeddings `[windows, dim]` to their mean: 1 if all have one direction.

    >>> coherence([[1.0, 0.0], [2.0, 0.0]]), round(coherence([[1.0, 0.0], [0.0, 1.0]]), 3)
    (1.0, 0.707)
    """
    unit = _unit(embeddings)
    return float((unit @ _unit(unit.mean(axis=0))).mean())


def segment_similarity(embeddings: ArrayLike) -> float | None:
    """Return the lowest similarity of a segment of a recording to the rest of it.

    People take turns: a second voice is a run of windows, not single windows here and there. For every run of at least
    two windows that leaves at least two, the mean embedding is compared with the mean of all others.

    Args:
        embeddings: `[windows, dim]`, of windows of about equal length, in their order.

    Returns:
        The lowest cosine; `None` for fewer than four windows.

    >>> segment_similarity([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.6, 0.8]])
    0.6
    """
    unit = _unit(embeddings)
    count = len(unit)
    if count < 2 * MIN_SEGMENT_WINDOWS:
        return None
    # The sum of any run is the difference of two cumulative sums: all runs at once.
    before = np.concatenate([np.zeros((1, unit.shape[1])), np.cumsum(unit, axis=0)])
    first, last = np.triu_indices(count + 1, k=MIN_SEGMENT_WINDOWS)
    leaves_enough = last - first <= count - MIN_SEGMENT_WINDOWS
    segments = before[last[leaves_enough]] - before[first[leaves_enough]]
    cosines = (_unit(segments) * _unit(before[-1] - segments)).sum(axis=1)
    return round(float(cosines.min()), 6)


def suspect_second_voice(embeddings: ArrayLike, threshold: float = SECOND_VOICE_SIMILARITY) -> bool | None:
    """Return whether the windows of a recording seem to be of two voices in turn; `None` for too few windows.

    Args:
        embeddings: `[windows, dim]`, in their order.
        threshold: two voices are suspected if `segment_similarity` is below it, from -1 (never) to 1. It depends on the
            encoder: on its similarity of two people, and of two seconds of one.

    >>> suspect_second_voice([[1.0, 0.0]] * 4), suspect_second_voice([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2)
    (False, True)
    """
    similarity = segment_similarity(embeddings)
    return None if similarity is None else similarity < threshold


def compare_recordings(
    embeddings: ArrayLike, durations_s: Sequence[float], threshold: float = OUTLIER_SIMILARITY
) -> RecordingAgreement:
    """Compare the recordings of a voice, and find outliers among three or more.

    The recording with the lowest cosine to the others, divided by their cosine to one another, is an outlier if this
    ratio is below the threshold. This is repeated without it, down to two recordings. Of two recordings alone, neither
    is an outlier.

    Args:
        embeddings: `[recordings, dim]`.
        durations_s: seconds of speech of each.
        threshold: from 0 (no outliers) to 1.
    """
    unit = _unit(embeddings)
    weights = np.maximum(np.asarray(durations_s, dtype=np.float64), 1e-3)
    remaining, outliers = list(range(len(unit))), []
    while len(remaining) > 2:
        ratios = {}
        for index in remaining:
            cosine, others = _cosine_to_others(unit, weights, index, remaining)
            if others is not None and others > 0:
                ratios[index] = cosine / others
        if not ratios or min(ratios.values()) >= threshold:
            break
        worst = min(ratios, key=lambda index: ratios[index])
        remaining.remove(worst)
        outliers.append(worst)
    compared = [_cosine_to_others(unit, weights, index, remaining) for index in range(len(unit))]
    return RecordingAgreement(
        tuple(cosine for cosine, _ in compared), tuple(others for _, others in compared), tuple(outliers)
    )


def recording_weights(durations_s: Sequence[float], outliers: Sequence[int]) -> list[float]:
    """Return the weight of each recording in the voice: its share of speech, for an outlier a tenth; they sum to 1.

    >>> recording_weights([3.0, 1.0], []), recording_weights([0.0, 0.0], [])
    ([0.75, 0.25], [0.5, 0.5])
    """
    weights = np.maximum(np.asarray(durations_s, dtype=np.float64), 1e-3)
    weights[list(outliers)] *= OUTLIER_WEIGHT
    return [float(weight) for weight in weights / weights.sum()]


def _cosine_to_others(
    unit: NDArray[np.float64], weights: NDArray[np.float64], index: int, remaining: Sequence[int]
) -> tuple[float, float | None]:
    """Return a recording's cosine to the mean of the remaining others, and the mean cosine among these others."""

    def to_mean(recording: int, others: list[int]) -> float:
        return float(unit[recording] @ _unit((unit[others] * weights[others, None]).sum(axis=0)))

    others = [other for other in remaining if other != index]
    if not others:
        return 1.0, None
    if len(others) == 1:
        return to_mean(index, others), None
    among_others = [to_mean(other, [third for third in others if third != other]) for other in others]
    return to_mean(index, others), float(np.mean(among_others))


def _unit(vectors: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(vectors, dtype=np.float64)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)


# 3. The report. The attributes are keys of the JSON in voice prints and of `wesep enroll --json`.

MIN_SPEECH_S = 1.0
"""Minimum of speech for `wesep enroll`: less does not describe a voice."""
GOOD_SPEECH_S = 3.0
"""With less speech than this there is a warning."""
NOISY_DB = 10.0
CLEAN_DB = 30.0
CLIPPED_SHARE = 0.001
NO_ENCODER = "the model has no speaker encoder"


@dataclass(frozen=True)
class RecordingQuality:
    """Quality of one recording of an enrollment.

    Attributes:
        name: the path, or `recording 2` for an array.
        duration_s, speech_s: seconds in all, and of speech.
        snr_db: estimated SNR (`estimate_snr_db`); `None` without speech.
        clipped: share of clipped samples, 0 to 1 (`clipped_share`).
        coherence: mean cosine of the embeddings of windows of 1 s to their mean; `None` for fewer than two windows or
            without a speaker encoder.
        likeness: lowest cosine similarity of a segment to the other segments of the recording (`segment_similarity`).
        second_voice: true if two voices are suspected; `None` if that cannot be detected.
        cosine: of its embedding to the mean of the other recordings; `None` for a single one.
        others: cosine of those others to one another; `None` if they are fewer than two.
        outlier: true if it differs from the others.
        weight: its share in the voice; the shares sum to 1.
        voices: number of voices that the speaker encoder counts; it then decides on `second_voice`. `None` for an
            encoder that does not count voices.
        chosen: number of the voice that was enrolled, from 1; `None` if it was not one of several.
        cosine_to_print, next_cosine: cosine of that voice, and of the second nearest, to the print given with `like`.
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
    """Quality of an enrollment: its recordings, and figures of all of them together.

    Attributes:
        recordings: one or more.
        vad: voice activity detection that was used: `energy` or `silero`.
        coherence: mean cosine of the windows of all recordings to their mean; `None` as above.
        unlike: true for two recordings that differ: neither can be said to be the wrong one.
        untold: why second voices and outliers cannot be detected; `None` if they can.
    """

    recordings: tuple[RecordingQuality, ...]
    vad: str
    coherence: float | None = None
    unlike: bool = False
    untold: str | None = None

    @property
    def duration_s(self) -> float:
        """Seconds of all recordings."""
        return sum(recording.duration_s for recording in self.recordings)

    @property
    def speech_s(self) -> float:
        """Seconds of speech in all recordings."""
        return sum(recording.speech_s for recording in self.recordings)

    @property
    def snr_db(self) -> float | None:
        """Mean SNR of the recordings in dB, weighted by their speech; `None` without speech."""
        return _average([(r.snr_db, r.speech_s) for r in self.recordings if r.snr_db is not None and r.speech_s > 0])

    @property
    def clipped(self) -> float:
        """Share of clipped samples of all recordings, 0 to 1."""
        return _average([(recording.clipped, recording.duration_s) for recording in self.recordings]) or 0.0

    @property
    def second_voice(self) -> bool | None:
        """True if two voices are suspected in any recording; `None` if it cannot be detected in any."""
        suspicions = [r.second_voice for r in self.recordings if r.second_voice is not None]
        return any(suspicions) if suspicions else None

    @property
    def warnings(self) -> list[str]:
        """Problems and what to do about each, one line each; empty for a good enrollment."""
        lines = [line for recording in self.recordings for line in _warnings(recording, len(self.recordings) > 1)]
        if self.unlike:
            first, second = self.recordings
            lines.append(
                f"{first.name} and {second.name} sound unlike each other (cosine {first.cosine:.2f}): "
                "are they the same person?"
            )
        if self.speech_s < GOOD_SPEECH_S:
            lines.append(f"there are only {self.speech_s:.1f} s of speech: 5 to 10 s make a better voice print")
        return lines

    @property
    def notes(self) -> list[str]:
        """For each recording of which one voice was chosen by a print, which one: one line each."""
        lines = []
        for r in self.recordings:
            if r.cosine_to_print is not None:
                next_cosine = "" if r.next_cosine is None else f"; the next {r.next_cosine:.2f}"
                cosines = f"cosine to the print {r.cosine_to_print:.2f}{next_cosine}"
                lines.append(f"{r.name}: voice {r.chosen} of {r.voices} is taken ({cosines})")
        return lines

    def table(self) -> str:
        """Return the figures as lines of text: one per recording, and one for the voice if there are several."""
        rows = [("recording", "speech", "SNR", "clipped", "coherence", "second voice", "weight")]
        for r in [*self.recordings, *([self] if len(self.recordings) > 1 else [])]:
            rows.append(
                (
                    r.name if isinstance(r, RecordingQuality) else "the voice",
                    f"{r.speech_s:.1f} of {r.duration_s:.1f} s",
                    _snr_cell(r.snr_db),
                    f"{100 * r.clipped:.1f} %",
                    "-" if r.coherence is None else f"{r.coherence:.2f}",
                    self._second_voice_cell(r.second_voice),
                    f"{r.weight:.2f}" if isinstance(r, RecordingQuality) else "",
                )
            )
        lines = _aligned(rows)
        if self.untold:
            lines.append(f"second voices and outliers cannot be detected: {self.untold}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, the figures of the voice and the warnings, for JSON."""
        of_voice = ("duration_s", "speech_s", "snr_db", "clipped", "second_voice", "warnings")
        return {**asdict(self), **{name: getattr(self, name) for name in of_voice}}

    @classmethod
    def from_json(cls, text: str) -> VoiceQuality:
        """Return the report in the JSON of `as_dict`; keys that this version does not know are ignored.

        Raises:
            ValueError, TypeError, KeyError: it is not such a report.
        """
        values = json.loads(text)
        recordings = [_known_keys(RecordingQuality, recording) for recording in values["recordings"]]
        if not recordings:
            raise ValueError("recordings: is empty")
        return construct(cls, {**_known_keys(cls, values), "recordings": recordings}, "quality")

    def _second_voice_cell(self, suspected: bool | None) -> str:
        if suspected is None:
            return "-" if self.untold else "too short"
        return "suspected" if suspected else "no"


def _warnings(recording: RecordingQuality, several: bool) -> list[str]:
    lines, name = [], recording.name
    if several and recording.speech_s < 0.1:
        lines.append(f"no speech was found in {name}: leave it out")
    if recording.snr_db is not None and recording.snr_db < NOISY_DB:
        lines.append(
            f"{name} sounds noisy (SNR about {recording.snr_db:.0f} dB): a cleaner recording makes a better print"
        )
    if recording.clipped > CLIPPED_SHARE:
        lines.append(f"{100 * recording.clipped:.1f} % of {name} is clipped: record it again at a lower level")
    if recording.second_voice and recording.voices is not None and recording.chosen is None:
        lines.append(
            f"{recording.voices} voices were found in {name}: cut it to where the person you mean speaks alone, make "
            "a print of each (wesep enroll --list), or take the one that is like a print (wesep extract --enroll-like)"
        )
    if recording.second_voice and recording.voices is None:
        lines.append(
            f"two people seem to speak in {name} (cosine {recording.likeness:.2f} of a segment to the rest): "
            "cut it to where the person you mean speaks alone"
        )
    if recording.outlier:
        lines.append(
            f"{name} sounds unlike the others (cosine {recording.cosine:.2f}; the others agree at "
            f"{recording.others:.2f}): is it the same person?"
        )
    return lines


def _snr_cell(snr_db: float | None) -> str:
    if snr_db is None:
        return "-"
    return f"over {CLEAN_DB:.0f} dB" if snr_db > CLEAN_DB else f"{snr_db:.0f} dB"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines with columns of one width each: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _average(weighted: Sequence[tuple[float | None, float]]) -> float | None:
    values, weights = [value for value, _ in weighted], [weight for _, weight in weighted]
    return float(np.average(values, weights=weights)) if sum(weights) > 0 else None


def _known_keys(kind: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return {key: value for key, value in values.items() if key in names}
