"""Read recordings: from files, whole, in part or block by block, and from encoded audio in memory.

| input | functions |
| --- | --- |
| file | `info`, `read`, `read_mono`, `read_blocks` |
| segment `FILE@START-STOP` | `FileSegment`, `segment_of`, `read_file_segment`, `read_mono_segment` |
| bytes of an encoded file | `encode_audio`, `decode_audio`, `probe_audio` |

Samples are float32: -1 to 1 for integer formats (full scale of n bits is 2^(n-1)), the stored values for float formats.
Lossy formats seek inexactly, so a part of them is decoded from the beginning and cut out.

A file that ends early, or is longer or shorter than its header says, gives the samples that are there, and one warning
that says what is missing; with `decoding.strict_reading` it is an error.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.decoding import AudioDecoder, AudioInfo, Samples, open_audio_bytes, open_audio_file
from wesep_py.audio.resample import StreamResampler, resample
from wesep_py.common.errors import AudioError, InputError

Waveform = NDArray[np.float32]

MAX_SAMPLE_VALUE = 1e10
"""Largest absolute sample value of a recording: full scale is 1, or 2^31 for integers stored as floats."""
_BLOCK_SAMPLES = 1 << 18
_MAX_FLAC_CHANNELS = 8
_CLOCK = r"(?:\d+:){0,2}\d+(?:\.\d+)?"
_SEGMENT = re.compile(rf"(?P<path>.+)@(?P<start>{_CLOCK})-(?P<stop>{_CLOCK})", re.DOTALL)


def info(path: str | os.PathLike[str]) -> AudioInfo:
    """Return format and length of a recording. The length is what can be decoded, even if the header says otherwise.

    Only headers, of the file and of its frames or pages, are read; the audio is decoded only if they do not give the
    length.

    Args:
        path: a file in any format that libsndfile reads (wav, flac, ogg, opus, mp3, aiff, …).

    Raises:
        AudioError: the file does not exist, is empty, is not audio, or has no samples; in strict reading, it is not
            as its header says.

    >>> import numpy as np, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tone.wav"
    >>> from wesep_py.audio import write
    >>> write(path, np.zeros((2, 800), np.float32), 8000)
    >>> about = info(path)
    >>> about.num_channels, about.num_samples, about.duration_s, about.subtype
    (2, 800, 0.1, 'FLOAT')
    """
    with open_audio_file(path) as recording:
        return recording.about


def read(path: str | os.PathLike[str], start: int = 0, stop: int | None = None) -> tuple[NDArray[np.float32], int]:
    """Read a recording, or its samples from `start` to `stop`.

    Args:
        path: the file.
        start: first sample, 0 or more.
        stop: sample after the last one; `None`, or a value past the end, means the end.

    Returns:
        waveform: float32 `[channels, samples]`, at least one sample.
        sample_rate: in Hz.

    Raises:
        AudioError: as `info`; also for damage, samples that are not finite, and a `start` at or past the end.
    """
    with open_audio_file(path) as recording:
        return decode_samples(recording, start, stop), recording.about.sample_rate


def decode_samples(recording: AudioDecoder, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
    """Decode an open recording, or its samples from `start` to `stop`.

    Returns:
        float32 `[channels, samples]`, at least one sample.

    Raises:
        AudioError: as `read`.
    """
    about, name = recording.about, recording.name
    stop = about.num_samples if stop is None else min(stop, about.num_samples)
    if start < 0 or stop <= start:
        raise AudioError(
            f"{name}: samples {start} to {stop} were requested; it has {about.num_samples}, at {about.sample_rate} Hz"
        )
    # Memory is allocated for decoded blocks, not for the length that a header states.
    blocks = list(recording.blocks(_BLOCK_SAMPLES, start, stop))
    if not blocks:
        raise AudioError(f"{name}: sample {start} was requested, and could not be decoded; get a whole copy of it")
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
    """Read one channel of a recording, or a segment of it, at a given sample rate.

    The segment is cut at the file's sample rate, to the nearest sample, and then resampled.

    Args:
        path: the file, of any sample rate.
        sample_rate: sample rate of the result in Hz.
        start_s: start of the segment in seconds, 0 or more.
        duration_s: duration of the segment in seconds; `None`, or a value past the end, means up to the end.
        channel: counted from 0.

    Returns:
        float32 `[samples]`.

    Raises:
        AudioError: as `read`; also for a channel that does not exist.
    """
    start, stop = 0, None
    if start_s != 0.0 or duration_s is not None:
        file_rate = info(path).sample_rate
        start = round(start_s * file_rate)
        stop = None if duration_s is None else start + round(duration_s * file_rate)
    waveform, file_rate = read(path, start, stop)
    if not 0 <= channel < len(waveform):
        raise AudioError(f"{path}: channel {channel} was requested; it has {len(waveform)}, counted from 0")
    return resample(waveform[channel], file_rate, sample_rate)


def read_blocks(path: str | os.PathLike[str], block_samples: int) -> Iterator[NDArray[np.float32]]:
    """Read a recording block by block, in memory that does not depend on its length.

    Args:
        path: the file.
        block_samples: length of a block in samples, at least 1; the last block may be shorter.

    Yields:
        float32 `[channels, samples]`. Concatenated, they equal the result of `read`.

    Raises:
        AudioError: as `read`, when the faulty block is reached.
        InputError: `block_samples` is below 1.
    """
    if block_samples < 1:
        raise InputError(f"block_samples: is {block_samples}; at least 1 is needed")
    with open_audio_file(path) as recording:
        is_empty = True
        for samples in recording.blocks(block_samples):
            waveform = np.ascontiguousarray(samples.T)
            _check_samples(waveform, recording.name)
            is_empty = False
            yield waveform
        if is_empty:
            raise AudioError(f"{recording.name}: no sample of it could be decoded; get a whole copy of it")


def _check_samples(waveform: Samples, name: str) -> None:
    """Check that samples are finite and at most `MAX_SAMPLE_VALUE`."""
    # In float64 the sum of float32 values cannot overflow, so it is finite exactly if each of them is; this is faster
    # than testing each.
    with np.errstate(invalid="ignore"):
        is_finite = np.isfinite(waveform.sum(dtype=np.float64))
    if not is_finite:
        channel, sample = np.argwhere(~np.isfinite(waveform))[0]
        count = int((~np.isfinite(waveform)).sum())
        raise AudioError(
            f"{name}: {count} of its samples are not finite numbers (the first: sample {sample} of channel "
            f"{channel} is {waveform[channel, sample]}); repair or replace the file"
        )
    if (peak := max(float(waveform.max(initial=0.0)), -float(waveform.min(initial=0.0)))) > MAX_SAMPLE_VALUE:
        raise AudioError(
            f"{name}: has samples up to {peak:.3g}, where full scale is 1; up to {MAX_SAMPLE_VALUE:g} is allowed; "
            "scale or replace the file"
        )


def resample_blocks(
    blocks: Iterable[NDArray[np.float32]], from_rate: int, to_rate: int, num_channels: int
) -> Iterator[NDArray[np.float32]]:
    """Resample blocks `[channels, samples]`; the resulting blocks have other lengths, and none is empty."""
    stream = StreamResampler(from_rate, to_rate, num_channels)
    for block in blocks:
        if (out := stream.push(block)).shape[1]:
            yield out
    if (out := stream.finish()).shape[1]:
        yield out


class FileSegment(NamedTuple):
    """Segment of a recording.

    Attributes:
        path: the file.
        start_s: start in seconds.
        stop_s: end in seconds.
    """

    path: str
    start_s: float
    stop_s: float

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> FileSegment | None:
        """Parse `FILE@START-STOP`, with times in seconds or as `[h:]mm:ss`; `None` if the text has another form.

        Raises:
            InputError: the segment ends before it begins.

        >>> FileSegment.parse("meeting.wav@12.3-1:17.8")
        FileSegment(path='meeting.wav', start_s=12.3, stop_s=77.8)
        """
        match = _SEGMENT.fullmatch(os.fspath(text))
        if match is None:
            return None
        start_s, stop_s = _seconds(match["start"]), _seconds(match["stop"])
        if stop_s <= start_s:
            raise InputError(f"{text}: ends at {stop_s:g} s and begins at {start_s:g} s; give @START-STOP in seconds")
        return cls(match["path"], start_s, stop_s)


def read_file_segment(segment: FileSegment) -> tuple[NDArray[np.float32], int]:
    """Read a segment, cut at the file's sample rate to the nearest sample.

    Returns:
        waveform: float32 `[channels, samples]`.
        sample_rate: in Hz.

    Raises:
        AudioError: as `read`; also for a segment that reaches past the end of the recording.
    """
    about = info(segment.path)
    start, stop = (math.floor(time_s * about.sample_rate + 0.5) for time_s in (segment.start_s, segment.stop_s))
    if stop > about.num_samples or stop <= start:
        raise AudioError(
            f"{segment.path}: {segment.start_s:g} to {segment.stop_s:g} s were requested; it lasts "
            f"{about.duration_s:.3f} s"
        )
    return read(segment.path, start, stop)


def segment_of(path: str | os.PathLike[str]) -> FileSegment | None:
    """Return the segment that a path names; `None` for an existing file, whatever its name looks like.

    Raises:
        InputError: a segment that ends before it starts.
    """
    return None if Path(path).exists() else FileSegment.parse(path)


def read_mono_segment(path: str | os.PathLike[str], sample_rate: int) -> NDArray[np.float32]:
    """Read the first channel of a recording, or of the segment `FILE@START-STOP` of one, at a given sample rate.

    Returns:
        float32 `[samples]`.

    Raises:
        AudioError: as `read_mono` and `read_file_segment`.
        InputError: a segment that ends before it starts.
    """
    if (segment := segment_of(path)) is None:
        return read_mono(path, sample_rate)
    waveform, file_rate = read_file_segment(segment)
    return resample(waveform[0], file_rate, sample_rate)


def _seconds(clock: str) -> float:
    """Return the seconds of a clock time such as `90.5`, `1:30.5` or `0:01:30.5`."""
    total = 0.0
    for part in clock.split(":"):
        total = 60.0 * total + float(part)
    return total


class EncodedAudio(NamedTuple):
    """Encoded audio in memory.

    Attributes:
        data: the bytes of a file.
        suffix: suffix of its format: `.flac`, `.wav`.
        sample_rate: in Hz.
        num_samples: of each channel.
    """

    data: bytes
    suffix: str
    sample_rate: int
    num_samples: int


def encode_audio(waveform: Waveform, sample_rate: int, form: Literal["flac", "wav"] = "flac") -> EncodedAudio:
    """Encode a waveform losslessly as the bytes of an audio file; equal samples give equal bytes.

    Samples have 16 bits if these represent them exactly, else 24 bits, else they are 32-bit floats in a wav.

    Args:
        waveform: float32 `[channels, samples]`, at least one sample.
        sample_rate: in Hz.
        form: `flac`: FLAC, or wav where FLAC cannot represent the waveform; `wav`: always wav.

    >>> encode_audio(np.array([[0.5, -0.25]], np.float32), 16000).suffix
    '.flac'
    >>> encode_audio(np.array([[0.1, 2.5]], np.float32), 16000).suffix
    '.wav'
    """
    import soundfile

    num_channels, num_samples = waveform.shape
    buffer = BytesIO()
    bits = _bits_needed(waveform)
    if bits is None:
        # Not libsndfile, which writes the current time into a floating-point wav.
        from scipy.io import wavfile

        wavfile.write(buffer, sample_rate, np.ascontiguousarray(waveform.T))
        return EncodedAudio(buffer.getvalue(), ".wav", sample_rate, num_samples)
    fits = _is_flac_rate(sample_rate) and num_channels <= _MAX_FLAC_CHANNELS
    container = "FLAC" if form == "flac" and fits else "WAV"
    whole_numbers = np.rint(waveform.T.astype(np.float64) * 2.0 ** (bits - 1)).astype(np.int32) << (32 - bits)
    soundfile.write(buffer, whole_numbers, sample_rate, subtype=f"PCM_{bits}", format=container)
    return EncodedAudio(buffer.getvalue(), f".{container.lower()}", sample_rate, num_samples)


def probe_audio(data: bytes, place: str) -> tuple[int, int]:
    """Return sample rate in Hz and number of samples of encoded audio; decoded only if its headers do not tell.

    Raises:
        AudioError: as `decode_audio`.
    """
    with open_audio_bytes(data, place) as recording:
        return recording.about.sample_rate, recording.about.num_samples


def decode_audio(data: bytes, place: str) -> tuple[Waveform, int]:
    """Decode encoded audio.

    Args:
        data: the bytes of an audio file.
        place: its name, for messages.

    Returns:
        waveform: float32 `[channels, samples]`.
        sample_rate: in Hz.

    Raises:
        AudioError: it is not audio that can be read, or is damaged.
    """
    with open_audio_bytes(data, place) as recording:
        return decode_samples(recording), recording.about.sample_rate


def _is_flac_rate(sample_rate: int) -> bool:
    """Return whether a FLAC frame header can state a sample rate: 16 bits of Hz or of tens of Hz (RFC 9639, 9.1.2)."""
    return sample_rate <= 65535 or (sample_rate % 10 == 0 and sample_rate <= 655350)


def _bits_needed(waveform: Waveform) -> int | None:
    """Return 16 or 24 if that many bits represent every sample exactly, else `None`."""
    for bits in (16, 24):
        full_scale = 2.0 ** (bits - 1)
        steps = waveform.astype(np.float64) * full_scale
        if steps.min() >= -full_scale and steps.max() < full_scale and np.array_equal(steps, np.rint(steps)):
            return bits
    return None
