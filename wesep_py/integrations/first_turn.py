"""The first seconds of speech of a live signal, to enroll the person who speaks first.

    frames of 20 ms ─► level ─► speech: well above the quiet frames of the last 30 s ─► seconds of speech so far

The detector of enrollment recordings (module `speech_activity`) knows that there is speech in a recording,
and compares frames with the loud ones. Here nobody may have spoken yet: steady noise must not count, however long it
lasts, so frames are compared with the quiet ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRAME_S = 0.02
WINDOW_S = 30.0
"""Seconds of the signal that are remembered; speech that is older has been set aside."""
# A frame is speech if it is this far above the noise, the 10th percentile of the levels, at most this far below the
# loud frames, their 95th percentile, and not below the minimum. Frames of digital silence, of a microphone that is
# muted, say nothing about the noise.
ABOVE_NOISE_DB = 9.0
BELOW_LOUD_DB = 30.0
NOISE_QUANTILE, LOUD_QUANTILE = 0.1, 0.95
MIN_SPEECH_DB = -55.0
DIGITAL_SILENCE_DB = -80.0
# Gaps of up to 0.1 s within words count as speech; a burst of two frames is a click. What is enrolled has a margin.
GAP_FRAMES = 5
BURST_FRAMES = 2
MARGIN_FRAMES = 3


class FirstTurn:
    """Collect speech until there is enough of it.

    Args:
        sample_rate: of the signal in Hz.
        speech_s: seconds of speech that are enough.

    >>> rng = np.random.default_rng(0)
    >>> noise, speech = 0.001 * rng.standard_normal((1, 8000)), 0.1 * rng.standard_normal((1, 16000))
    >>> turn = FirstTurn(16000, speech_s=1.0)
    >>> for block in (noise, speech, noise):
    ...     turn.push(block)
    >>> round(turn.speech_s, 2), turn.is_complete, turn.recording().shape
    (1.0, True, (1, 17920))
    """

    def __init__(self, sample_rate: int, speech_s: float) -> None:
        self._needed_s = speech_s
        self._sample_rate = sample_rate
        self._frame = max(1, round(FRAME_S * sample_rate))
        self._rest: NDArray[np.float32] | None = None  # samples of a frame that is not complete
        self._frames: list[NDArray[np.float32]] = []  # of the window, each [channels, frame]
        self._levels_db: list[float] = []
        self._speech = np.zeros(0, bool)  # of each frame in the window
        # Speech that has left the window.
        self._old_frames: list[NDArray[np.float32]] = []
        self._num_old = 0

    @property
    def speech_s(self) -> float:
        """Seconds of speech so far."""
        return (self._num_old + int(self._speech.sum())) * self._frame / self._sample_rate

    @property
    def is_complete(self) -> bool:
        """True if there is enough speech."""
        return self.speech_s >= self._needed_s - 1e-6

    def push(self, samples: NDArray[np.floating]) -> None:
        """Take the next samples `[channels, samples]`, −1 to 1; the number of channels may not change."""
        block = np.asarray(samples, np.float32)
        if self._rest is not None:
            block = np.concatenate([self._rest, block], axis=1)
        num_frames = block.shape[1] // self._frame
        self._rest = block[:, num_frames * self._frame :].copy()
        if not num_frames:
            return
        for number in range(num_frames):
            frame = block[:, number * self._frame : (number + 1) * self._frame].copy()
            self._frames.append(frame)
            self._levels_db.append(_level_db(frame))
        self._find_speech()
        self._forget()

    def recording(self) -> NDArray[np.float32]:
        """Return the speech so far `[channels, samples]`, with a margin of 60 ms, and without the pauses."""
        kept = _widened(self._speech, MARGIN_FRAMES)
        frames = self._old_frames + [frame for frame, is_kept in zip(self._frames, kept, strict=True) if is_kept]
        return np.concatenate(frames, axis=1) if frames else np.zeros((1, 0), np.float32)

    def _find_speech(self) -> None:
        """Decide again about all frames of the window: the level of the noise is known better with each."""
        levels_db = np.array(self._levels_db)
        sounding = levels_db[levels_db > DIGITAL_SILENCE_DB]
        if not len(sounding):
            self._speech = np.zeros(len(levels_db), bool)
            return
        noise_db, loud_db = np.quantile(sounding, [NOISE_QUANTILE, LOUD_QUANTILE])
        threshold_db = max(noise_db + ABOVE_NOISE_DB, loud_db - BELOW_LOUD_DB, MIN_SPEECH_DB)
        self._speech = _closed(_opened(levels_db >= threshold_db, BURST_FRAMES), GAP_FRAMES)

    def _forget(self) -> None:
        """Drop what is older than the window; of its speech only the audio and the number of frames remain."""
        excess = len(self._frames) - round(WINDOW_S / FRAME_S)
        if excess <= 0:
            return
        kept = _widened(self._speech, MARGIN_FRAMES)
        self._old_frames += [self._frames[number] for number in range(excess) if kept[number]]
        self._num_old += int(self._speech[:excess].sum())
        del self._frames[:excess], self._levels_db[:excess]
        self._speech = self._speech[excess:]


def _level_db(frame: NDArray[np.float32]) -> float:
    """Return the RMS level of the loudest channel without its mean, at least −100 dB."""
    power = float(frame.var(axis=1, dtype=np.float64).max())
    return 10 * float(np.log10(max(power, 1e-10)))


def _widened(mask: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Return the mask with `count` more true elements at both ends of every run."""
    if not len(mask):
        return mask
    before = np.concatenate([[0], np.cumsum(mask)])
    places = np.arange(len(mask))
    return before[np.minimum(places + count + 1, len(mask))] > before[np.maximum(places - count, 0)]


def _closed(mask: NDArray[np.bool_], max_gap: int) -> NDArray[np.bool_]:
    """Return the mask with gaps of up to `max_gap` elements between true ones closed."""
    return ~_opened(~np.pad(mask, 1), max_gap, keep_ends=True)[1:-1]


def _opened(mask: NDArray[np.bool_], max_run: int, keep_ends: bool = False) -> NDArray[np.bool_]:
    """Return the mask without runs of up to `max_run` true elements; `keep_ends`: but those at the ends."""
    edges = np.flatnonzero(np.diff(np.pad(mask, 1).astype(np.int8)))
    opened = mask.copy()
    for start, stop in edges.reshape(-1, 2):
        if stop - start <= max_run and not (keep_ends and (start == 0 or stop == len(mask))):
            opened[start:stop] = False
    return opened
