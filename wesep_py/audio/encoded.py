"""Audio as the bytes of a file, in memory: without loss on the way there, and back."""

from __future__ import annotations

from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.decoding import opened_bytes
from wesep_py.audio.files import samples_of

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
