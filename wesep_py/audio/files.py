"""Recordings from files: what a file holds, and its samples, whole, in part or block by block.

Every function here gives float32 in [-1, 1] for integer formats (full scale of n bits is 2^(n-1)) and the
stored values for float formats. Lossy formats seek inexactly, so a part of them is cut from the whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.resample import resample
from wesep_py.audio.truncation import check_complete
from wesep_py.errors import AudioError, InputError

if TYPE_CHECKING:
    import soundfile

# Subtypes in which any sample can be reached exactly without decoding what comes before it.
_SEEKABLE = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}
# An MP3 without a length in its header has it estimated to within some frames of 1152 samples.
_MP3_SLACK_SAMPLES = 4 * 1152


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a recording says.

    Attributes:
        sample_rate: in Hz.
        num_channels: at least 1.
        num_samples: of each channel.
        duration_s: in seconds.
        format: libsndfile's name of the container: `WAV`, `FLAC`, `OGG`, `MP3`, …
        subtype: libsndfile's name of the sample format: `PCM_16`, `FLOAT`, `OPUS`, …
    """

    sample_rate: int
    num_channels: int
    num_samples: int
    duration_s: float
    format: str
    subtype: str


def info(path: str | os.PathLike[str]) -> AudioInfo:
    """Read what a recording's header says, without decoding it.

    Args:
        path: a file in any format that libsndfile reads (wav, flac, ogg, opus, mp3, aiff, …).

    Raises:
        AudioError: no such file, an empty file, not audio, no samples, or cut short.

    >>> import numpy as np, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tone.wav"
    >>> from wesep_py.audio import write
    >>> write(path, np.zeros((2, 800), np.float32), 8000)
    >>> about = info(path)
    >>> about.num_channels, about.num_samples, about.duration_s, about.subtype
    (2, 800, 0.1, 'FLOAT')
    """
    with _opened(path) as file:
        return _info_of(file)


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
        AudioError: as `info`; also samples that are not numbers, and a `start` at or past the end.
    """
    path = Path(path)
    with _opened(path) as file:
        about = _info_of(file)
        stop = about.num_samples if stop is None else min(stop, about.num_samples)
        if start < 0 or stop <= start:
            raise AudioError(
                f"{path}: samples {start} to {stop} were asked for; it has {about.num_samples}, "
                f"at {about.sample_rate} Hz"
            )
        seekable = about.subtype in _SEEKABLE
        if seekable:
            file.seek(start)
        samples = _decode(file, path, stop - start if seekable else about.num_samples)
    expected = stop - start if seekable else about.num_samples
    slack = _MP3_SLACK_SAMPLES if about.format == "MP3" else 0
    if len(samples) < expected - slack or len(samples) == 0:
        raise AudioError(
            f"{path}: is cut short: its header promises {about.num_samples} samples and "
            f"{len(samples)} could be decoded; get a whole copy of the file"
        )
    if not seekable:
        samples = samples[start:stop]
        if len(samples) == 0:
            raise AudioError(f"{path}: sample {start} was asked for; the recording ends before it")
    waveform = np.ascontiguousarray(samples.T)
    _check_finite(waveform, path)
    return waveform, about.sample_rate


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
    path = Path(path)
    with _opened(path) as file:
        about = _info_of(file)
        decoded = 0
        while True:
            samples = _decode(file, path, block_samples)
            if len(samples) == 0:
                break
            decoded += len(samples)
            waveform = np.ascontiguousarray(samples.T)
            _check_finite(waveform, path)
            yield waveform
    slack = _MP3_SLACK_SAMPLES if about.format == "MP3" else 0
    if decoded < about.num_samples - slack:
        raise AudioError(
            f"{path}: is cut short: its header promises {about.num_samples} samples and "
            f"{decoded} could be decoded; get a whole copy of the file"
        )


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[soundfile.SoundFile]:
    import soundfile

    path = Path(path)
    try:
        if path.is_dir():
            raise AudioError(f"{path}: is a folder; give an audio file")
        if not path.exists():
            raise AudioError(f"{path}: no such file")
        if not path.is_file():
            raise AudioError(f"{path}: is a pipe or a device, which cannot be read twice; write it to a file first")
        if path.stat().st_size == 0:
            raise AudioError(f"{path}: is an empty file; get a whole copy of it, or leave it out")
        check_complete(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise AudioError(
            f"{path}: is not audio that can be read ({_reason(error)}); "
            "wav, flac, ogg, opus and mp3 are; convert others, for example with ffmpeg"
        ) from error
    # soundfile seeks after each read of a file that says it can, and lossy formats seek inexactly: the block after
    # would start with wrong samples.
    file.seekable = lambda: False  # type: ignore[method-assign]
    with file:
        if file.frames < 1:
            raise AudioError(f"{path}: holds no samples; get a whole copy of it, or leave it out")
        yield file


def _info_of(file: soundfile.SoundFile) -> AudioInfo:
    return AudioInfo(
        sample_rate=file.samplerate,
        num_channels=file.channels,
        num_samples=file.frames,
        duration_s=file.frames / file.samplerate,
        format=file.format,
        subtype=file.subtype,
    )


def _decode(file: soundfile.SoundFile, path: Path, num_samples: int) -> NDArray[np.float32]:
    """The next samples `[samples, channels]`, fewer at the end."""
    import soundfile

    try:
        return file.read(num_samples, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: is damaged or cut short ({_reason(error)}); get a whole copy of it") from error


def _check_finite(waveform: NDArray[np.float32], path: Path) -> None:
    # In float64 no sum of float32 values overflows, so it is finite only if each of them is.
    if not np.isfinite(waveform.sum(dtype=np.float64)):
        channel, sample = np.argwhere(~np.isfinite(waveform))[0]
        count = int((~np.isfinite(waveform)).sum())
        raise AudioError(
            f"{path}: {count} of its samples are not finite numbers (the first: sample {sample} of channel "
            f"{channel} is {waveform[channel, sample]}); repair or replace the file"
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
