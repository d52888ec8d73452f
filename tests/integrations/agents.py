"""A live model, speech and stand-ins for the tests of the adapters."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.conftest import VOICES, make_voice

RATE = 16000
LIVE_MODEL = {
    "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "live": True, "norm": "frame"},
    "cues": [{"name": "tf_map"}],
}


@cache
def live_extractor() -> Any:
    """Return an extractor of random weights in its live mode, with a presence head."""
    import torch

    from wesep_py.inference import Extractor
    from wesep_py.network.extraction_network import build_network

    torch.manual_seed(0)
    network = build_network({**LIVE_MODEL, "presence": {}, "live_presence": {}})
    return Extractor(network, "cpu", "tiny", "hash").live()


@cache
def speech(name: str = "anna", duration_s: float = 3.0, seed: int = 0) -> np.ndarray:
    """Return a synthetic voice, float32 [samples] at 16 kHz."""
    return make_voice(*VOICES[name], duration_s, seed=seed)


def as_int16(waveform: np.ndarray) -> np.ndarray:
    """Return a waveform as 16-bit samples."""
    return np.rint(waveform * 32767).astype(np.int16)


def mixture(duration_s: float = 3.0) -> np.ndarray:
    """Return two voices at once, int16 [samples]."""
    return as_int16((speech("anna", duration_s) + speech("bert", duration_s)) / 2)


class EchoModel:
    """A model without torch whose answer is known: the "voice" is the mixture times a gain, `delay_samples` late.

    Args:
        gain: the voice in the output; enrolling `(waveform, rate)` of other values changes nothing.
        failing_after: number of samples after which a stream raises.
    """

    sample_rate = RATE

    def __init__(self, gain: float = 0.5, delay_samples: int = 300, failing_after: int | None = None) -> None:
        self.gain, self.delay_samples, self.failing_after = gain, delay_samples, failing_after
        self.enrolled: list[Any] = []

    def enroll(self, source: Any) -> SimpleNamespace:
        self.enrolled.append(source)
        return SimpleNamespace(gain=self.gain)

    def stream(
        self, voices: Any, sample_rate: int | None = None, num_channels: int = 1, constant_delay: bool = False
    ) -> EchoStream:
        assert constant_delay or sample_rate is None
        return EchoStream(self, voices, num_channels)


class EchoStream:
    """The stream of an `EchoModel`."""

    def __init__(self, model: EchoModel, voice: Any, num_channels: int) -> None:
        self.model, self.voice, self.num_channels = model, voice, num_channels
        self.delay, self.presence = model.delay_samples, None
        self.reset()

    def reset(self) -> None:
        self.past, self.num_in = np.zeros((self.num_channels, self.delay), np.int16), 0

    def change_voice(self, voice: Any) -> None:
        self.voice = voice

    def process(self, samples: np.ndarray) -> np.ndarray:
        block = np.atleast_2d(samples)
        self.num_in += block.shape[1]
        if self.model.failing_after is not None and self.num_in > self.model.failing_after and np.any(block):
            raise RuntimeError("out of memory")
        self.presence = 0.25
        queue = np.concatenate([self.past, block], axis=1)
        self.past = queue[:, block.shape[1] :]
        return np.rint(queue[:, : block.shape[1]] * self.voice.gain).astype(np.int16)


def voice_of_gain(gain: float) -> SimpleNamespace:
    """Return a voice of an `EchoModel`."""
    return SimpleNamespace(gain=gain)


def late(samples: np.ndarray, delay: int) -> np.ndarray:
    """Return samples [samples] delayed, of the same length."""
    return np.concatenate([np.zeros(delay, samples.dtype), samples])[: len(samples)]
