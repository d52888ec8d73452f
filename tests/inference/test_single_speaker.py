"""Segments of one person alone: two tones stand for two voices, and a conversation of them for a meeting."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wesep_py import audio
from wesep_py.common.errors import AudioError, InputError
from wesep_py.inference.single_speaker import confidence, find_encoder, find_solo_segments

RATE = 16000
LOW_HZ, HIGH_HZ, BORDER_HZ = 300.0, 1500.0, 800.0


class TwoBandEncoder:
    """Encoder that embeds a recording as its amplitudes below and above the border."""

    embedding_dim = 2
    config = SimpleNamespace(network={"activation": "relu"})

    def __call__(self, waveform: torch.Tensor, lengths: torch.Tensor) -> SimpleNamespace:
        spectrum = torch.fft.rfft(waveform).abs().square()
        border = round(BORDER_HZ * waveform.shape[1] / RATE)
        bands = [spectrum[:, :border].sum(dim=1), spectrum[:, border:].sum(dim=1)]
        return SimpleNamespace(embedding=torch.stack(bands, dim=1).sqrt())


class BandExtractor:
    """Extractor that returns the band with more energy in the enrollment."""

    sample_rate = RATE

    def enroll(self, source: tuple[np.ndarray, int]) -> bool:
        spectrum = np.abs(np.fft.rfft(source[0]))
        border = round(BORDER_HZ * len(source[0]) / RATE)
        return bool(np.square(spectrum[:border]).sum() > np.square(spectrum[border:]).sum())

    def extract(self, source: tuple[np.ndarray, int], voice: bool, shifts: int | None = None) -> SimpleNamespace:
        spectrum = np.fft.rfft(source[0])
        border = round(BORDER_HZ * len(source[0]) / RATE)
        spectrum[slice(border, None) if voice else slice(border)] = 0
        return SimpleNamespace(waveform=np.fft.irfft(spectrum, len(source[0])).astype(np.float32))


def speech(frequency_hz: float, duration_s: float) -> np.ndarray:
    time_s = np.arange(round(duration_s * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * frequency_hz * time_s) * (1.2 + np.sin(8 * np.pi * time_s))).astype(np.float32)


@pytest.fixture
def conversation(tmp_path: Path) -> Path:
    """Low alone to 6 s, both to 12 s, silence to 14 s, high to 20 s, low to 26 s; two channels at 44.1 kHz."""
    silence = 1e-4 * np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    low, high = (speech(frequency_hz, 6) for frequency_hz in (LOW_HZ, HIGH_HZ))
    waveform = audio.resample(np.concatenate([low, low + high, silence, high, low]), RATE, 44100)
    audio.write(tmp_path / "meeting.wav", np.stack([waveform, 0.5 * waveform]), 44100)
    return tmp_path / "meeting.wav"


def test_segments_are_of_one_voice_each_and_voices_are_numbered(conversation: Path):
    steps = []
    segments = find_solo_segments(
        conversation, BandExtractor(), TwoBandEncoder(), progress=lambda done, total: steps.append((done, total))
    )
    assert segments == sorted(segments, key=lambda segment: segment.start_s)
    voices = {}
    for segment in segments:
        middle_s = (segment.start_s + segment.end_s) / 2
        turn = next(turn for turn, (a, b) in TURNS.items() if a <= middle_s <= b)
        begin_s, end_s = TURNS[turn]
        assert begin_s - 0.3 <= segment.start_s and segment.end_s <= end_s + 0.3
        voices.setdefault(turn[:3], set()).add(segment.voice)
    assert voices == {"low": {1}, "hig": {2}}  # more seconds of the low one
    assert steps[-1][0] == steps[-1][1] and steps == sorted(steps)
    assert all(first.end_s <= second.start_s + 1e-6 for first, second in pairwise(segments))


TURNS = {"low1": (0.0, 6.0), "high": (14.0, 20.0), "low2": (20.0, 26.0)}


def test_confidence_grows_with_consistency_and_with_the_depth_of_the_residual():
    assert confidence(0.9, -30, 2.4) > confidence(0.85, -30, 2.4) > confidence(0.85, -20, 2.4)
    assert 0 < confidence(-1, 0, 2.4) < confidence(1, -60, 2.4) < 1


def test_what_cannot_be_searched_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    audio.write(tmp_path / "short.wav", speech(LOW_HZ, 1.0), RATE)
    with pytest.raises(AudioError, match=r"lasts 1\.0 s; at least 2\.4 s are needed"):
        find_solo_segments(tmp_path / "short.wav", BandExtractor(), TwoBandEncoder())
    with pytest.raises(InputError, match="0 to 1 is allowed"):
        find_solo_segments(tmp_path / "short.wav", BandExtractor(), TwoBandEncoder(), min_confidence=2.0)
    audio.write(tmp_path / "silent.wav", np.zeros(4 * RATE, np.float32), RATE)
    assert find_solo_segments(tmp_path / "silent.wav", BandExtractor(), TwoBandEncoder()) == []
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "home"))
    with pytest.raises(InputError, match="no speaker encoder is installed; install one by `wesep models pull dvector`"):
        find_encoder(None, RATE)
