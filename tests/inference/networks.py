"""Networks and extractors for tests: some whose answer is known, some small ones with random weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wesep_py.inference import Blocks, Extractor, Voice
from wesep_py.network.extraction_network import NetworkOutput, build_network


class PitchEncoder(nn.Module):
    """Speaker encoder that embeds a recording as its energy in bands of 500 Hz: tones are voices.

    Attributes:
        calls: shape of each batch.
    """

    front_end = "filterbank"
    takes_own_level = False

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[torch.Size] = []

    def forward(self, waveform: Tensor, lengths: Tensor) -> SimpleNamespace:
        self.calls.append(waveform.shape)
        energy = torch.fft.rfft(waveform, n=16000).abs().square()[:, :8000].unflatten(1, (16, 500)).sum(dim=2)
        return SimpleNamespace(embedding=energy)


class BandNetwork(nn.Module):
    """Network that "extracts" what lies below a frequency, at a level and polarity of its own.

    Args:
        cutoff_hz: frequencies above are other voices.
        gain: of the estimate.
        presence_logits: of each frame; without a presence head if empty.
        encoder: speaker encoder, for example `PitchEncoder`; none by default.
    """

    sample_rate = 16000

    normalise, level = "rms", "fitted"
    external_embedding_dim = None
    live_presence, is_live = None, False

    def __init__(
        self,
        cutoff_hz: float = 1000.0,
        gain: float = 1.0,
        presence_logits: tuple[float, ...] = (),
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = {"cutoff_hz": cutoff_hz}
        self.cutoff_hz, self.presence_logits = cutoff_hz, presence_logits
        self.gain = nn.Parameter(torch.tensor(gain))
        self.backbone = SimpleNamespace(stride=1600)
        self.encoder = encoder

    def preprocess(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        scale = (waveform.square().sum(dim=1) / lengths).sqrt().clamp_min(1e-8)[:, None]
        return waveform / scale, scale

    def prepare(self, enrollment: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return {"0.level": enrollment.square().sum(dim=1, keepdim=True) / lengths[:, None]}

    def combine(self, prepared: list[dict[str, Tensor]], weights: list[float]) -> dict[str, Tensor]:
        return {"0.level": sum(w * one["0.level"] for w, one in zip(weights, prepared, strict=True))}

    def extract(self, mixture: Tensor, prepared: dict[str, Tensor]) -> NetworkOutput:
        spectrum = torch.fft.rfft(mixture)
        frequencies = torch.fft.rfftfreq(mixture.shape[1], 1 / self.sample_rate)
        voice = torch.fft.irfft(spectrum * (frequencies < self.cutoff_hz), n=mixture.shape[1])
        logits = torch.tensor([self.presence_logits]) if self.presence_logits else None
        return NetworkOutput((voice * self.gain,), logits)


def tone(frequency_hz: float, duration_s: float, sample_rate: int, amplitude: float = 0.1) -> Tensor:
    """Return a sine that fades in and out, [samples]."""
    num_samples = round(duration_s * sample_rate)
    time_s = torch.arange(num_samples, dtype=torch.float64) / sample_rate
    fade = torch.hann_window(num_samples, periodic=False, dtype=torch.float64)
    return (amplitude * fade * torch.sin(2 * torch.pi * frequency_hz * time_s)).float()


COUNTING_ENCODER = {
    "network": {
        "name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8,
        "pooling": {"name": "recursive", "bottleneck": 8},
    },
    "filterbank": {"num_mel_bins": 20},
}  # fmt: skip


def counting_extractor(
    second: float = 50.0, cues: tuple[str, ...] = ("embedding",), pooling: str | None = None
) -> Extractor:
    """Return an extractor whose encoder finds a second voice with the logit `second` in every recording."""
    torch.manual_seed(0)
    encoder = {
        **COUNTING_ENCODER,
        "network": {**COUNTING_ENCODER["network"], **({"pooling": pooling} if pooling else {})},
    }
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    steered = [{"name": cue, **({"fusion": "concat"} if cue == "embedding" else {})} for cue in cues]
    network = build_network({"backbone": backbone, "speaker": encoder, "cues": steered})
    if pooling is None:
        pool = network.encoder.network.pool
        torch.nn.init.normal_(pool.coverage.weight)
        torch.nn.init.zeros_(pool.existence.weight)
        torch.nn.init.constant_(pool.existence.bias, second)
    return Extractor(network, model_hash="known")


SHORT_BLOCKS = Blocks(1.0, 0.4, 0.2)
BSRNN = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
CAUSAL_BSRNN = {**BSRNN, "causal": True}


def random_extractor(config: dict) -> tuple[Extractor, Voice]:
    """Return an extractor of random weights with a presence head, and a voice enrolled from noise."""
    torch.manual_seed(0)
    extractor = Extractor(build_network({**config, "presence": {}}), "cpu", "tiny", "hash")
    return extractor, extractor.enroll((0.1 * torch.randn(16000).numpy(), 16000))


def noise(num_samples: int, channels: int = 1) -> np.ndarray:
    """Return white noise `[channels, samples]` of RMS 0.1."""
    return (0.1 * np.random.default_rng(0).standard_normal((channels, num_samples))).astype(np.float32)


def run_blocks(runner: Any, mixture: np.ndarray, chunk: int) -> list:
    """Return the outputs of a runner that gets the mixture in chunks of that many samples."""
    outputs = [
        output for at in range(0, mixture.shape[1], chunk) for output in runner.push(mixture[:, at : at + chunk])
    ]
    return [*outputs, *runner.finish()]
