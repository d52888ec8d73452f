"""Peaks and spectrograms of recordings with a known answer, also when they are read in several blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wesep_py import audio
from wesep_py.ui import page_figures
from wesep_py.ui.page_figures import COLUMNS, ROWS, recording_spectrogram, waveform_peaks


def test_peaks_show_where_a_recording_is_loud(tmp_path: Path):
    waveform = np.zeros((2, 16000), np.float32)
    waveform[1, 4000:8000] = -0.4
    waveform[0, 12000:] = 0.2
    audio.write(tmp_path / "a.wav", waveform, 16000)
    peaks = waveform_peaks(tmp_path / "a.wav")
    assert len(peaks) == 200
    assert peaks[:50] == [0] * 50 and peaks[50:100] == [100] * 50 and peaks[150:] == [50] * 50


def test_silence_has_peaks_of_zero(tmp_path: Path):
    audio.write(tmp_path / "a.wav", np.zeros(100, np.float32), 16000)
    assert set(waveform_peaks(tmp_path / "a.wav")) == {0}


@pytest.mark.parametrize("read_s", [0.7, 100.0])
def test_figures_do_not_depend_on_the_blocks_that_are_read(tmp_path: Path, monkeypatch, read_s: float):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * 44100).astype(np.float32)
    audio.write(tmp_path / "a.wav", noise, 44100)
    expected = waveform_peaks(tmp_path / "a.wav")
    monkeypatch.setattr(page_figures, "_READ_S", read_s)
    assert waveform_peaks(tmp_path / "a.wav") == expected
    assert recording_spectrogram(tmp_path / "a.wav").shape[0] == ROWS


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_a_tone_is_in_its_row_and_at_its_time(tmp_path: Path, rate: int):
    time_s = np.arange(4 * rate) / rate
    tone = np.where(time_s >= 2, 0.5 * np.sin(2 * np.pi * 2000 * time_s), 0).astype(np.float32)
    audio.write(tmp_path / "a.wav", tone, rate)
    levels = recording_spectrogram(tmp_path / "a.wav")
    highest_hz = min(8000, rate / 2)
    row, column = np.unravel_index(levels.argmax(), levels.shape)
    assert levels.shape[0] == ROWS and 0 < levels.shape[1] <= COLUMNS
    assert abs((ROWS - 1 - row) / ROWS * highest_hz - 2000) < 2 * highest_hz / ROWS
    assert column >= levels.shape[1] // 2 - 1
    assert levels[row, levels.shape[1] // 4] < levels.max() - 80
