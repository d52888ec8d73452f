"""Interface of the losses, their registry, the base class of losses on waveforms, and the interface of adversaries."""

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


class Adversary(ABC):
    """A second network with its own optimiser, updated after each step of the trained network.

    It is not an `nn.Module`, so a loss that holds one registers no parameters: the adversary's weights are in no
    gradient, moving average, snapshot or checkpoint of the run, only in the training state. A `Loss` offers it as the
    attribute `adversary`. The training loop finds it there (`Task.adversaries`), moves it to the device, calls `learn`
    once per step, and saves it.
    """

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the network to a device. Called once, before the first step."""

    @abstractmethod
    def learn(self, step: int, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Learn from what the loss observed in a step. Called on every rank, after the trained network's update.

        A gradient that is not finite must leave the weights unchanged.

        Args:
            step: number of optimiser steps done before.
            total: returns the sum of a tensor over all ranks. It is a collective call, so every rank must make the
                same calls.

        Returns:
            Numbers for the log, over all ranks and the same on each.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return weights and optimiser state, the same on every rank.

        The values are tensors, numbers, strings, lists and dictionaries of them.
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            KeyError, ValueError, RuntimeError: the state belongs to another network.
        """

    def memory(self) -> dict[str, Any]:
        """Return what belongs to this rank alone (pending and stored examples), on the CPU; types as `state_dict`."""
        return {}

    def load_memory(self, memory: dict[str, Any]) -> None:
        """Restore what `memory` returned."""
        return

    def close(self) -> None:
        """Stop background processes."""
        return


class Loss(nn.Module, ABC):
    """A loss. The constructor's arguments are its configuration.

    Some arguments are not written in the configuration but passed by the training task to each constructor that has
    them: `sample_rate` (of the model, in Hz), `num_speakers` (of the training set) and `speaker_loss` (builds a loss on
    the network's embeddings from a configuration).

    Attributes:
        adversary: a network that learns against the trained one, or `None`.
        needs_embedding: whether the batch must hold the network's `embedding` of the enrollment,
            `[batch, embedding_dim]`.
        needs_target_embedding: whether it must hold the embeddings of targets, too: `target_embedding`
            `[items, embedding_dim]`, and `target_items` `[items]`, which items they are of: those whose target speaks.
    """

    adversary: Adversary | None = None
    needs_embedding: bool = False
    needs_target_embedding: bool = False

    def update(self, step: int) -> None:
        """Set the number of optimiser steps done, 0 or more. Most losses do not depend on it."""
        return

    @abstractmethod
    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch.

        Args:
            output: of the network; `waveforms` holds one or more estimates `[batch, samples]`.
            target: reference signal `[batch, samples]`.
            batch: the whole batch of the data loader (`mixture`, `speaker`, `activity`, …), for losses that need more.

        Returns:
            A scalar, finite for finite input, connected to the output's graph even if no item counts.
        """


losses: Registry[Loss] = Registry("loss", Loss)
"""The losses that a configuration can name: `{"name": "si_sdr", …}`."""


def has_target(target: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Return a mask `[batch]`: 1 for items whose target is not silent and is not marked absent by `present`.

    Args:
        target: `[batch, samples]`; silent where its energy, mean removed, is at most 1e-8, as in the metrics.
        batch: may hold `present` `[batch]`, 0 or 1.
    """
    centred = target.float() - target.float().mean(-1, keepdim=True)
    is_audible = (centred.square().sum(-1) > EPS).float()
    return is_audible * batch["present"].float() if "present" in batch else is_audible


class WaveformLoss(Loss):
    """Base of losses that compare each estimate with the target, as a weighted sum over the network's estimates.

    The value is the mean over the items whose target is not silent. A batch without such items gives 0, with zero
    gradients.

    Args:
        weights: one per waveform of the output, each >= 0, not all zero; `None` for networks with one waveform.

    Raises:
        ValueError: a negative weight, or all weights zero.
    """

    name: str

    def __init__(self, weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.weights = check_weights(weights)

    @abstractmethod
    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of each item, `[batch]`, finite for silent items too.

        Args:
            estimate: `[batch, samples]`, float32.
            target: `[batch, samples]`, float32.
            batch: as for `forward`.
        """

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch, see `Loss.forward`.

        Raises:
            ValueError: an estimate's shape differs from the target's, or the number of estimates differs from the
                number of weights.
        """
        counts = has_target(target, batch)
        total = target.new_zeros((), dtype=counts.dtype)
        for waveform, weight in weighted_estimates(output.waveforms, target, self.weights, self.name):
            item_losses = self.of_items(waveform.float(), target.float(), batch)
            # Silent items are multiplied by 0 instead of selected away: the graph stays connected without any item.
            total = total + weight * (item_losses * counts).sum() / counts.sum().clamp(min=1)
        return total


def check_weights(weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return the weights of a network's waveforms unchanged if they are valid.

    Raises:
        ValueError: a negative weight, or all weights zero.
    """
    if weights is not None and (min(weights, default=0) < 0 or sum(weights) <= 0):
        raise ValueError(f"weights is {list(weights)}; give numbers >= 0 that are not all zero")
    return weights


def weighted_estimates(
    waveforms: tuple[Tensor, ...], target: Tensor, weights: tuple[float, ...] | None, name: str
) -> list[tuple[Tensor, float]]:
    """Return the network's estimates with their weights; one estimate without weights has weight 1.

    Args:
        waveforms: estimates, `[batch, samples]` each.
        target: `[batch, samples]`.
        weights: one per estimate, or `None`.
        name: of the loss, for errors.

    Raises:
        ValueError: an estimate's shape differs from the target's, or the number of estimates differs from the number
            of weights.
    """
    estimate_weights = weights or (1.0,) * len(waveforms)
    if len(estimate_weights) != len(waveforms) or (weights is None and len(estimate_weights) > 1):
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
    return list(zip(waveforms, estimate_weights, strict=True))
