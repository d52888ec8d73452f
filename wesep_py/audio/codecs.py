"""Waveforms through a codec and back, in time with what went in.

The codecs are those that libsndfile writes. Each runs at a rate of its own, and what comes back is aligned: the delay
of a codec (that of its filter bank, or of padding that its container has no way to mark) is measured once, with a
chirp, and taken out.
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

# What goes in is kept below full scale, so that no codec clips it.
FULL_SCALE = 0.95
PROBE_S = 1.0
# No codec here delays by more, nor adds more at the end.
LONGEST_DELAY_S = 0.5


class Codec(NamedTuple):
    """libsndfile's names, the rates in Hz that it may run at (none: any), and whether it takes a compression level."""

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
    """Whether the libsndfile of this machine writes a codec of `CODECS`."""
    import soundfile

    codec = CODECS[name]
    return codec.subtype in soundfile.available_subtypes(codec.container)


def codec_rate(name: str, sample_rate: int) -> int:
    """The rate in Hz at which a codec runs for a waveform of `sample_rate`: the lowest allowed that loses nothing, or
    the highest.

    >>> codec_rate("gsm", 16000), codec_rate("opus", 44100), codec_rate("vorbis", 16000)
    (8000, 48000, 16000)
    """
    allowed = CODECS[name].rates_hz
    if not allowed:
        return sample_rate
    return min((rate for rate in allowed if rate >= sample_rate), default=max(allowed))


def apply_codec(waveform: Waveform, sample_rate: int, name: str, compression: float, rate_hz: int) -> Waveform:
    """A waveform `[samples]` coded and decoded, as long as before and in time with itself.

    Args:
        waveform: float32 `[samples]`; louder than 0.95, it is coded at a lower level and brought back.
        sample_rate: its rate in Hz.
        name: a key of `CODECS`.
        compression: 0 (most bits) to 1 (fewest), as libsndfile's compression level; for `opus`, `vorbis`, `mp3`.
        rate_hz: rate at which the codec runs.

    Raises:
        AudioError: libsndfile does not write this codec here, or not at this rate.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak == 0.0:
        return waveform
    gain = np.float32(min(1.0, FULL_SCALE / peak))
    narrow = resample(waveform * gain, sample_rate, rate_hz)
    decoded = _align(_through(narrow, rate_hz, name, compression), codec_delay(name, compression, rate_hz), narrow.size)
    return resample(decoded, rate_hz, sample_rate)[: waveform.size] / gain


@lru_cache(maxsize=1024)
def codec_delay(name: str, compression: float, rate_hz: int) -> int:
    """By how many samples at `rate_hz` a codec delays: the lag at which a chirp that went through correlates best."""
    from scipy.signal import chirp

    time_s = np.arange(round(PROBE_S * rate_hz)) / rate_hz
    window = np.hanning(time_s.size)
    probe = (0.5 * window * chirp(time_s, 200.0, PROBE_S, min(3000.0, 0.4 * rate_hz))).astype(np.float32)
    decoded = _through(probe, rate_hz, name, compression)
    size = 2 * (probe.size + decoded.size)
    correlation = np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(probe, size)), size)
    reach = round(LONGEST_DELAY_S * rate_hz)
    lags = np.concatenate([correlation[-reach:], correlation[: reach + 1]])
    return int(lags.argmax()) - reach


def _through(waveform: Waveform, sample_rate: int, name: str, compression: float) -> Waveform:
    import soundfile

    codec = CODECS[name]
    options: dict[str, Any] = {"compression_level": compression} if codec.has_compression else {}
    raw = {"samplerate": sample_rate, "channels": 1, "subtype": codec.subtype} if codec.container == "RAW" else {}
    even = np.pad(waveform, (0, waveform.size % 2))  # of VOX ADPCM a byte holds two samples
    most = waveform.size + round(LONGEST_DELAY_S * sample_rate)
    memory = io.BytesIO()
    try:
        with soundfile.SoundFile(
            memory, "w", sample_rate, 1, codec.subtype, format=codec.container, **options
        ) as encoder:
            encoder.write(even)
        memory.seek(0)
        with soundfile.SoundFile(memory, "r", format=codec.container if raw else None, **raw) as decoder:
            return decoder.read(most, dtype="float32")
    except (soundfile.LibsndfileError, ValueError) as error:
        usable = [known for known in CODECS if is_available(known)]
        reason = "is not written by this libsndfile" if name not in usable else f"failed at {sample_rate} Hz ({error})"
        raise AudioError(f"codec {name!r}: {reason}; {nearest(name, usable)}") from error


def _align(decoded: Waveform, delay: int, num_samples: int) -> Waveform:
    """`num_samples` of it from sample `delay` on, zeros where there is nothing."""
    aligned = np.zeros(num_samples, dtype=np.float32)
    begin = max(0, -delay)
    piece = decoded[max(0, delay) :][: num_samples - begin]
    aligned[begin : begin + piece.size] = piece
    return aligned
