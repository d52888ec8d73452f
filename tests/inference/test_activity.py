"""Where somebody speaks: bursts in silence and in noise, and silero-vad behind its extra."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from wesep_py.common.errors import InputError
from wesep_py.inference.speech_activity import remove_low_frequencies, speech_mask

RATE = 16000
RNG = np.random.default_rng(0)


def bursts(pause_s: float, noise: float) -> np.ndarray:
    """Two bursts of 0.5 s, `pause_s` apart, 1 s of pause around them; a noise beneath."""
    burst = 0.1 * RNG.standard_normal(RATE // 2)
    parts = [np.zeros(RATE), burst, np.zeros(round(pause_s * RATE)), burst, np.zeros(RATE)]
    speech = np.concatenate(parts)
    return (speech + noise * RNG.standard_normal(len(speech))).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.02])
def test_bursts_are_found_in_silence_and_in_noise(noise: float):
    mask = speech_mask(bursts(0.5, noise), RATE)
    assert mask.sum() / RATE == pytest.approx(1.0, abs=0.05)
    assert mask[int(1.2 * RATE)] and not mask[int(1.75 * RATE)] and mask[int(2.2 * RATE)]


def test_short_gaps_belong_to_the_speech():
    assert speech_mask(bursts(0.08, 1e-3), RATE).sum() / RATE == pytest.approx(1.08, abs=0.03)
    assert speech_mask(bursts(0.2, 1e-3), RATE).sum() / RATE == pytest.approx(1.0, abs=0.05)


def test_what_never_pauses_is_all_speech_and_silence_is_none():
    assert speech_mask(np.full(RATE, 0.1, np.float32), RATE).all()
    assert not speech_mask(np.zeros(RATE, np.float32), RATE).any()
    assert speech_mask(np.zeros(0, np.float32), RATE).shape == (0,)
    assert speech_mask(np.full(5, 0.1, np.float32), RATE).all()


def test_an_unknown_vad_is_refused():
    with pytest.raises(InputError, match="'webrtc'; energy or silero"):
        speech_mask(np.ones(100, np.float32), RATE, "webrtc")


def test_silero_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(InputError, match=r"silero-vad, which is not installed; pip install 'wesep-py\[vad\]'"):
        speech_mask(np.ones(100, np.float32), RATE, "silero")


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_silero_hears_16_khz_and_its_stretches_come_back_at_the_rate(monkeypatch: pytest.MonkeyPatch, rate: int):
    package, heard = ModuleType("silero_vad"), {}

    def timestamps(waveform: torch.Tensor, model: str, sampling_rate: int) -> list[dict[str, int]]:
        heard.update(size=waveform.shape, model=model, rate=sampling_rate)
        return [{"start": 1600, "end": 4800}, {"start": 8000, "end": 9600}]

    package.load_silero_vad = lambda: "the model"
    package.get_speech_timestamps = timestamps
    monkeypatch.setitem(sys.modules, "silero_vad", package)
    mask = speech_mask(RNG.standard_normal(rate).astype(np.float32), rate, "silero")
    assert heard == {"size": (16000,), "model": "the model", "rate": 16000}
    assert mask.shape == (rate,) and mask.sum() == pytest.approx(0.3 * rate, abs=2)
    assert mask[int(0.2 * rate)] and not mask[int(0.4 * rate)] and mask[int(0.55 * rate)]


def test_silero_leaves_the_number_of_threads(monkeypatch: pytest.MonkeyPatch, tmp_path):
    # The package sets it to 1 when it is imported.
    (tmp_path / "silero_vad.py").write_text(
        "import torch\ntorch.set_num_threads(1)\nload_silero_vad = lambda: None\n"
        "get_speech_timestamps = lambda *_, **__: []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "silero_vad", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert not speech_mask(np.ones(1600, np.float32), RATE, "silero").any()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        sys.modules.pop("silero_vad", None)


def test_a_quiet_recording_has_as_much_speech_as_a_loud_one():
    recording = bursts(0.5, 1e-4)
    assert np.array_equal(speech_mask(recording, RATE), speech_mask(1e-2 * recording, RATE))
    dither = RNG.uniform(-1, 1, RATE).astype(np.float32) / 32768
    assert not speech_mask(dither, RATE).any()


@pytest.mark.parametrize("shape", [(16000,), (2, 16000)])
def test_what_is_below_speech_is_not_remove_low_frequencies(shape: tuple[int, ...]):
    time_s = np.arange(16000) / RATE
    voice = np.broadcast_to(0.1 * np.sin(2 * np.pi * 200 * time_s), shape).astype(np.float32)
    heard = remove_low_frequencies(voice + np.float32(0.3), RATE)
    np.testing.assert_allclose(heard[..., 1600:-1600], voice[..., 1600:-1600], atol=1e-4)
    assert not remove_low_frequencies(np.full(shape, 0.3, np.float32), RATE).any()
    assert remove_low_frequencies(voice, 100).shape == shape  # a rate at which nothing of a voice is left
