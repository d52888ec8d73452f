"""What a run trains: the network, what is minimised, and by what it is judged. The loop knows nothing else of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from wesep_py.data.embedding_files import Embeddings
from wesep_py.simulation import Sample
from wesep_py.training.losses import Adversary

Item = dict[str, Any]
Items = Callable[[Sample, Mapping[str, int]], list[Item]]
Collate = Callable[[Sequence[list[Item]]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Example:
    """A trial to look at and listen to; waveforms `[samples]`."""

    name: str
    mixture: NDArray[np.float32]
    reference: NDArray[np.float32]
    estimate: NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """What a judge found.

    Attributes:
        numbers: for the log, over all processes.
        examples: of this process.
    """

    numbers: dict[str, float]
    examples: list[Example] = field(default_factory=list)


class Judge(ABC):
    """A fixed list of trials by which the network at hand is judged now and then.

    Attributes:
        measure: which of a verdict's numbers chooses the best.
        lower_is_better: whether that is the lowest.
        every_steps: how often it is asked.
    """

    measure: str
    lower_is_better: bool = False
    every_steps: int

    @abstractmethod
    def judge(
        self, network: nn.Module, fabric: Fabric, num_examples: int, should_stop: Callable[[], bool]
    ) -> Verdict | None:
        """Judge a network.

        Args:
            network: in any mode; it comes back in the mode it had.
            fabric: the processes over which numbers are added up, and the device.
            num_examples: so many examples are wanted.
            should_stop: asked now and then; true ends it without a verdict.
        """

    @abstractmethod
    def describe(self, numbers: Mapping[str, float]) -> str:
        """The numbers in one line."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Which trials these are."""


class Task(ABC):
    """What a run trains.

    Attributes:
        sample_rate: of the mixtures, in Hz.
        step: the module that gives a dictionary of losses for a batch; `loss` is what is minimised. Its parameters
            are trained, and are what the state of a run holds.
        network: the part of it that is judged and becomes the checkpoint.
        checkpoint_config: what builds the network.
        judge: or `None`.
        items: what is learned from a mixture, given a whole number for each speaker_id: a list of dictionaries, each
            with at least a `mixture`. A function of a module, for it is sent to the loader's processes.
        collate: the batch of the items of several mixtures; likewise.
        title: what is trained, in one line.
        embeddings: precomputed ones for the mixtures to carry, or `None`.
    """

    sample_rate: int
    step: nn.Module
    network: nn.Module
    checkpoint_config: dict[str, Any]
    judge: Judge | None
    items: Items
    collate: Collate
    title: str
    embeddings: Embeddings | None = None

    def begin_step(self, step: int) -> None:
        """Take on what changes in the course of a training; called with the steps done. Most tasks have nothing."""
        return

    @property
    def adversaries(self) -> dict[str, Adversary]:
        """What learns against the network after each step, by the names under which it is saved. Most have none."""
        return {}

    def exported(self, state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Of the state of `step`, the weights of `network`."""
        prefix = "network."
        return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
