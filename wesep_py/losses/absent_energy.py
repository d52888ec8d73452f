"""Silence where the voice that is asked for is not in the mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wesep_py.losses.base import Loss, losses
from wesep_py.losses.waveform import has_target, weighted
from wesep_py.metrics.scale_invariant import EPS

if TYPE_CHECKING:
    from wesep_py.extractor import NetworkOutput


@losses.register("absent_energy")
class AbsentEnergy(Loss):
    """Energy of the estimate against that of the mixture, for items with a silent target: 10 log10(|ŝ|²/|x|² + τ) dB.

    It is the sum over those items, divided by the size of the batch: beside `thresholded_sdr`, whose range is as large,
    an item counts about the same whether its target is there or not, however many are absent. Items with a target
    count as 0. The mixture's level, which the papers leave in, is taken out: it changes no gradient.

    Args:
        floor_db: softly, what is quieter than this re mixture is quiet enough, < 0; -20 means τ = 1e-2.
        weights: one for each waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a floor that is not negative, a negative weight, all weights zero.

    Source: Delcroix et al., "Listen only to me! How well can target speech extraction handle false alarms?",
        Interspeech 2022, in the form with a floor of Wisdom et al., "What's all the fuss about free universal sound
        separation data?", ICASSP 2021.

    >>> from types import SimpleNamespace
    >>> mixture, target = torch.tensor([[1.0, -1.0]]), torch.zeros(1, 2)
    >>> loss = AbsentEnergy()(SimpleNamespace(waveforms=(0.1 * mixture,)), target, {"mixture": mixture})
    >>> round(loss.item(), 2)  # 10 log10(0.01 + 0.01)
    -16.99
    """

    def __init__(self, floor_db: float = -20.0, weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        if not floor_db < 0:
            raise ValueError(f"floor_db is {floor_db}; give a number of dB below 0")
        if weights is not None and (min(weights, default=0) < 0 or sum(weights) <= 0):
            raise ValueError(f"weights is {list(weights)}; give numbers >= 0 that are not all zero")
        self.floor_db = floor_db
        self.weights = weights

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """As `Loss.forward`; `batch` holds the `mixture` `[batch, samples]`."""
        absent = 1 - has_target(target, batch)
        mixture = batch["mixture"].float().square().sum(-1)
        total = target.new_zeros((), dtype=torch.float32)
        for waveform, weight in weighted(output.waveforms, target, self.weights, "absent_energy"):
            ratio = waveform.float().square().sum(-1) / (mixture + EPS)
            level = 10 * torch.log10(ratio + 10 ** (self.floor_db / 10))
            total = total + weight * (level * absent).mean()
        return total
