"""Negative SI-SDR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.losses.base import losses
from wesep_py.losses.snr import check_ceiling
from wesep_py.losses.waveform import WaveformLoss
from wesep_py.metrics.scale_invariant import si_sdr


@losses.register("si_sdr")
class SISDR(WaveformLoss):
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

    >>> import torch
    >>> from types import SimpleNamespace
    >>> target = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    >>> error = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    >>> output = SimpleNamespace(waveforms=(target + 0.1 * error,))
    >>> round(SISDR()(output, target, {}).item(), 3)
    -20.0
    """

    name = "si_sdr"

    def __init__(self, weights: tuple[float, ...] | None = None, ceiling_db: float | None = None) -> None:
        super().__init__(weights)
        self.ceiling_db = check_ceiling(ceiling_db)

    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        return -si_sdr(estimate, target, self.ceiling_db)
