"""Voice activity in enrollment recordings, and the best segments of long ones.

1. `speech_mask` returns where somebody speaks, by energy or by the network of silero-vad.
2. A voice print does not improve with an hour of speech, but memory and time grow with it. So at most 30 s
   (`MAX_ENROLLMENT_S`) enter the network, the segments with the most speech:

```
open_enrollment ─► scan_speech: blocks ─► levels of frames of 20 ms ─► frames of speech
share_limit (seconds per recording) ─► select_segments ─► cut_segments
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.level import active_mask, gain_to_db
from wesep_py.audio.reading import FileSegment
from wesep_py.common.errors import InputError
from wesep_py.features.array_high_pass import speech_high_pass
from wesep_py.inference.inputs_outputs.inputs import Source, read_enrollment, segment_of

VAD = Literal["energy", "silero"]
FRAME_S = 0.02
# Energy: at most this far below the loud frames, as speech is, and this far above the quiet ones.
SPEECH_RANGE_DB = 40.0
ABOVE_FLOOR_DB = 4.0
# A recording whose loud frames are below this is silent: the dither of 16 bits is at -96 dB.
SILENCE_DB = -90.0
# Shorter gaps belong to the speech around them: closures of stops, breaths between words.
GAP_S = 0.1
SILERO_RATE = 16000

# 1. Voice activity.


def speech_mask(waveform: NDArray[np.float32], sample_rate: int, vad: VAD = "energy") -> NDArray[np.bool_]:
    """Return the samples in which somebody speaks; gaps of up to 0.1 s between them count as speech.

    `energy`: frames of 20 ms that are at most 40 dB below the loud ones (their 95th percentile) and at least 4 dB above
    the quiet ones (the 5th), which are the noise if there are pauses. `silero`: the network in the package
    `silero-vad`; nothing is downloaded.

    Args:
        waveform: `[samples]`.
        sample_rate: in Hz.
        vad: `energy` or `silero`.

    Returns:
        bool `[samples]`.

    Raises:
        InputError: another `vad`, or `silero` without the package.

    >>> rng = np.random.default_rng(0)
    >>> recording = np.concatenate([0.001 * rng.standard_normal(16000), 0.1 * rng.standard_normal(16000)])
    >>> float(speech_mask(recording, 16000).sum() / 16000)
    1.0
    """
    if vad not in get_args(VAD):
        raise InputError(f"vad: is {vad!r}; {' or '.join(get_args(VAD))} is allowed")
    if len(waveform) == 0:
        return np.zeros(0, dtype=bool)
    mask = _energy_mask(waveform, sample_rate) if vad == "energy" else _silero_mask(waveform, sample_rate)
    return _without_gaps(mask, round(GAP_S * sample_rate))


def remove_low_frequencies(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Remove from a waveform `[..., samples]` what lies below speech: a constant, or a rumble."""
    high_pass = speech_high_pass(sample_rate)
    return waveform if high_pass is None else high_pass(waveform)


def _energy_mask(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.bool_]:
    # Levels of frames without the remainder at the end; of the whole waveform, if it is shorter than a frame.
    frame = min(len(waveform), max(1, round(FRAME_S * sample_rate)))
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame).astype(np.float64)
    levels_db = gain_to_db(np.sqrt((frames**2).mean(axis=1)))
    range_db = float(max(levels_db.max(), -200.0) - _speech_threshold_db(levels_db))
    return active_mask(waveform, sample_rate, range_db, floor_db=-np.inf, frame_s=FRAME_S)


def _speech_threshold_db(levels_db: NDArray[np.float64]) -> float:
    """Return the level from which a frame is speech: relative to the other frames, not to full scale."""
    levels = np.maximum(levels_db, -200.0)
    floor, loud = np.quantile(levels, 0.05), np.quantile(levels, 0.95)
    if loud < SILENCE_DB:
        return np.inf
    return float(max(loud - SPEECH_RANGE_DB, min(floor + ABOVE_FLOOR_DB, loud - ABOVE_FLOOR_DB)))


def _silero_mask(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.bool_]:
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import get_speech_timestamps, load_silero_vad
    except ImportError as error:
        raise InputError(
            "vad 'silero' needs the package silero-vad, which is not installed; "
            "pip install 'wesep-py[vad]', or use 'energy'"
        ) from error
    finally:
        torch.set_num_threads(threads)  # importing the package sets it to 1 for the whole process
    resampled = torch.from_numpy(np.array(audio.resample(waveform, sample_rate, SILERO_RATE), dtype=np.float32))
    mask = np.zeros(len(waveform), dtype=bool)
    for segment in get_speech_timestamps(resampled, load_silero_vad(), sampling_rate=SILERO_RATE):
        start, end = (round(segment[key] * sample_rate / SILERO_RATE) for key in ("start", "end"))
        mask[start:end] = True
    return mask


def _without_gaps(mask: NDArray[np.bool_], max_length: int) -> NDArray[np.bool_]:
    """Return the mask with every gap between true elements closed that has at most `max_length` elements."""
    # An edge at i is a change from element i to i + 1, so a gap from edge `end` to edge `start` has the elements
    # end + 1 … start.
    edges = np.flatnonzero(np.diff(mask.astype(np.int8)))
    closed = mask.copy()
    for end, start in pairwise(edges):
        if mask[end] and start - end <= max_length:
            closed[end + 1 : start + 1] = True
    return closed


# 2. The best segments of long enrollments.

MAX_ENROLLMENT_S = 30.0
"""Default limit in seconds of all recordings of a voice together that enter the network."""
MIN_ENROLLMENT_LIMIT_S = 1.0
"""Lowest limit that is allowed."""
# Selected segments have about this length, several breaths of words. A recording gets at least `MIN_SHARE_S`, or
# nothing.
SEGMENT_S = 3.0
MIN_SHARE_S = 2.0
BLOCK_S = 60.0
# A segment that is cut out of speech is faded, because a click is a broadband sound that a voice does not have.
FADE_S = 0.005
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class EnrollmentReader:
    """An enrollment recording of which only the header was read.

    Attributes:
        source: the path; for an array, the checked `Recording`.
        name: for messages.
        sample_rate: of the recording, in Hz.
        duration_s: as its header says.
        blocks: function of a number of samples that reads the recording in blocks `[channels, samples]` of that length.
    """

    source: Source
    name: str
    sample_rate: int
    duration_s: float
    blocks: Callable[[int], Iterator[Samples]]


@dataclass(frozen=True)
class SpeechScan:
    """Frames of speech in a recording.

    Attributes:
        reader: of the recording.
        num_samples: of it, as decoded.
        channel: index of the loudest channel.
        speech: `[frames]`, true where somebody speaks in that channel.
    """

    reader: EnrollmentReader
    num_samples: int
    channel: int
    speech: NDArray[np.bool_]

    @property
    def duration_s(self) -> float:
        """Seconds of the recording."""
        return self.num_samples / self.reader.sample_rate

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return FRAME_S * float(self.speech.sum())


def check_enrollment_limit(max_s: float) -> float:
    """Return the limit, if it is allowed.

    Raises:
        InputError: it is below 1 s, or not a number.
    """
    if isinstance(max_s, bool) or not isinstance(max_s, (int, float)) or not max_s >= MIN_ENROLLMENT_LIMIT_S:
        raise InputError(
            f"max_enrollment_s: is {max_s!r}; {MIN_ENROLLMENT_LIMIT_S:g} s or more of the enrollment is needed, "
            f"{MAX_ENROLLMENT_S:g} s is usual"
        )
    return float(max_s)


def open_enrollment(source: Source, number: int) -> EnrollmentReader:
    """Read the header of an enrollment recording.

    Args:
        source: a path, also of a segment (`meeting.wav@12.3-17.8`), or a pair `(waveform, sample_rate)`.
        number: of the recording in the enrollment, from 1; an array is named `recording NUMBER`.

    Raises:
        AudioError, InputError: as `read_enrollment`.
    """
    if isinstance(source, (str, PathLike)):
        segment = segment_of(source)
        path = source if segment is None else segment.path
        about = audio.info(path)
        rate = about.sample_rate
        if segment is None:
            return EnrollmentReader(
                source, str(source), rate, about.duration_s, lambda size: audio.read_blocks(path, size)
            )
        if segment.stop_s <= about.duration_s:
            length_s = segment.stop_s - segment.start_s
            return EnrollmentReader(
                source, str(source), rate, length_s, lambda size: _read_segment_blocks(segment, rate, size)
            )
    # An array; or a segment past the end, for which reading it raises the error.
    recording = read_enrollment(source)
    name = f"recording {number}" if recording.file_format is None else recording.name

    def blocks(size: int) -> Iterator[Samples]:
        for start in range(0, recording.num_samples, size):
            yield recording.waveform[:, start : start + size]

    return EnrollmentReader(recording, name, recording.sample_rate, recording.duration_s, blocks)


def _read_segment_blocks(segment: FileSegment, sample_rate: int, size: int) -> Iterator[Samples]:
    """Read the blocks of a segment, whose ends are rounded as in `audio.reading.read_file_segment`."""
    start, stop = (int(np.floor(at_s * sample_rate + 0.5)) for at_s in (segment.start_s, segment.stop_s))
    position = 0
    for block in audio.read_blocks(segment.path, size):
        inside = block[:, max(0, start - position) : max(0, stop - position)]
        if inside.shape[1]:
            yield inside
        position += block.shape[1]
        if position >= stop:
            return


def scan_speech(reader: EnrollmentReader, vad: VAD = "energy") -> SpeechScan:
    """Read a recording block by block and return its loudest channel, and where somebody speaks in it.

    Frequencies below speech do not count.

    Raises:
        AudioError: it is damaged.
        InputError: no such `vad`.
    """
    rate = reader.sample_rate
    frame = max(1, round(FRAME_S * rate))
    size = frame * round(BLOCK_S / FRAME_S)  # a whole number of frames, so that frames do not straddle blocks
    mean_squares, num_samples = [], 0
    for block in reader.blocks(size):
        filtered = remove_low_frequencies(block, rate).astype(np.float64)
        starts = np.arange(0, filtered.shape[1], frame)
        lengths = np.minimum(frame, filtered.shape[1] - starts)
        mean_squares.append(np.add.reduceat(filtered**2, starts, axis=1) / lengths)
        num_samples += block.shape[1]
    energies = np.concatenate(mean_squares, axis=1)
    channel = int(energies.sum(axis=1).argmax())
    if vad == "energy":
        levels_db = gain_to_db(np.sqrt(energies[channel]))
        speech = _without_gaps(levels_db >= _speech_threshold_db(levels_db), round(GAP_S / FRAME_S))
    else:
        masks = (speech_mask(remove_low_frequencies(block[channel], rate), rate, vad) for block in reader.blocks(size))
        speech = np.concatenate([np.logical_or.reduceat(mask, np.arange(0, len(mask), frame)) for mask in masks])
    return SpeechScan(reader, num_samples, channel, speech)


def share_limit(scans: Sequence[SpeechScan], max_s: float = MAX_ENROLLMENT_S) -> list[float]:
    """Divide the limit among recordings.

    All get the same share; a recording that is shorter leaves the difference to the others. If a share would be less
    than 2 s, the recordings with the most speech get 2 s each, and the others nothing.

    Returns:
        Seconds of each recording: its duration if it is taken whole, 0 if it is left out.
    """
    max_count = max(1, int(max_s / MIN_SHARE_S))
    by_speech = sorted(range(len(scans)), key=lambda i: (-min(scans[i].speech_s, max_s), i))
    # From the shortest to the longest, so that each can leave what it does not need to those after it.
    by_duration = sorted(by_speech[:max_count], key=lambda i: scans[i].duration_s)
    shares, left_s = [0.0] * len(scans), max_s
    for position, i in enumerate(by_duration):
        shares[i] = min(scans[i].duration_s, left_s / (len(by_duration) - position))
        left_s -= shares[i]
    return shares


def select_segments(scan: SpeechScan, share_s: float) -> list[tuple[int, int]]:
    """Select the segments with the most speech: about 3 s long, in their order; of equal ones the earlier.

    Args:
        scan: of the recording.
        share_s: seconds of all segments together, less than the recording lasts.

    Returns:
        First sample of each segment and the one after its last, at the recording's rate; adjacent ones are joined.
    """
    frame = max(1, round(FRAME_S * scan.reader.sample_rate))
    count = max(1, round(share_s / SEGMENT_S))
    size = max(1, int(share_s / count / FRAME_S + 1e-6))
    # The recording as adjacent segments of `size` frames, and the frames of speech in each.
    starts = np.arange(0, max(1, len(scan.speech) - size + 1), size)
    before = np.concatenate([[0], np.cumsum(scan.speech)])
    spoken = before[np.minimum(starts + size, len(scan.speech))] - before[starts]
    best = np.sort(np.argsort(-spoken, kind="stable")[:count])
    segments: list[tuple[int, int]] = []
    for start in starts[best] * frame:
        stop = min(int(start) + size * frame, scan.num_samples)
        if segments and segments[-1][1] == start:
            segments[-1] = (segments[-1][0], stop)
        else:
            segments.append((int(start), stop))
    return segments


def cut_segments(scan: SpeechScan, segments: Sequence[tuple[int, int]]) -> list[Samples]:
    """Cut segments `[samples]` out of the loudest channel, at the recording's rate; cut ends are faded."""
    rate = scan.reader.sample_rate
    parts: list[list[Samples]] = [[] for _ in segments]
    position = 0
    for block in scan.reader.blocks(round(BLOCK_S * rate)):
        end = position + block.shape[1]
        for part, (start, stop) in zip(parts, segments, strict=True):
            if start < end and stop > position:
                part.append(block[scan.channel, max(0, start - position) : stop - position].copy())
        position = end
        if position >= segments[-1][1]:
            break
    return [
        _faded(np.concatenate(part), round(FADE_S * rate), start > 0, stop < scan.num_samples)
        for part, (start, stop) in zip(parts, segments, strict=True)
    ]


def _faded(samples: Samples, fade: int, at_start: bool, at_end: bool) -> Samples:
    size = min(len(samples) // 2, fade)
    # Fade to the mean, not to zero: a constant in the recording is removed later by a high-pass, but a fade to zero
    # would turn it into pulses, which are not.
    mean = samples.mean(dtype=np.float64).astype(np.float32)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(size) + 0.5) / max(1, size))).astype(np.float32)
    if at_start:
        samples[:size] = mean + (samples[:size] - mean) * ramp
    if at_end and size:
        samples[-size:] = mean + (samples[-size:] - mean) * ramp[::-1]
    return samples
