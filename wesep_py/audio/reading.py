"""Audio as the bytes of a file, in memory: without loss on the way there, and back."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.decoding import AudioInfo, Recording, Samples, opened_bytes, opened_file
from wesep_py.audio.resample import StreamResampler, resample
from wesep_py.common.errors import AudioError, InputError

# ----------------------------------------
# Recordings from files: what a file holds, and its samples, whole, in part or block by block.
#
# Every function here gives float32 in [-1, 1] for integer formats (full scale of n bits is 2^(n-1)) and the
# stored values for float formats. Lossy formats seek inexactly, so a part of them is cut from the whole.
#
# A file that ends early, or is not as long as its header says, gives what is there, and one warning that says what is
# missing; `strictness.strict_reading` makes it an error.

LOUDEST = 1e10
"""Samples beyond this are no audio: full scale is 1, of integers stored as floats 2^31."""
_BLOCK_SAMPLES = 1 << 18


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


# ----------------------------------------
# Recordings of any length in little memory: resampled block by block, and stretches of them.

_CLOCK = r"(?:\d+:){0,2}\d+(?:\.\d+)?"
_STRETCH = re.compile(rf"(?P<path>.+)@(?P<start>{_CLOCK})-(?P<stop>{_CLOCK})", re.DOTALL)


def resample_blocks(
    blocks: Iterable[NDArray[np.float32]], from_rate: int, to_rate: int, num_channels: int
) -> Iterator[NDArray[np.float32]]:
    """Blocks `[channels, samples]` at another rate; of other lengths, and none of them empty."""
    stream = StreamResampler(from_rate, to_rate, num_channels)
    for block in blocks:
        if (out := stream.push(block)).shape[1]:
            yield out
    if (out := stream.finish()).shape[1]:
        yield out


class Stretch(NamedTuple):
    """A part of a recording.

    Attributes:
        path: of the file.
        start_s, stop_s: seconds from its beginning.
    """

    path: str
    start_s: float
    stop_s: float

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> Stretch | None:
        """What `FILE@START-STOP` means, in seconds or as `[h:]mm:ss`; `None` for a text of another form.

        Raises:
            InputError: it ends before it begins.

        >>> Stretch.parse("meeting.wav@12.3-1:17.8")
        Stretch(path='meeting.wav', start_s=12.3, stop_s=77.8)
        """
        found = _STRETCH.fullmatch(os.fspath(text))
        if found is None:
            return None
        start_s, stop_s = _seconds(found["start"]), _seconds(found["stop"])
        if stop_s <= start_s:
            raise InputError(f"{text}: ends at {stop_s:g} s and begins at {start_s:g} s; give @START-STOP in seconds")
        return cls(found["path"], start_s, stop_s)


def read_stretch(stretch: Stretch) -> tuple[NDArray[np.float32], int]:
    """Read a stretch, cut at the file's own rate to the nearest sample, whatever the length of the file.

    Returns:
        float32 `[channels, samples]`, and the sample rate in Hz.

    Raises:
        AudioError: as `read`; also a stretch that reaches past the end of the recording.
    """
    about = info(stretch.path)
    start, stop = (math.floor(at * about.sample_rate + 0.5) for at in (stretch.start_s, stretch.stop_s))
    if stop > about.num_samples or stop <= start:
        raise AudioError(
            f"{stretch.path}: {stretch.start_s:g} to {stretch.stop_s:g} s were asked for; it lasts "
            f"{about.duration_s:.3f} s"
        )
    return read(stretch.path, start, stop)


def _seconds(clock: str) -> float:
    """`90.5`, `1:30.5` and `0:01:30.5` as seconds."""
    total = 0.0
    for part in clock.split(":"):
        total = 60.0 * total + float(part)
    return total


_MAX_FLAC_CHANNELS = 8
Waveform = NDArray[np.float32]


class Encoded(NamedTuple):
    """Encoded audio: its bytes, the suffix that names its format, and what its samples are."""

    data: bytes
    suffix: str
    sample_rate: int
    num_samples: int


def encode(waveform: Waveform, sample_rate: int, form: Literal["flac", "wav"] = "flac") -> Encoded:
    """A waveform as the bytes of an audio file from which every sample comes back exactly.

    16 bits a sample where they are enough, else 24, else 32-bit floating point, in a wav. The same samples give the
    same bytes.

    Args:
        waveform: float32 `[channels, samples]`, at least one sample.
        sample_rate: in Hz.
        form: `flac`, or a wav where FLAC cannot hold it; or always `wav`.

    >>> encode(np.array([[0.5, -0.25]], np.float32), 16000).suffix
    '.flac'
    >>> encode(np.array([[0.1, 2.5]], np.float32), 16000).suffix
    '.wav'
    """
    import soundfile

    num_channels, num_samples = waveform.shape
    buffer = BytesIO()
    bits = _bits_needed(waveform)
    if bits is None:
        # Not libsndfile, which writes the time of day into a wav of floating point.
        from scipy.io import wavfile

        wavfile.write(buffer, sample_rate, np.ascontiguousarray(waveform.T))
        return Encoded(buffer.getvalue(), ".wav", sample_rate, num_samples)
    fits = _is_flac_rate(sample_rate) and num_channels <= _MAX_FLAC_CHANNELS
    container = "FLAC" if form == "flac" and fits else "WAV"
    whole_numbers = np.rint(waveform.T.astype(np.float64) * 2.0 ** (bits - 1)).astype(np.int32) << (32 - bits)
    soundfile.write(buffer, whole_numbers, sample_rate, subtype=f"PCM_{bits}", format=container)
    return Encoded(buffer.getvalue(), f".{container.lower()}", sample_rate, num_samples)


def measure(data: bytes, place: str) -> tuple[int, int]:
    """Return rate in Hz and number of samples of encoded audio; decoded where only that tells.

    Raises:
        AudioError: as `decode`.
    """
    with opened_bytes(data, place) as recording:
        return recording.about.sample_rate, recording.about.num_samples


def decode(data: bytes, place: str) -> tuple[Waveform, int]:
    """Return the samples of encoded audio.

    Args:
        data: the bytes of an audio file.
        place: what it is, for messages.

    Returns:
        float32 `[channels, samples]`, and the rate in Hz.

    Raises:
        AudioError: it is no audio that can be read, or is damaged.
    """
    with opened_bytes(data, place) as recording:
        return samples_of(recording), recording.about.sample_rate


def _is_flac_rate(sample_rate: int) -> bool:
    # A frame's header states its rate in Hz with 16 bits, or in tens of Hz (RFC 9639, section 9.1.2).
    return sample_rate <= 65535 or (sample_rate % 10 == 0 and sample_rate <= 655350)


def _bits_needed(waveform: Waveform) -> int | None:
    """16 or 24 where that many bits hold every sample exactly, else `None`."""
    for bits in (16, 24):
        full_scale = 2.0 ** (bits - 1)
        steps = waveform.astype(np.float64) * full_scale
        if steps.min() >= -full_scale and steps.max() < full_scale and np.array_equal(steps, np.rint(steps)):
            return bits
    return None
