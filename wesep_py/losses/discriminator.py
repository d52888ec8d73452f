"""A network that listens to a reference and an estimate, and says how good the estimate is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from wesep_py.features.stft import STFT

_SILENCE = 1e-10
"""Added to the mean square of a signal: one below -100 dB of full scale stays quiet."""
_LEAST = 1e-3
"""Added to magnitudes, at a level of 1, before they are compressed: the gradient of |z|^p at 0 is infinite."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a `MetricDiscriminator`.

    Args:
        channels: of the first layer, doubled by each that follows up to eight times it.
        num_layers: convolutions, each halving frames and bins.
        window_length, hop_length: of the STFT, in samples; the window even, the hop half of it at most.
        power: magnitudes are raised to it, above 0 and at most 1.
    """

    channels: int = 16
    num_layers: int = 4
    window_length: int = 512
    hop_length: int = 256
    power: float = 0.3

    def __post_init__(self) -> None:
        for name in ("channels", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: is {getattr(self, name)}; 1 or more is allowed")
        if not 0 < self.power <= 1:
            raise ValueError(f"power: is {self.power}; above 0 and at most 1 is allowed")


class MetricDiscriminator(nn.Module):
    """Reference and estimate, `[batch, samples]` each, to a quality between 0 and 1, `[batch]`.

    Compressed magnitudes of both are two channels of an image; convolutions with spectral normalisation and leaky
    ReLU, the mean over frames and bins, two linear layers, a sigmoid. Both signals are brought to a level of 1 first,
    as PESQ does, so that a gain is no quality. Recordings of any length from one sample up.

    Sources: Fu et al., "MetricGAN: generative adversarial networks based black-box metric scores optimization for
    speech enhancement", ICML 2019 (layers, spectral normalisation); Cao, Abdulatif and Yang, "CMGAN:
    conformer-based metric GAN for speech enhancement", Interspeech 2022 (compressed magnitudes, strides).

    >>> quality = MetricDiscriminator(DiscriminatorConfig(channels=4, num_layers=2))
    >>> quality(torch.randn(3, 4000), torch.randn(3, 4000)).shape
    torch.Size([3])
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.stft = STFT(config.window_length, config.hop_length)
        self.power = config.power
        # The energy of a periodic Hann window of N samples is 3 N / 8.
        self.scale = (3 * config.window_length / 8) ** -0.5
        widths = [2, *(config.channels * 2 ** min(layer, 3) for layer in range(config.num_layers))]
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(narrow, wide, 4, stride=2, padding=2)), nn.LeakyReLU(0.3)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(
            spectral_norm(nn.Linear(widths[-1], widths[-1])), nn.LeakyReLU(0.3), nn.Linear(widths[-1], 1)
        )

    def forward(self, reference: Tensor, estimate: Tensor) -> Tensor:
        """`[batch]`, above 0 and below 1."""
        image = torch.stack([self._magnitude(reference), self._magnitude(estimate)], dim=1)
        return self.head(self.layers(image).mean(dim=(2, 3))).squeeze(1).sigmoid()

    def _magnitude(self, waveform: Tensor) -> Tensor:
        level = (waveform.square().mean(-1, keepdim=True) + _SILENCE).sqrt()
        spectrum = self.stft(waveform / level) * self.scale
        return (spectrum.real.square() + spectrum.imag.square() + _LEAST**2) ** (self.power / 2)
