"""One trial to look at and listen to: spectrograms and players, inside the page itself."""

from __future__ import annotations

import base64
import tempfile
from html import escape
from pathlib import Path

import numpy as np

from wesep_py.errors import AudioError
from wesep_py.evaluation.pictures import level_db, png

SHOWN = {"mixture": "mixture", "estimate": "estimate", "reference": "target alone"}
LONGEST_S = 30.0
"""Of longer recordings only the beginning is in the page."""
PEAK = 0.8
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Every browser plays MP3; other rates become WAV."""


def clips(folder: Path) -> str:
    """Figures of what is saved of a trial, as HTML; empty if nothing is.

    Mixture, estimate and target have one gain and one scale of levels, so that they can be compared.

    Args:
        folder: with `mixture.wav`, `estimate.wav` and others, as `evaluate --save-audio` writes them.

    Raises:
        AudioError: a file is damaged.
    """
    from wesep_py.audio import read

    if not folder.is_dir():
        return ""
    found = {}
    for name in (*SHOWN, "enrollment"):
        path = folder / f"{name}.wav"
        if path.is_file():
            waveform, rate = read(path)
            found[name] = waveform[0][: round(LONGEST_S * rate)], rate
    together = [waveform for name, (waveform, _) in found.items() if name in SHOWN]
    if not together:
        raise AudioError(f"{folder}: holds no mixture.wav, estimate.wav or reference.wav")
    gain = PEAK / max(1e-6, max(float(np.abs(waveform).max(initial=0.0)) for waveform in together))
    levels = {name: level_db(found[name][0], found[name][1]) for name in SHOWN if name in found}
    loudest_db = max(float(np.percentile(level, 99.9)) for level in levels.values())
    figures = [_figure(SHOWN[name], *found[name], gain, png(level, loudest_db)) for name, level in levels.items()]
    if "enrollment" in found:
        waveform, rate = found["enrollment"]
        own_gain = PEAK / max(1e-6, float(np.abs(waveform).max(initial=0.0)))
        figures.append(_figure("enrollment", waveform, rate, own_gain, None))
    return "".join(figures)


def _figure(title: str, waveform: np.ndarray, rate: int, gain: float, picture: bytes | None) -> str:
    image = ""
    if picture is not None:
        image = f'<img alt="spectrogram, {escape(title)}" src="{_uri("image/png", picture)}">'
    kind, encoded = encode(waveform * np.float32(gain), rate)
    length = f"{len(waveform) / rate:.1f} s, 0 to {rate / 2000:g} kHz"
    return (
        f"<figure><figcaption>{escape(title)}, {length}</figcaption>{image}"
        f'<audio controls preload="metadata" src="{_uri(kind, encoded)}"></audio></figure>'
    )


def encode(waveform: np.ndarray, rate: int) -> tuple[str, bytes]:
    """The media type and bytes of a waveform `[samples]`: MP3 where it can be, else 16-bit WAV."""
    from wesep_py.audio import write

    name, kind, subtype = ("clip.mp3", "audio/mpeg", None) if rate in MP3_RATES else ("clip.wav", "audio/wav", "PCM_16")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, waveform, rate, subtype)
        return kind, path.read_bytes()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
