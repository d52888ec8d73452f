"""The best of a long enrollment: where in it most is spoken, found block by block, and cut out.

```
file ─► blocks ─► levels of frames of 20 ms ─► which are speech ─► the segments with the most of them, in their order
```

A print does not get better by an hour of speech, but memory and time grow with it. So at most 30 s enter a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from os import PathLike
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.level import active_mask, gain_to_db
from wesep_py.audio.reading import Stretch
from wesep_py.common.errors import InputError
from wesep_py.inference.inputs import Recording, Source, read_enrollment, segment_of

if TYPE_CHECKING:
    from wesep_py.features import HighPass


# ----------------------------------------
# Where somebody speaks in an enrollment: by energy, or by the network of silero-vad.

VAD = Literal["energy", "silero"]
FRAME_S = 0.02
# Energy: no deeper below the loud frames than speech goes, and this far above the quiet ones.
SPEECH_RANGE_DB = 40.0
ABOVE_FLOOR_DB = 4.0
# A recording whose loud frames are below this is silent: the dither of 16 bits is at -96 dB.
SILENCE_DB = -90.0
# Shorter gaps belong to the speech around them: closures of stops, breaths between words.
GAP_S = 0.1
SILERO_RATE = 16000


def speech_mask(waveform: NDArray[np.float32], sample_rate: int, vad: VAD = "energy") -> NDArray[np.bool_]:
    """The samples in which somebody speaks; gaps of up to 0.1 s between them count as speech.

    `energy`: frames of 20 ms no more than 40 dB below the loud ones (their 95th percentile) and at least 4 dB above the
    quiet ones (the 5th), which are the noise wherever there are pauses. `silero`: the network that the package
    `silero-vad` brings along; nothing is downloaded.

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
    found = _by_energy(waveform, sample_rate) if vad == "energy" else _by_silero(waveform, sample_rate)
    return _without_gaps(found, round(GAP_S * sample_rate))


def audible(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Remove from a waveform `[..., samples]` what lies below speech: a constant or rumble says nothing of a voice."""
    import torch

    high_pass = _high_pass(sample_rate)
    if high_pass is None or waveform.shape[-1] == 0:
        return waveform
    rows = torch.from_numpy(np.array(waveform, dtype=np.float32)).reshape(-1, waveform.shape[-1])
    with torch.inference_mode():
        return high_pass(rows).reshape(waveform.shape).numpy()


@lru_cache(maxsize=8)
def _high_pass(sample_rate: int) -> HighPass | None:
    from wesep_py.features import HighPass
    from wesep_py.network.extraction_network import DEFAULT_HIGHPASS_HZ

    return HighPass(sample_rate, DEFAULT_HIGHPASS_HZ) if sample_rate > 16 * DEFAULT_HIGHPASS_HZ else None


def frame_levels_db(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """RMS level in dB of frames of 20 ms, without the rest at the end; of the whole, where that is shorter."""
    frame = min(len(waveform), max(1, round(FRAME_S * sample_rate)))
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame).astype(np.float64)
    return gain_to_db(np.sqrt((frames**2).mean(axis=1)))


def speech_frames(levels_db: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which frames of these levels, `[frames]`, are speech by energy; see `speech_mask`."""
    return levels_db >= _threshold_db(levels_db)


def _threshold_db(levels_db: NDArray[np.float64]) -> float:
    """Return the level above which a frame is speech: relative to the others, whatever the recording's own level."""
    levels = np.maximum(levels_db, -200.0)
    floor, loud = np.quantile(levels, 0.05), np.quantile(levels, 0.95)
    if loud < SILENCE_DB:
        return np.inf
    return float(max(loud - SPEECH_RANGE_DB, min(floor + ABOVE_FLOOR_DB, loud - ABOVE_FLOOR_DB)))


def _by_energy(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.bool_]:
    levels = frame_levels_db(waveform, sample_rate)
    range_db = float(max(levels.max(), -200.0) - _threshold_db(levels))
    return active_mask(waveform, sample_rate, range_db, floor_db=-np.inf, frame_s=FRAME_S)


def _by_silero(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.bool_]:
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
    heard = torch.from_numpy(np.array(audio.resample(waveform, sample_rate, SILERO_RATE), dtype=np.float32))
    mask = np.zeros(len(waveform), dtype=bool)
    for part in get_speech_timestamps(heard, load_silero_vad(), sampling_rate=SILERO_RATE):
        start, end = (round(part[key] * sample_rate / SILERO_RATE) for key in ("start", "end"))
        mask[start:end] = True
    return mask


def close_gaps(frames: NDArray[np.bool_], frame_s: float) -> NDArray[np.bool_]:
    """Close gaps of up to 0.1 s in a mask of frames that last `frame_s` seconds."""
    return _without_gaps(frames, round(GAP_S / frame_s))


def _without_gaps(mask: NDArray[np.bool_], longest: int) -> NDArray[np.bool_]:
    """The mask with every gap between true stretches closed that is at most `longest` samples."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8)))
    closed = mask.copy()
    for end, start in pairwise(edges):
        if mask[end] and start - end <= longest:
            closed[end + 1 : start + 1] = True
    return closed


MAX_ENROLLMENT_S = 30.0
"""Seconds of all recordings of a voice together that enter the network."""
LEAST_ENROLLMENT_S = 1.0
"""A lower limit than this says too little of a voice."""
# Segments that are chosen are about so long: several breaths of words; of many recordings each gives at least this.
SEGMENT_S = 3.0
LEAST_SHARE_S = 2.0
BLOCK_S = 60.0
# Where a segment is cut out of speech it fades, so that no click is heard as a voice.
FADE_S = 0.005
Block = NDArray[np.float32]


@dataclass(frozen=True)
class EnrollmentReader:
    """An enrollment recording of which only the header was read.

    Attributes:
        source: what was given; of an array, the checked `Recording`.
        name: for messages.
        sample_rate: its own, in Hz.
        duration_s: as its header says.
        blocks: called with a number of samples, reads it in blocks `[channels, samples]`.
    """

    source: Source
    name: str
    sample_rate: int
    duration_s: float
    blocks: Callable[[int], Iterator[Block]]


@dataclass(frozen=True)
class SpeechScan:
    """Where somebody speaks in a recording.

    Attributes:
        listed: the recording.
        num_samples: of it, as decoded.
        channel: the loudest.
        speech: `[frames]`, true where somebody speaks in that channel.
    """

    open_enrollment: EnrollmentReader
    num_samples: int
    channel: int
    speech: NDArray[np.bool_]

    @property
    def duration_s(self) -> float:
        """Seconds of the recording."""
        return self.num_samples / self.listed.sample_rate

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return FRAME_S * float(self.speech.sum())


def check_enrollment_limit(max_s: float) -> float:
    """Return the limit, if it is allowed.

    Raises:
        InputError: it is below 1 s, or no number.
    """
    if isinstance(max_s, bool) or not isinstance(max_s, (int, float)) or not max_s >= LEAST_ENROLLMENT_S:
        raise InputError(
            f"max_enrollment_s: is {max_s!r}; {LEAST_ENROLLMENT_S:g} s or more of the enrollment is needed, "
            f"{MAX_ENROLLMENT_S:g} s is usual"
        )
    return float(max_s)


def open_enrollment(source: Source, number: int) -> EnrollmentReader:
    """Read the header of an enrollment recording.

    Args:
        source: a path, also of a stretch (`meeting.wav@12.3-17.8`), or a pair `(waveform, sample_rate)`.
        number: which one of the enrollment it is, from 1 on; names what has no file.

    Raises:
        AudioError, InputError: as `read_enrollment`.
    """
    if isinstance(source, (str, PathLike)):
        stretch = segment_of(source)
        about = audio.info(source if stretch is None else stretch.path)
        rate, path = about.sample_rate, source if stretch is None else stretch.path
        if stretch is None:
            return EnrollmentReader(
                source, str(source), rate, about.duration_s, lambda size: audio.read_blocks(path, size)
            )
        if stretch.stop_s <= about.duration_s:
            length_s = stretch.stop_s - stretch.start_s
            return EnrollmentReader(
                source, str(source), rate, length_s, lambda size: _stretch_blocks(stretch, rate, size)
            )
    # An array; or a stretch past the end, of which reading it says what is wrong.
    recording = read_enrollment(source)
    name = f"recording {number}" if recording.file_format is None else recording.name
    return EnrollmentReader(
        recording, name, recording.sample_rate, recording.duration_s, lambda size: _slices(recording, size)
    )


def scan_speech(recording: EnrollmentReader, vad: VAD = "energy") -> SpeechScan:
    """Read a recording block by block: its loudest channel, and where in it somebody speaks.

    What lies below speech, which is not heard, does not count.

    Raises:
        AudioError: it is damaged.
        InputError: no such `vad`.
    """
    frame = max(1, round(FRAME_S * recording.sample_rate))
    size = frame * round(BLOCK_S / FRAME_S)
    squares, num_samples = [], 0
    for block in recording.blocks(size):
        heard = audible(block, recording.sample_rate).astype(np.float64)
        starts = np.arange(0, heard.shape[1], frame)
        squares.append(np.add.reduceat(heard**2, starts, axis=1) / np.minimum(frame, heard.shape[1] - starts))
        num_samples += block.shape[1]
    levels = np.concatenate(squares, axis=1)
    channel = int(levels.sum(axis=1).argmax())
    if vad == "energy":
        speech = close_gaps(speech_frames(gain_to_db(np.sqrt(levels[channel]))), FRAME_S)
    else:
        rate = recording.sample_rate
        masks = (speech_mask(audible(block[channel], rate), rate, vad) for block in recording.blocks(size))
        speech = np.concatenate([np.logical_or.reduceat(mask, np.arange(0, len(mask), frame)) for mask in masks])
    return SpeechScan(recording, num_samples, channel, speech)


def share_limit(scans: Sequence[SpeechScan], max_s: float = MAX_ENROLLMENT_S) -> list[float]:
    """Divide the limit among recordings.

    All get the same; what a short one has no need of, the others share. Where that would be less than 2 s each, the
    recordings with the most speech get 2 s, and the others nothing.

    Returns:
        Seconds, of a recording that enters whole its duration, of one that is left out 0.
    """
    most = max(1, int(max_s / LEAST_SHARE_S))
    order = sorted(range(len(scans)), key=lambda i: (-min(scans[i].speech_s, max_s), i))
    chosen = sorted(order[:most], key=lambda i: scans[i].duration_s)
    shares, left_s = [0.0] * len(scans), max_s
    for position, i in enumerate(chosen):
        shares[i] = min(scans[i].duration_s, left_s / (len(chosen) - position))
        left_s -= shares[i]
    return shares


def select_segments(scanned: SpeechScan, share_s: float) -> list[tuple[int, int]]:
    """Choose the segments with the most speech: about 3 s long, of two alike the earlier, in their order.

    Args:
        scanned: the recording.
        share_s: seconds of all of them together, less than it lasts.

    Returns:
        First sample and the one after the last, at the recording's own rate; neighbours are joined.
    """
    frame = max(1, round(FRAME_S * scanned.listed.sample_rate))
    count = max(1, round(share_s / SEGMENT_S))
    size = max(1, int(share_s / count / FRAME_S + 1e-6))
    starts = np.arange(0, max(1, len(scanned.speech) - size + 1), size)
    before = np.concatenate([[0], np.cumsum(scanned.speech)])
    spoken = before[np.minimum(starts + size, len(scanned.speech))] - before[starts]
    best = np.sort(np.argsort(-spoken, kind="stable")[:count])
    joined: list[tuple[int, int]] = []
    for start in starts[best] * frame:
        stop = min(int(start) + size * frame, scanned.num_samples)
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((int(start), stop))
    return joined


def cut_segments(scanned: SpeechScan, segments: Sequence[tuple[int, int]]) -> list[Block]:
    """Cut segments `[samples]` out of the loudest channel, at the recording's rate; they fade where they are cut."""
    parts: list[list[Block]] = [[] for _ in segments]
    position = 0
    for block in scanned.listed.blocks(round(BLOCK_S * scanned.listed.sample_rate)):
        end = position + block.shape[1]
        for part, (start, stop) in zip(parts, segments, strict=True):
            if start < end and stop > position:
                part.append(block[scanned.channel, max(0, start - position) : stop - position].copy())
        position = end
        if position >= segments[-1][1]:
            break
    return [
        _faded(np.concatenate(part), scanned.listed.sample_rate, start > 0, stop < scanned.num_samples)
        for part, (start, stop) in zip(parts, segments, strict=True)
    ]


def _faded(samples: Block, sample_rate: int, beginning: bool, end: bool) -> Block:
    size = min(len(samples) // 2, round(FADE_S * sample_rate))
    # To and from the segment's own constant, if it has one, which is removed later.
    level = samples.mean(dtype=np.float64).astype(np.float32)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(size) + 0.5) / max(1, size))).astype(np.float32)
    if beginning:
        samples[:size] = level + (samples[:size] - level) * ramp
    if end and size:
        samples[-size:] = level + (samples[-size:] - level) * ramp[::-1]
    return samples


def _slices(recording: Recording, size: int) -> Iterator[Block]:
    for start in range(0, recording.num_samples, size):
        yield recording.waveform[:, start : start + size]


def _stretch_blocks(stretch: Stretch, sample_rate: int, size: int) -> Iterator[Block]:
    """Read the blocks of a stretch, cut as `read_stretch` cuts it."""
    start, stop = (int(np.floor(at_s * sample_rate + 0.5)) for at_s in (stretch.start_s, stretch.stop_s))
    position = 0
    for block in audio.read_blocks(stretch.path, size):
        part = block[:, max(0, start - position) : max(0, stop - position)]
        if part.shape[1]:
            yield part
        position += block.shape[1]
        if position >= stop:
            return
