"""What every loss is: a module that turns a network's output and the target into one number to minimise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from wesep_py.losses.adversary import Adversary
from wesep_py.registry import Registry

if TYPE_CHECKING:
    from wesep_py.extractor import NetworkOutput


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
