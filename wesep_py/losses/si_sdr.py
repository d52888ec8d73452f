"""Negative SI-SDR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wesep_py.losses.base import Loss, losses
from wesep_py.metrics.scale_invariant import EPS, si_sdr

if TYPE_CHECKING:
    from wesep_py.extractor import NetworkOutput


@losses.register("si_sdr")
class SISDR(Loss):
    """Negative SI-SDR in dB, mean over the batch, weighted sum over the network's estimates.

    An item with a silent target is skipped, since SI-SDR says nothing about it; a batch of nothing else gives
    0, with zero gradients.

    Args:
        weights: one for each waveform of the output, each >= 0, not all zero; None for networks with one
            waveform. SpEx+ has three: `[0.8, 0.1, 0.1]` (Ge et al., "SpEx+: a complete time domain speaker
            extraction network", Interspeech 2020, eq. 6).
        ceiling_db: soft upper limit of the SI-SDR, > 0, as `metrics.si_sdr`; 30 keeps easy items from
            dominating. None: no limit.

    Raises:
        ValueError: a negative weight, all weights zero, a ceiling that is not positive.

    Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, eq. 4.

    >>> from types import SimpleNamespace
    >>> target = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    >>> error = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    >>> output = SimpleNamespace(waveforms=(target + 0.1 * error,))
    >>> round(SISDR()(output, target, {}).item(), 3)
    -20.0
    """

    def __init__(self, weights: tuple[float, ...] | None = None, ceiling_db: float | None = None) -> None:
        super().__init__()
        if weights is not None and (min(weights, default=0) < 0 or sum(weights) <= 0):
            raise ValueError(f"weights is {list(weights)}; give numbers >= 0 that are not all zero")
        if ceiling_db is not None and not ceiling_db > 0:
            raise ValueError(f"ceiling_db is {ceiling_db}; give a number of dB > 0, or leave it out")
        self.weights = weights
        self.ceiling_db = ceiling_db

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """As `Loss.forward`.

        Raises:
            ValueError: an estimate's shape differs from the target's, or their number from that of the
                weights.
        """
        weights = self.weights or (1.0,) * len(output.waveforms)
        if len(weights) != len(output.waveforms) or (self.weights is None and len(weights) > 1):
            raise ValueError(
                f"the network gives {len(output.waveforms)} waveforms and the si_sdr loss has "
                f"{len(self.weights) if self.weights else 'no'} weights; give it one weight for each waveform"
            )
        centred = target.float() - target.float().mean(-1, keepdim=True)
        counts = (centred.square().sum(-1) > EPS).float()
        total = target.new_zeros((), dtype=torch.float32)
        for waveform, weight in zip(output.waveforms, weights, strict=True):
            if waveform.shape != target.shape:
                raise ValueError(
                    f"an estimate has shape {list(waveform.shape)} and the target {list(target.shape)}; "
                    "they must be the same"
                )
            values = si_sdr(waveform, target, self.ceiling_db)
            total = total - weight * (values * counts).sum() / counts.sum().clamp(min=1)
        return total
