"""Codecs: no delay (measured by cross-correlation), any length and level, helpful errors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.conftest import VOICES, make_voice
from wesep_py.audio import codecs
from wesep_py.audio.codecs import CODECS, apply_codec, codec_delay, codec_rate, is_available
from wesep_py.common.errors import AudioError

RATE = 16000


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return make_voice(*VOICES["anna"], 1.0, seed=3)


@pytest.fixture
def fresh_delays() -> Iterator[None]:
    codec_delay.cache_clear()
    yield
    codec_delay.cache_clear()


def _lag(changed: np.ndarray, original: np.ndarray) -> int:
    """Return the delay of `changed` in samples, with a fraction."""
    correlation = np.correlate(changed.astype(np.float64), original.astype(np.float64), "full")
    return int(correlation.argmax()) - (original.size - 1)


@pytest.mark.parametrize("name", [name for name in CODECS if is_available(name)])
def test_coded_speech_is_aligned_and_similar(name: str, voice: np.ndarray) -> None:
    for waveform in (voice, voice[:8001] * np.float32(0.1)):
        changed = apply_codec(waveform, RATE, name, 0.5, codec_rate(name, RATE))
        assert changed.shape == waveform.shape and changed.dtype == np.float32
        assert abs(_lag(changed, waveform)) <= 1
        alike = np.dot(changed, waveform) / np.linalg.norm(changed) / np.linalg.norm(waveform)
        assert 0.8 < alike < 1 - 1e-7
        assert np.array_equal(apply_codec(waveform, RATE, name, 0.5, codec_rate(name, RATE)), changed)


@pytest.mark.parametrize("delay", [-40, 0, 37, 1105])
def test_the_delay_is_measured_and_removed(
    delay: int, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch, fresh_delays: None
) -> None:
    def late(waveform: np.ndarray, sample_rate: int, name: str, compression: float) -> np.ndarray:
        shifted = np.concatenate([np.zeros(max(delay, 0), np.float32), waveform, np.zeros(500, np.float32)])
        return shifted[max(-delay, 0) :]

    monkeypatch.setattr(codecs, "_coded", late)
    assert codec_delay("ulaw", 0.0, RATE) == delay
    changed = apply_codec(voice, RATE, "ulaw", 0.0, RATE)
    np.testing.assert_allclose(changed[max(-delay, 0) :], voice[max(-delay, 0) :], atol=1e-6)


def test_loud_waveforms_are_not_clipped(voice: np.ndarray) -> None:
    loud = 6 * voice
    changed = apply_codec(loud, RATE, "vorbis", 0.2, RATE)
    assert np.abs(changed).max() > 2.5
    assert np.linalg.norm(changed - loud) < 0.2 * np.linalg.norm(loud)


def test_more_compression_loses_more(voice: np.ndarray) -> None:
    errors = [np.linalg.norm(apply_codec(voice, RATE, "vorbis", level, RATE) - voice) for level in (0.0, 0.9)]
    assert errors[1] > 2 * errors[0]


def test_codec_rate_is_the_lowest_sufficient_one() -> None:
    assert codec_rate("mp3", 16000) == 16000 and codec_rate("opus", 44100) == 48000
    assert codec_rate("opus", 96000) == 48000 and codec_rate("ulaw", 48000) == 8000


def test_errors_name_a_missing_codec(voice: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "speex", codecs.Codec("OGG", "SPEEX"))
    with pytest.raises(AudioError, match=r"'speex'.*is not written by this libsndfile"):
        apply_codec(voice, RATE, "speex", 0.0, RATE)
    with pytest.raises(AudioError, match=r"'opus': failed at 11025 Hz"):
        apply_codec(voice, RATE, "opus", 0.0, 11025)
