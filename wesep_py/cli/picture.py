"""Spectrograms of an extraction, one above the other, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.errors import WesepError
from wesep_py.files import atomic_path

RANGE_DB = 60.0


def draw_spectrograms(
    path: str | PathLike[str],
    waveforms: Mapping[str, NDArray[np.float32]],
    sample_rate: int,
    title: str = "",
    max_hz: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Draw waveforms as spectrograms with one time axis and one scale of levels.

    Args:
        path: the PNG to write.
        waveforms: float32 [samples] under the title of each panel, drawn from top to bottom.
        sample_rate: in Hz.
        title: above all of them.
        max_hz: highest frequency drawn; half the sample rate by default.
        overwrite: replace an existing file.

    Raises:
        WesepError: matplotlib is not installed, or the disk is full.
        OutputExistsError: `path` exists and `overwrite` is false.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise WesepError("pictures need matplotlib; pip install 'wesep-py[demo]'") from error

    spectrograms = {name: _level_db(waveform, sample_rate) for name, waveform in waveforms.items()}
    loudest_db = max(float(np.percentile(level, 99.9)) for level in spectrograms.values())
    longest_s = max(len(waveform) for waveform in waveforms.values()) / sample_rate
    figure = Figure(figsize=(9, 0.6 + 1.9 * len(waveforms)), layout="constrained")
    axes = figure.subplots(len(waveforms), 1, sharex=True, squeeze=False)[:, 0]
    image: Any = None
    for axis, (name, level) in zip(axes, spectrograms.items(), strict=True):
        extent = (0.0, len(waveforms[name]) / sample_rate, 0.0, sample_rate / 2000)
        image = axis.imshow(
            level - loudest_db,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0.0,
            interpolation="nearest",
        )
        axis.set_facecolor("black")
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_ylabel("kHz")
        axis.set_xlim(0.0, longest_s)
        axis.set_ylim(0.0, (max_hz or sample_rate / 2) / 1000)
    axes[-1].set_xlabel("s")
    figure.colorbar(image, ax=list(axes), label="dB below the loudest", pad=0.01)
    figure.suptitle(title, fontsize=12)
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=110)
    return Path(path)


def _level_db(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Level in dB, [bins, frames], of windows of 32 ms every 8 ms."""
    import torch

    from wesep_py.features import STFT

    window = max(2, round(0.032 * sample_rate) // 2 * 2)
    spectrum = STFT(window, window // 4)(torch.as_tensor(np.ascontiguousarray(waveform, dtype=np.float32)))
    return (20 * spectrum.abs().clamp_min(1e-7).log10()).numpy()
