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
        num_speakers: of the training set, given by the training; `None`: the first batch's labels say how many there
            are at least.

    Raises:
        ValueError: a share out of range.
    """

    def __init__(self, label_smoothing: float = 0.0, num_speakers: int | None = None) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: is {label_smoothing}; 0 to below 1 is allowed")
        self.label_smoothing = label_smoothing
        self.num_speakers = num_speakers
        self._is_checked = False

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
        if not self._is_checked:  # once: on a GPU, to read a label is to wait for it
            self._check(logits.shape[1], labels)
            self._is_checked = True
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    def _check(self, num_logits: int, labels: Tensor) -> None:
        least = int(labels.max()) + 1 if self.num_speakers is None else self.num_speakers
        if least > num_logits:
            count = f"at least {least}" if self.num_speakers is None else f"{least}"
            raise ConfigError(
                f"cues: num_speakers is {num_logits}, and the training set has {count} speakers; give their number"
            )
