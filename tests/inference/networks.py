"""Networks whose answer is known, in the place of trained ones."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from wesep_py.network.extraction_network import NetworkOutput


class PitchEncoder(nn.Module):
    """Embeds a recording as the shares of its energy from 0 Hz up in bands of 500 Hz: tones are voices.

    Attributes:
        calls: the shape of each batch that it was given.
    """

    front_end = "filterbank"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[torch.Size] = []

    def forward(self, waveform: Tensor, lengths: Tensor) -> SimpleNamespace:
        self.calls.append(waveform.shape)
        energy = torch.fft.rfft(waveform, n=16000).abs().square()[:, :8000].unflatten(1, (16, 500)).sum(dim=2)
        return SimpleNamespace(embedding=energy)


class BandNetwork(nn.Module):
    """ "Extracts" what lies below a frequency, at a level and polarity of its own.

    Args:
        cutoff_hz: what lies above is taken for other voices.
        gain: the level that it gets wrong.
        presence_logits: what the presence head says of each frame; none if empty.
        encoder: what tells voices apart, for example `PitchEncoder`; none by default.
    """

    sample_rate = 16000

    normalise, level = "rms", "fitted"
    external_embedding_dim = None

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
    """A sine that fades in and out, [samples]."""
    num_samples = round(duration_s * sample_rate)
    time_s = torch.arange(num_samples, dtype=torch.float64) / sample_rate
    fade = torch.hann_window(num_samples, periodic=False, dtype=torch.float64)
    return (amplitude * fade * torch.sin(2 * torch.pi * frequency_hz * time_s)).float()
