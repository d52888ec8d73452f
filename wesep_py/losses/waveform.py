"""What the losses that compare waveforms share: scales, and items with a silent target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from wesep_py.losses.base import Loss
from wesep_py.metrics.scale_invariant import EPS

if TYPE_CHECKING:
    from wesep_py.extractor import NetworkOutput


def has_target(target: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """`[batch]`, 1 for items with a target: one that is not silent, and that the batch's `present` does not deny.

    Args:
        target: `[batch, samples]`; silent where its energy without the mean is at most 1e-8, as in the metrics.
        batch: may hold `present` `[batch]`, 0 or 1.
    """
    centred = target.float() - target.float().mean(-1, keepdim=True)
    heard = (centred.square().sum(-1) > EPS).float()
    return heard * batch["present"].float() if "present" in batch else heard


class WaveformLoss(Loss):
    """A loss of each estimate against the target; the weighted sum over the network's estimates.

    It is the mean over the items whose target is not silent; a batch of nothing else gives 0, with zero gradients.

    Args:
        weights: one for each waveform of the output, each >= 0, not all zero; None for networks with one waveform.

    Raises:
        ValueError: a negative weight, or all weights zero.
    """

    name: str

    def __init__(self, weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        if weights is not None and (min(weights, default=0) < 0 or sum(weights) <= 0):
            raise ValueError(f"weights is {list(weights)}; give numbers >= 0 that are not all zero")
        self.weights = weights

    @abstractmethod
    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The loss of each item `[batch]`, finite for silent ones too; waveforms `[batch, samples]`, float32."""

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """As `Loss.forward`.

        Raises:
            ValueError: an estimate's shape differs from the target's, or their number from that of the weights.
        """
        counts = has_target(target, batch)
        total = target.new_zeros((), dtype=counts.dtype)
        for waveform, weight in weighted(output.waveforms, target, self.weights, self.name):
            values = self.of_items(waveform.float(), target.float(), batch)
            total = total + weight * (values * counts).sum() / counts.sum().clamp(min=1)
        return total


def weighted(
    waveforms: tuple[Tensor, ...], target: Tensor, weights: tuple[float, ...] | None, name: str
) -> list[tuple[Tensor, float]]:
    """The network's estimates with their weights; 1 where there is one estimate and no weight.

    Raises:
        ValueError: an estimate's shape differs from the target's, or their number from that of the weights.
    """
    given = weights or (1.0,) * len(waveforms)
    if len(given) != len(waveforms) or (weights is None and len(given) > 1):
        raise ValueError(
            f"the network gives {len(waveforms)} waveforms and the {name} loss has "
            f"{len(weights) if weights else 'no'} weights; give it one weight for each waveform"
        )
    for waveform in waveforms:
        if waveform.shape != target.shape:
            raise ValueError(
                f"an estimate has shape {list(waveform.shape)} and the target {list(target.shape)}; "
                "they must be the same"
            )
    return list(zip(waveforms, given, strict=True))
