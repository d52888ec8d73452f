"""Cross-entropy among the training speakers: the second task of a jointly trained encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from wesep_py.errors import ConfigError
from wesep_py.losses.base import Loss, losses

if TYPE_CHECKING:
    from wesep_py.extractor import NetworkOutput


@losses.register("speaker_cross_entropy")
class SpeakerCrossEntropy(Loss):
    """Cross-entropy of the network's `speaker_logits` for the enrolled speaker's label, mean over the batch.

    With a weight of 0.5 beside the weighted SI-SDR it is the multi-task loss of SpEx+ (Ge et al., Interspeech 2020,
    eq. 7).

    Args:
        label_smoothing: share of the probability spread over all speakers, 0 to below 1.

    Raises:
        ValueError: a share out of range.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: is {label_smoothing}; 0 to below 1 is allowed")
        self.label_smoothing = label_smoothing

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """As `Loss.forward`.

        Raises:
            ConfigError: the network has no speaker logits, or fewer than the training set has speakers.
        """
        logits, labels = output.speaker_logits, batch["speaker"]
        if logits is None:
            raise ConfigError(
                "loss: 'speaker_cross_entropy' needs speaker logits; give the embedding cue num_speakers, the number "
                "of speakers of the training set"
            )
        if int(labels.max()) >= logits.shape[1]:
            raise ConfigError(
                f"cues: num_speakers is {logits.shape[1]}, and the training set has at least {int(labels.max()) + 1} "
                "speakers; give their number"
            )
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
