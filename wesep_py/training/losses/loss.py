"""What the losses that compare waveforms share: scales, and items with a silent target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wesep_py.common.registry import Registry
from wesep_py.metrics.separation import EPS

if TYPE_CHECKING:
    from wesep_py.network.extraction_network import NetworkOutput


# ----------------------------------------
# A network that learns against the one of a run: what a loss with a discriminator hands to the training.


class Adversary(ABC):
    """A second network with an optimiser of its own, which learns after each step of the network of the run.

    It is no `nn.Module`, so a loss that holds one registers nothing: its weights are in no gradient, average, snapshot
    or checkpoint of the run, only in the training state. A `Loss` offers it as `adversary`; the training finds it
    there (`Task.adversaries`), moves it to the device, calls `learn` once a step, and saves it.
    """

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the network; called once, before the first step."""

    @abstractmethod
    def learn(self, step: int, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Learn from what the loss saw in a step; called on every rank, after the network's own update.

        A gradient that is not finite must leave the weights as they are.

        Args:
            step: optimiser steps done before.
            total: the sum of a tensor over all ranks; a collective call, so every rank must make the same ones.

        Returns:
            Numbers for the log, over all ranks; the same on each.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser: the same on every rank. Tensors, numbers, texts, lists and dictionaries of them."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; KeyError, ValueError or RuntimeError if it is of another network."""

    def memory(self) -> dict[str, Any]:
        """What is this rank's alone, examples that wait or are kept, on the CPU; of the same kinds as `state_dict`."""
        return {}

    def load_memory(self, memory: dict[str, Any]) -> None:
        """Go on from what `memory` gave."""
        return

    def close(self) -> None:
        """End what runs beside the training."""
        return


# ----------------------------------------
# What every loss is: a module that turns a network's output and the target into one number to minimise.


class Loss(nn.Module, ABC):
    """A loss; its constructor's arguments are its configuration.

    Some are not written but given by the training to a constructor that names them: `sample_rate` (of the model, Hz),
    `num_speakers` (of the training set), `speaker_loss` (makes a loss of the network's embeddings of a configuration).

    Attributes:
        adversary: what learns against the network, if anything does.
        needs_embedding: whether the batch has to hold the network's `embedding` of the enrollment,
            `[batch, embedding_dim]`.
    """

    adversary: Adversary | None = None
    needs_embedding: bool = False

    def update(self, step: int) -> None:
        """Take on the state of a step, 0 or more: optimiser steps done. Most losses have none."""
        return

    @abstractmethod
    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The loss of a batch.

        Args:
            output: what the network returned; `waveforms` holds one or more estimates `[batch, samples]`.
            target: the wanted signal `[batch, samples]`.
            batch: everything the data loader gave (`mixture`, `speaker`, `activity`, …), for losses that need
                more.

        Returns:
            A scalar, finite for finite input, connected to the output's graph even if no item counts.
        """


losses: Registry[Loss] = Registry("loss", Loss)
"""The losses that a configuration can name: `{"name": "si_sdr", …}`."""


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
