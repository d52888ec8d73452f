"""Spectrogram pictures of `wesep demo`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wesep_py.cli.demo import draw_spectrograms
from wesep_py.common.errors import OutputExistsError

TONE = (0.5 * np.sin(2 * np.pi * 2000 * np.arange(16000) / 16000)).astype(np.float32)


def brightness(path: Path) -> np.ndarray:
    """Mean brightness of each row of pixels, inside the plots only."""
    from matplotlib.image import imread

    pixels = imread(path)[..., :3].mean(axis=2)
    return pixels[:, 100 : pixels.shape[1] // 2].mean(axis=1)


def test_a_tone_is_a_line_at_its_frequency(tmp_path: Path):
    draw_spectrograms(tmp_path / "a.png", {"tone": TONE}, 16000)
    rows = brightness(tmp_path / "a.png")
    inside = np.flatnonzero(rows < 0.3)  # the dark of the plot
    top, bottom = inside.min(), inside.max()
    line = top + int(rows[top : bottom + 1].argmax())
    # 2 kHz of 8: a quarter of the way up.
    assert (bottom - line) / (bottom - top) == pytest.approx(0.25, abs=0.03)


def test_each_waveform_has_a_panel(tmp_path: Path):
    single = draw_spectrograms(tmp_path / "one.png", {"a": TONE}, 16000)
    double = draw_spectrograms(tmp_path / "two.png", {"a": TONE, "b": np.zeros(100, np.float32)}, 16000)
    assert len(brightness(double)) > 1.5 * len(brightness(single))


def test_an_existing_picture_is_not_replaced(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        draw_spectrograms(tmp_path / "a.png", {"a": TONE}, 16000)
    assert (tmp_path / "a.png").read_bytes() == b"precious"
