"""Distance of spectra at several resolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.features.stft import STFT
from wesep_py.losses.base import losses
from wesep_py.losses.waveform import WaveformLoss
from wesep_py.metrics.scale_invariant import EPS

_LEAST = 1e-5
"""Magnitudes below this, with the mixture at an RMS of 1, are as good as nothing: -100 dB."""


@losses.register("multi_resolution_spectral")
class MultiResolutionSpectral(WaveformLoss):
    """Mean distance between the spectra of estimate and target, averaged over several STFTs.

    With S and Ŝ the spectra, `magnitude` weighs mean | |Ŝ|^p - |S|^p |, `log_magnitude` mean | ln|Ŝ| - ln|S| |,
    `complex` mean | |Ŝ|^p e^{i∠Ŝ} - |S|^p e^{i∠S} |, and `convergence` ‖ |Ŝ| - |S| ‖ / ‖ |S| ‖; means are over bins and
    frames. Both waveforms are divided by the RMS of the mixture first, so that a recording's level is no weight.
    Windows are Hann, hops a quarter of them, spectra divided by the root of the window's energy: white noise of
    variance 1 has magnitudes about 1 at every resolution. Items with a silent target are skipped.

    Args:
        window_lengths: of the STFTs, in samples, even.
        power: p, above 0 and at most 1; 0.5 lets quiet bins count more.
        magnitude, log_magnitude, complex, convergence: weights of the distances, >= 0, not all zero.
        weights: one for each waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a length, power or weight out of its range.

    Sources: Yamamoto et al., "Parallel WaveGAN", ICASSP 2020 (convergence, log magnitude); Braun & Tashev,
        "Data augmentation and loss normalization for deep noise suppression", SPECOM 2020 (compressed magnitude and
        complex spectra).

    >>> from types import SimpleNamespace
    >>> target = torch.randn(1, 4000)
    >>> loss = MultiResolutionSpectral(magnitude=0, convergence=1)
    >>> round(loss(SimpleNamespace(waveforms=(0.5 * target,)), target, {"mixture": target}).item(), 4)
    0.5
    """

    name = "multi_resolution_spectral"

    def __init__(
        self,
        window_lengths: tuple[int, ...] = (256, 512, 1024),
        power: float = 0.5,
        magnitude: float = 1.0,
        log_magnitude: float = 0.0,
        complex: float = 0.0,
        convergence: float = 0.0,
        weights: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(weights)
        if not window_lengths or any(length < 4 or length % 4 for length in window_lengths):
            raise ValueError(f"window_lengths: are {list(window_lengths)}; name multiples of 4, at least one")
        if not 0 < power <= 1:
            raise ValueError(f"power: is {power}; above 0 and at most 1 is allowed")
        shares = {
            "magnitude": magnitude, "log_magnitude": log_magnitude, "complex": complex, "convergence": convergence,
        }  # fmt: skip
        if min(shares.values()) < 0 or not any(shares.values()):
            raise ValueError(f"{', '.join(shares)}: are {list(shares.values())}; weights >= 0, not all 0, are needed")
        self.power = power
        self.shares = shares
        self.stfts = nn.ModuleList(STFT(length, length // 4, pad_mode="reflect") for length in window_lengths)
        # The energy of a periodic Hann window of N samples is 3 N / 8.
        self.scales = [(3 * length / 8) ** -0.5 for length in window_lengths]

    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        level = (batch["mixture"].float().square().mean(-1, keepdim=True) + EPS).sqrt()
        both = torch.stack([estimate / level, target / level])
        total = estimate.new_zeros(len(estimate))
        for stft, scale in zip(self.stfts, self.scales, strict=True):
            total = total + self._distance(*(stft(both) * scale))
        return total / len(self.stfts)

    def _distance(self, estimate: Tensor, target: Tensor) -> Tensor:
        """`[batch]`, of spectra `[batch, bins, frames]`."""
        # The root of a square that is kept from 0: the gradient of |z| at 0 is none.
        own, wanted = ((z.real.square() + z.imag.square() + _LEAST**2).sqrt() for z in (estimate, target))
        shares, total = self.shares, own.new_zeros(len(own))
        if shares["magnitude"]:
            total = total + shares["magnitude"] * _mean((own**self.power - wanted**self.power).abs())
        if shares["log_magnitude"]:
            total = total + shares["log_magnitude"] * _mean((own.log() - wanted.log()).abs())
        if shares["complex"]:
            difference = estimate * own ** (self.power - 1) - target * wanted ** (self.power - 1)
            distance = (difference.real.square() + difference.imag.square() + _LEAST**2).sqrt() - _LEAST
            total = total + shares["complex"] * _mean(distance)
        if shares["convergence"]:
            norms = (_norm(own - wanted), _norm(wanted))
            total = total + shares["convergence"] * norms[0] / norms[1]
        return total


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=(-2, -1))


def _norm(values: Tensor) -> Tensor:
    return (values.square().sum(dim=(-2, -1)) + EPS).sqrt()
