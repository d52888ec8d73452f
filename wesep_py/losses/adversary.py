"""A network that learns against the one of a run: what a loss with a discriminator hands to the training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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
