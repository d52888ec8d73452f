"""Negative signal-to-noise ratios that know the level: SNR, thresholded SDR, scale-dependent SDR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wesep_py.losses.base import losses
from wesep_py.losses.waveform import WaveformLoss
from wesep_py.metrics.scale_invariant import EPS


@losses.register("snr")
class SNR(WaveformLoss):
    """Negative SNR in dB: -10 log10(|s|² / |s - ŝ|²), mean over the batch.

    Unlike SI-SDR it asks for the target's level too. Items with a silent target are skipped.

    Args:
        weights: one for each waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a negative weight, or all weights zero.

    Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019 ("SNR").

    >>> from types import SimpleNamespace
    >>> target = torch.tensor([[1.0, -1.0]])
    >>> round(SNR()(SimpleNamespace(waveforms=(0.9 * target,)), target, {}).item(), 3)
    -20.0
    """

    name = "snr"
    _floor = 0.0

    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        energy, error = target.square().sum(-1), (target - estimate).square().sum(-1)
        return -10 * torch.log10((energy + EPS) / (error + self._floor * energy + EPS))


@losses.register("thresholded_sdr")
class ThresholdedSDR(SNR):
    """Negative SNR with a soft ceiling: -10 log10(|s|² / (|s - ŝ|² + τ |s|²)), τ = 10^(-ceiling_db / 10).

    What is already good no longer pulls. Items with a silent target are skipped; `absent_energy` is for them.

    Args:
        ceiling_db: the ceiling in dB, > 0; 30 means τ = 1e-3.
        weights: one for each waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a ceiling that is not positive, a negative weight, all weights zero.

    Source: Wisdom et al., "Unsupervised sound separation using mixture invariant training", NeurIPS 2020, eq. 2.

    >>> from types import SimpleNamespace
    >>> target = torch.tensor([[1.0, -1.0]])
    >>> round(ThresholdedSDR(30)(SimpleNamespace(waveforms=(target,)), target, {}).item(), 3)
    -30.0
    """

    name = "thresholded_sdr"

    def __init__(self, ceiling_db: float = 30.0, weights: tuple[float, ...] | None = None) -> None:
        super().__init__(weights)
        check_ceiling(ceiling_db)
        self._floor = 10 ** (-ceiling_db / 10)


@losses.register("sd_sdr")
class SDSDR(WaveformLoss):
    """Negative scale-dependent SDR: -10 log10(|α s|² / |s - ŝ|²), α = <ŝ, s> / |s|², mean over the batch.

    As the SNR it punishes a wrong level, and one that is too low twice. Items with a silent target are skipped.

    Args:
        weights: one for each waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a negative weight, or all weights zero.

    Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019 ("SD-SDR").

    >>> from types import SimpleNamespace
    >>> target = torch.tensor([[1.0, -1.0]])
    >>> round(SDSDR()(SimpleNamespace(waveforms=(0.5 * target,)), target, {}).item(), 3)  # 0 dB, as |α s| = |s - ŝ|
    0.0
    """

    name = "sd_sdr"

    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        energy = target.square().sum(-1)
        scale = (estimate * target).sum(-1) / energy.clamp(min=EPS)
        error = (target - estimate).square().sum(-1)
        return -10 * torch.log10((scale.square() * energy + EPS) / (error + EPS))


def check_ceiling(ceiling_db: float | None) -> float | None:
    """The ceiling, if it is one.

    Raises:
        ValueError: it is not positive.
    """
    if ceiling_db is not None and not ceiling_db > 0:
        raise ValueError(f"ceiling_db is {ceiling_db}; give a number of dB > 0, or leave it out")
    return ceiling_db
