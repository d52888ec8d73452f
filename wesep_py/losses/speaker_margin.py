"""Margin losses among the training speakers: the second task of a jointly trained encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from wesep_py.losses.base import Loss, losses

if TYPE_CHECKING:
    from wesep_py.extractor import NetworkOutput

MakeSpeakerLoss = Callable[[Any], nn.Module]
"""From a speaker loss's configuration to the loss, a `speaker.losses.CombinedSpeakerLoss`, of the network's embeddings
and the training set's speakers."""


@losses.register("speaker_margin")
class SpeakerMargin(Loss):
    """A loss of speaker encoders (`aam`, `am`, `sphereface2`, …) on the embedding of the enrollment.

    The embedding is the encoder's, before the cue's `transform`; its label is the enrolled speaker, there or not. The
    vectors of the classes belong to the loss: they train with the network and are in the training state, but not in the
    checkpoint, so that a model is fine-tuned on any number of speakers. Beside a loss in dB a weight of 0.1 to 1.

    Args:
        speaker_loss: given by the training: makes the loss.
        loss: one speaker loss `{name: aam, margin: 0.2, …}`, or a list of them, each with a `weight` (1 if not given).

    Raises:
        ConfigError: an unknown loss or argument, or a network without an embedding that learns.

    Sources: those of the losses; as a second task of extraction, with cross-entropy: Ge et al., "SpEx+", Interspeech
        2020, eq. 7.
    """

    needs_embedding = True

    def __init__(self, speaker_loss: MakeSpeakerLoss, loss: list[dict[str, Any]] | dict[str, Any]) -> None:
        super().__init__()
        self.loss = speaker_loss(loss)

    def update(self, step: int) -> None:
        """As `Loss.update`: the margin of that step."""
        self.loss.update(step)

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """As `Loss.forward`; `batch` holds `embedding` `[batch, embedding_dim]` and `speaker` `[batch]`."""
        return self.loss(batch["embedding"], batch["speaker"]).loss
