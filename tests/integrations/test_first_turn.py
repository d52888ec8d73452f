"""The first seconds of speech: steady noise and clicks do not count, and blocks of any size give the same."""

from __future__ import annotations

import numpy as np
import pytest

from tests.integrations.agents import RATE, speech
from wesep_py.integrations import FirstTurn


def _noise(duration_s: float, level_db: float = -50.0) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(round(duration_s * RATE))
    return (10 ** (level_db / 20) * samples).astype(np.float32)[None]


@pytest.mark.parametrize("level_db", [-100.0, -60.0, -40.0, -20.0])
def test_steady_noise_and_silence_are_no_speech(level_db: float):
    turn = FirstTurn(RATE, 1.0)
    turn.push(_noise(40.0, level_db))
    turn.push(np.zeros((1, RATE), np.float32))
    assert turn.speech_s == 0
    assert turn.recording().shape[1] == 0


def test_noise_after_a_muted_microphone_is_no_speech():
    turn = FirstTurn(RATE, 1.0)
    turn.push(np.zeros((1, 10 * RATE), np.float32))
    turn.push(_noise(5.0, -45.0))
    assert turn.speech_s == 0


def test_clicks_are_no_speech():
    signal = _noise(10.0)
    signal[0, ::8000] = 1.0
    turn = FirstTurn(RATE, 1.0)
    turn.push(signal)
    assert turn.speech_s == 0


@pytest.mark.parametrize("noise_db", [-90.0, -50.0, -40.0])
def test_seconds_of_speech_are_counted(noise_db: float):
    turn = FirstTurn(RATE, 3.0)
    turn.push(_noise(2.0, noise_db))
    voice = speech("anna", 3.0)[None]
    turn.push(voice + _noise(3.0, noise_db))
    assert 1.5 < turn.speech_s < 3.0
    assert not turn.is_complete
    turn.push(speech("anna", 3.0, seed=1)[None])
    assert turn.is_complete
    assert 3.0 <= turn.recording().shape[1] / RATE < 6.3


def test_a_turn_that_begins_at_once_is_complete_in_time():
    turn = FirstTurn(RATE, 2.0)
    turn.push(speech("bert", 3.5)[None])
    assert turn.is_complete


@pytest.mark.parametrize("size", [1, 161, 1024])
def test_blocks_of_any_size_give_the_same(size: int):
    signal = np.concatenate([_noise(0.5), 0.5 * speech("anna", 1.0)[None]], axis=1)
    whole, parts = FirstTurn(RATE, 3.0), FirstTurn(RATE, 3.0)
    whole.push(signal)
    for start in range(0, signal.shape[1], size):
        parts.push(signal[:, start : start + size])
    assert parts.speech_s == whole.speech_s > 0.3
    np.testing.assert_array_equal(parts.recording(), whole.recording())


def test_short_answers_minutes_apart_add_up_in_bounded_memory():
    turn = FirstTurn(RATE, 2.0)
    for number in range(8):
        turn.push(_noise(45.0, -60.0))
        turn.push(speech("anna", 0.8, seed=number)[None])
    turn.push(_noise(1.0, -60.0))
    assert turn.is_complete
    assert len(turn._frames) <= 1500
    assert turn.recording().shape[1] / RATE < 8 * 1.2


def test_the_louder_channel_decides_and_all_are_kept():
    voice = speech("anna", 2.0)
    turn = FirstTurn(RATE, 1.0)
    turn.push(np.stack([np.zeros_like(voice), voice]))
    assert turn.is_complete
    assert turn.recording().shape[0] == 2
