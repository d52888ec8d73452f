"""Figures of recordings of any length, read block by block: peaks of the waveform, and spectrograms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.evaluation.report_pictures import data_uri, spectrogram_db, spectrogram_png

PEAKS_PER_S, MAX_PEAKS = 200.0, 24_000
"""Columns of a waveform in each second, and at most: enough to mark a segment to a tenth of a second when zoomed in."""
COLUMNS, ROWS = 560, 96
"""Size of a spectrogram in pixels."""
HIGHEST_HZ = 8000.0
"""Highest frequency of a spectrogram."""
_READ_S = 20.0


def waveform_peaks(path: Path) -> list[int]:
    """Return the largest magnitude in each column of a recording, in percent of the largest of all.

    Args:
        path: of any length; all channels count.

    Returns:
        one integer, 0 to 100, per column, `PEAKS_PER_S` in a second and at most `MAX_PEAKS`.
    """
    about = audio.info(path)
    count = max(1, min(MAX_PEAKS, math.ceil(about.duration_s * PEAKS_PER_S)))
    size = max(1, math.ceil(about.num_samples / count))  # samples in a column
    parts = []
    for block in audio.read_blocks(path, size * max(1, round(_READ_S * about.sample_rate / size))):
        magnitudes = np.abs(block).max(axis=0)
        parts.append(np.maximum.reduceat(magnitudes, np.arange(0, len(magnitudes), size)))
    peaks = np.concatenate(parts)
    return np.round(100 * peaks / max(float(peaks.max()), 1e-9)).astype(int).tolist()


def recording_spectrogram(path: Path) -> NDArray[np.float64]:
    """Return the spectrogram of a recording in dB, `[ROWS, columns]`, highest frequency first, up to 8 kHz.

    Args:
        path: of any length; the channels are averaged.
    """
    about = audio.info(path)
    highest_hz = min(HIGHEST_HZ, about.sample_rate / 2)
    rows = round(ROWS * about.sample_rate / 2 / highest_hz)
    column = max(1, math.ceil(about.num_samples / COLUMNS))
    parts = []
    for block in audio.read_blocks(path, column * max(1, round(_READ_S * about.sample_rate / column))):
        columns = max(1, round(block.shape[1] / column))
        parts.append(spectrogram_db(block.mean(axis=0), about.sample_rate, columns, rows)[-ROWS:])
    return np.concatenate(parts, axis=1)


def spectrogram_uri(levels_db: NDArray[np.float64], loudest_db: float) -> str:
    """Return a spectrogram as the URI of a picture; `loudest_db` is the level that is drawn lightest."""
    return data_uri("image/png", spectrogram_png(levels_db, loudest_db))
