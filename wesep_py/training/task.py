"""The interface between the training loop and what is trained: `Task`, and `Validator`, which selects the best model.

The loop knows nothing else of what it trains. `extraction_task` and `speaker_task` implement `Task`; `validation`
implements `Validator` for both.
"""

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
"""One training item of a mixture, for example mixture, target and enrollment."""
Items = Callable[[Sample, Mapping[str, int]], list[Item]]
"""Makes the items of a mixture, given a label for each speaker_id."""
Collate = Callable[[Sequence[list[Item]]], dict[str, torch.Tensor]]
"""Makes a batch of the items of several mixtures."""


class Task(ABC):
    """Kind of training: module, losses, items and validator of a run.

    Attributes:
        sample_rate: of the mixtures, in Hz.
        step: module that returns a dictionary of losses for a batch; `loss` is minimised. Its parameters are trained,
            and its `state_dict` is in the state of the run.
        network: the part of `step` that is validated and becomes the checkpoint.
        checkpoint_config: configuration that builds the network.
        validator: validates the network, or `None`.
        items: makes the training items of a mixture, each with at least a `mixture`. A function of a module, because it
            is sent to the processes of the data loader.
        collate: makes the batch of the items of several mixtures; likewise a function of a module.
        title: description of what is trained, in one line.
        embeddings: precomputed embeddings that are added to the mixtures, or `None`.
    """

    sample_rate: int
    step: nn.Module
    network: nn.Module
    checkpoint_config: dict[str, Any]
    validator: Validator | None
    items: Items
    collate: Collate
    title: str
    embeddings: Embeddings | None = None

    def begin_step(self, step: int) -> None:
        """Set what changes during training, given the number of steps done. Most tasks have nothing to set."""
        return

    @property
    def adversaries(self) -> dict[str, Adversary]:
        """Networks that learn against the trained one after each step, by the names under which they are saved."""
        return {}

    def exported(self, state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights of `network` from a `state_dict` of `step`."""
        prefix = "network."
        return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


class Validator(ABC):
    """Validates the network on a fixed list of trials at regular steps.

    Attributes:
        measure: name of the number that selects the best model.
        lower_is_better: whether its lowest value is the best.
        every_steps: interval of validations, in steps.
    """

    measure: str
    lower_is_better: bool = False
    every_steps: int

    @abstractmethod
    def validate(
        self, network: nn.Module, fabric: Fabric, num_examples: int, should_stop: Callable[[], bool]
    ) -> ValidationResult | None:
        """Validate a network.

        Args:
            network: in any mode, which is restored.
            fabric: gives the device, and the processes over which numbers are summed.
            num_examples: number of examples to return.
            should_stop: called repeatedly; true ends the validation without a result.
        """

    @abstractmethod
    def describe(self, numbers: Mapping[str, float]) -> str:
        """Return the numbers in one line."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Return which trials are used."""


@dataclass(frozen=True)
class ValidationResult:
    """Result of a validation.

    Attributes:
        numbers: for the log, over all processes.
        examples: of this process.
    """

    numbers: dict[str, float]
    examples: list[ValidationExample] = field(default_factory=list)


@dataclass(frozen=True)
class ValidationExample:
    """A trial to look at and listen to; waveforms `[samples]`."""

    name: str
    mixture: NDArray[np.float32]
    reference: NDArray[np.float32]
    estimate: NDArray[np.float32]


def spread(items: Sequence[Any], limit: int | None) -> list[Any]:
    """Return at most `limit` of the items, evenly spaced over the list.

    Lists of trials have the first and the second speaker of each mixture in turn. Where the distance is an even number,
    every second choice is one further on, so that not all of them are first speakers.

    >>> spread([0, 1, 2, 3, 4, 5], 3), spread([0, 1, 2, 3, 4, 5, 6, 7, 8], 3)
    ([0, 3, 4], [0, 3, 6])
    """
    if limit is None or limit >= len(items):
        return list(items)
    further = int(len(items) % limit == 0 and len(items) // limit % 2 == 0)
    return [items[i * len(items) // limit + i % 2 * further] for i in range(limit)]
