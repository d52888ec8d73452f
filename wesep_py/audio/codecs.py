"""Encode and decode waveforms with a lossy codec, without delay.

The codecs are those that libsndfile writes. Each runs at a sample rate that it allows. The delay of a codec (of its
filter bank, or of padding that its container cannot mark) is measured once, with a chirp, and removed:

    waveform ─► gain ─► resample ─► encode ─► decode ─► shift by the delay ─► resample ─► 1 / gain
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.resample import resample
from wesep_py.common.errors import AudioError, nearest

Waveform = NDArray[np.float32]

# Peak of the waveform that is encoded, so that no codec clips it.
FULL_SCALE = 0.95
PROBE_S = 1.0
# Upper bound for the delay of these codecs, and for the samples that they append.
LONGEST_DELAY_S = 0.5


class Codec(NamedTuple):
    """Codec of libsndfile.

    Attributes:
        container: libsndfile's name of the container.
        subtype: libsndfile's name of the codec.
        rates_hz: allowed sample rates; empty for any.
        has_compression: whether it has a compression level.
    """

    container: str
    subtype: str
    rates_hz: tuple[int, ...] = ()
    has_compression: bool = False


CODECS: dict[str, Codec] = {
    "opus": Codec("OGG", "OPUS", (8000, 12000, 16000, 24000, 48000), has_compression=True),
    "vorbis": Codec("OGG", "VORBIS", has_compression=True),
    "mp3": Codec("MP3", "MPEG_LAYER_III", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000), True),
    "ulaw": Codec("WAV", "ULAW", (8000,)),
    "alaw": Codec("WAV", "ALAW", (8000,)),
    "gsm": Codec("WAV", "GSM610", (8000,)),
    "g721": Codec("AU", "G721_32", (8000,)),
    "g723": Codec("AU", "G723_24", (8000,)),
    "vox": Codec("RAW", "VOX_ADPCM", (8000,)),
    "ima_adpcm": Codec("WAV", "IMA_ADPCM"),
    "ms_adpcm": Codec("WAV", "MS_ADPCM"),
}


def is_available(name: str) -> bool:
    """Return whether the libsndfile of this machine writes a codec of `CODECS`."""
    import soundfile

    codec = CODECS[name]
    return codec.subtype in soundfile.available_subtypes(codec.container)


def codec_rate(name: str, sample_rate: int) -> int:
    """Return the rate in Hz at which a codec runs for a waveform of `sample_rate`.

    It is the lowest allowed rate that is not below `sample_rate`, or else the highest allowed rate.

    >>> codec_rate("gsm", 16000), codec_rate("opus", 44100), codec_rate("vorbis", 16000)
    (8000, 48000, 16000)
    """
    allowed = CODECS[name].rates_hz
    if not allowed:
        return sample_rate
    return min((rate for rate in allowed if rate >= sample_rate), default=max(allowed))


def apply_codec(waveform: Waveform, sample_rate: int, name: str, compression: float, rate_hz: int) -> Waveform:
    """Encode and decode a waveform; the result has the same length and no delay.

    Args:
        waveform: float32 `[samples]`; if its peak is above 0.95, it is encoded at a lower level, which is undone.
        sample_rate: its rate in Hz.
        name: a key of `CODECS`.
        compression: 0 (most bits) to 1 (fewest), as libsndfile's compression level; for `opus`, `vorbis`, `mp3`.
        rate_hz: rate at which the codec runs.

    Returns:
        float32 `[samples]`.

    Raises:
        AudioError: this libsndfile does not write the codec, or not at this rate.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak == 0.0:
        return waveform
    gain = np.float32(min(1.0, FULL_SCALE / peak))
    narrow = resample(waveform * gain, sample_rate, rate_hz)
    decoded = _coded(narrow, rate_hz, name, compression)
    decoded = _align(decoded, codec_delay(name, compression, rate_hz), narrow.size)
    return resample(decoded, rate_hz, sample_rate)[: waveform.size] / gain


@lru_cache(maxsize=1024)
def codec_delay(name: str, compression: float, rate_hz: int) -> int:
    """Return the delay of a codec in samples at `rate_hz`: the lag with the largest correlation of a coded chirp."""
    from scipy.signal import chirp

    time_s = np.arange(round(PROBE_S * rate_hz)) / rate_hz
    window = np.hanning(time_s.size)
    probe = (0.5 * window * chirp(time_s, 200.0, PROBE_S, min(3000.0, 0.4 * rate_hz))).astype(np.float32)
    decoded = _coded(probe, rate_hz, name, compression)
    # Correlation by FFT, long enough not to wrap around; negative lags are at its end.
    size = 2 * (probe.size + decoded.size)
    correlation = np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(probe, size)), size)
    max_lag = round(LONGEST_DELAY_S * rate_hz)
    by_lag = np.concatenate([correlation[-max_lag:], correlation[: max_lag + 1]])
    return int(by_lag.argmax()) - max_lag


def _coded(waveform: Waveform, sample_rate: int, name: str, compression: float) -> Waveform:
    """Encode and decode a waveform, with the delay of the codec."""
    import soundfile

    codec = CODECS[name]
    options: dict[str, Any] = {"compression_level": compression} if codec.has_compression else {}
    raw = {"samplerate": sample_rate, "channels": 1, "subtype": codec.subtype} if codec.container == "RAW" else {}
    even = np.pad(waveform, (0, waveform.size % 2))  # a byte of VOX ADPCM holds two samples
    max_samples = waveform.size + round(LONGEST_DELAY_S * sample_rate)
    memory = io.BytesIO()
    try:
        with soundfile.SoundFile(
            memory, "w", sample_rate, 1, codec.subtype, format=codec.container, **options
        ) as encoder:
            encoder.write(even)
        memory.seek(0)
        with soundfile.SoundFile(memory, "r", format=codec.container if raw else None, **raw) as decoder:
            return decoder.read(max_samples, dtype="float32")
    except (soundfile.LibsndfileError, ValueError) as error:
        usable = [known for known in CODECS if is_available(known)]
        reason = "is not written by this libsndfile" if name not in usable else f"failed at {sample_rate} Hz ({error})"
        raise AudioError(f"codec {name!r}: {reason}; {nearest(name, usable)}") from error


def _align(decoded: Waveform, delay: int, num_samples: int) -> Waveform:
    """Return `num_samples` samples from sample `delay` on, with zeros outside the waveform."""
    aligned = np.zeros(num_samples, dtype=np.float32)
    begin = max(0, -delay)
    piece = decoded[max(0, delay) :][: num_samples - begin]
    aligned[begin : begin + piece.size] = piece
    return aligned
