"""Recordings from files: what a file holds, and its samples, whole, in part or block by block.

Every function here gives float32 in [-1, 1] for integer formats (full scale of n bits is 2^(n-1)) and the
stored values for float formats. Lossy formats seek inexactly, so a part of them is cut from the whole.

A file that ends early, or is not as long as its header says, gives what is there, and one warning that says what is
missing; `strictness.strict_reading` makes it an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.decoding import AudioInfo, Recording, Samples, opened_file
from wesep_py.audio.resample import resample
from wesep_py.errors import AudioError, InputError

LOUDEST = 1e10
"""Samples beyond this are no audio: full scale is 1, of integers stored as floats 2^31."""
_BLOCK_SAMPLES = 1 << 18

__all__ = ["AudioInfo", "info", "read", "read_blocks", "read_mono", "samples_of"]


def info(path: str | os.PathLike[str]) -> AudioInfo:
    """Return what a recording is, and how long: what can be decoded, whatever its header says.

    Headers are read, and those of the frames and pages of lossy formats; only where nothing else tells the length, it
    is decoded.

    Args:
        path: a file in any format that libsndfile reads (wav, flac, ogg, opus, mp3, aiff, …).

    Raises:
        AudioError: no such file, an empty file, not audio, no samples; strictly, not as its header says.

    >>> import numpy as np, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tone.wav"
    >>> from wesep_py.audio import write
    >>> write(path, np.zeros((2, 800), np.float32), 8000)
    >>> about = info(path)
    >>> about.num_channels, about.num_samples, about.duration_s, about.subtype
    (2, 800, 0.1, 'FLOAT')
    """
    with opened_file(path) as recording:
        return recording.about


def read(path: str | os.PathLike[str], start: int = 0, stop: int | None = None) -> tuple[NDArray[np.float32], int]:
    """Read a recording, or the samples from `start` to `stop` of it.

    Args:
        path: the file.
        start: first sample, 0 or more.
        stop: the sample after the last; `None`, or past the end, is the end.

    Returns:
        waveform: float32 `[channels, samples]`, at least one sample.
        sample_rate: in Hz.

    Raises:
        AudioError: as `info`; also damage, samples that are not numbers, and a `start` at or past the end.
    """
    with opened_file(path) as recording:
        return samples_of(recording, start, stop), recording.about.sample_rate


def samples_of(recording: Recording, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
    """Decode an open recording, or the samples from `start` to `stop` of it.

    Returns:
        float32 `[channels, samples]`, at least one sample.

    Raises:
        AudioError: as `read`.
    """
    about, name = recording.about, recording.name
    stop = about.num_samples if stop is None else min(stop, about.num_samples)
    if start < 0 or stop <= start:
        raise AudioError(
            f"{name}: samples {start} to {stop} were asked for; it has {about.num_samples}, at {about.sample_rate} Hz"
        )
    # What is allocated follows what is decoded, not what a header says.
    blocks = list(recording.blocks(_BLOCK_SAMPLES, start, stop))
    if not blocks:
        raise AudioError(f"{name}: sample {start} was asked for, and could not be decoded; get a whole copy of it")
    waveform = np.ascontiguousarray(blocks[0].T) if len(blocks) == 1 else np.concatenate([b.T for b in blocks], axis=1)
    waveform = np.ascontiguousarray(waveform)
    _check_samples(waveform, name)
    return waveform


def read_mono(
    path: str | os.PathLike[str],
    sample_rate: int,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channel: int = 0,
) -> NDArray[np.float32]:
    """Read one channel of a recording, or a stretch of it, at the sample rate that is wanted.

    The stretch is cut at the file's own rate, to the nearest sample, and then resampled.

    Args:
        path: the file, of any rate.
        sample_rate: in Hz, of what is returned.
        start_s: where the stretch begins, in seconds, 0 or more.
        duration_s: how long it is, in seconds; `None`, or past the end, is up to the end.
        channel: counted from 0.

    Returns:
        float32 `[samples]`.

    Raises:
        AudioError: as `read`; also a channel that is not there.
    """
    start, stop = 0, None
    if start_s != 0.0 or duration_s is not None:
        file_rate = info(path).sample_rate
        start = round(start_s * file_rate)
        stop = None if duration_s is None else start + round(duration_s * file_rate)
    waveform, file_rate = read(path, start, stop)
    if not 0 <= channel < len(waveform):
        raise AudioError(f"{path}: channel {channel} was asked for; it has {len(waveform)}, counted from 0")
    return resample(waveform[channel], file_rate, sample_rate)


def read_blocks(path: str | os.PathLike[str], block_samples: int) -> Iterator[NDArray[np.float32]]:
    """Read a recording block by block, so that its length does not matter to memory.

    Args:
        path: the file.
        block_samples: length of a block in samples, at least 1; the last block may be shorter.

    Yields:
        float32 `[channels, samples]`. Joined, they are what `read` returns.

    Raises:
        AudioError: as `read`, when the faulty block is reached.
        InputError: a block of no samples.
    """
    if block_samples < 1:
        raise InputError(f"block_samples: is {block_samples}; at least 1 is needed")
    with opened_file(path) as recording:
        is_empty = True
        for samples in recording.blocks(block_samples):
            waveform = np.ascontiguousarray(samples.T)
            _check_samples(waveform, recording.name)
            is_empty = False
            yield waveform
        if is_empty:
            raise AudioError(f"{recording.name}: nothing of it could be decoded; get a whole copy of it")


def _check_samples(waveform: Samples, name: str) -> None:
    # In float64 no sum of float32 values overflows, so it is finite only if each of them is.
    with np.errstate(invalid="ignore"):
        is_finite = np.isfinite(waveform.sum(dtype=np.float64))
    if not is_finite:
        channel, sample = np.argwhere(~np.isfinite(waveform))[0]
        count = int((~np.isfinite(waveform)).sum())
        raise AudioError(
            f"{name}: {count} of its samples are not finite numbers (the first: sample {sample} of channel "
            f"{channel} is {waveform[channel, sample]}); repair or replace the file"
        )
    if (peak := max(float(waveform.max(initial=0.0)), -float(waveform.min(initial=0.0)))) > LOUDEST:
        raise AudioError(
            f"{name}: has samples up to {peak:.3g}, where full scale is 1; up to {LOUDEST:g} can be computed with; "
            "scale or replace the file"
        )
