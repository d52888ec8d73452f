"""Adaptive margin: each speaker's own, learned, large where a speaker is easy to tell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wesep_py.speaker.losses.base import SpeakerLossOutput, at_least_float32, speaker_losses
from wesep_py.speaker.losses.classification import ClassificationLoss, is_own


@speaker_losses.register("adaptive_margin")
class AdaptiveMarginSoftmax(ClassificationLoss):
    """AM softmax with a learned margin a speaker: cross-entropy of `s (cos θ_y − m_y)`, minus the mean margin.

    `L = L_AM(m_1 … m_N) − reward · mean(m)`. The cross-entropy pushes a margin down by `s (1 − p_y)` for each item of
    the speaker, the reward pushes it up: with balanced speakers it rests where a speaker's mean `1 − p_y` is
    `reward / s`, so speakers that are well apart get larger ones.

    Args:
        embedding_dim, num_speakers: as `ClassificationLoss`.
        scale: s, > 0.
        initial_margin: of every speaker, above 0, below `max_margin`.
        max_margin: margins stay between 0 and this (they are `max_margin · sigmoid` of a parameter; the paper leaves
            them free), at most 2.
        reward: weight of the mean margin, between 0 and `scale`.

    Attributes:
        margin_logits: `[num_speakers]`, the learned parameter.

    Raises:
        ValueError: an argument out of range.

    Source: Liu et al., "AdaptiveFace: adaptive margin and sampling for face recognition", CVPR 2019
    ("AdaM-Softmax").

    >>> loss = AdaptiveMarginSoftmax(embedding_dim=4, num_speakers=2, initial_margin=0.2)
    >>> [round(margin, 3) for margin in loss.margins().tolist()]
    [0.2, 0.2]
    """

    def __init__(
        self,
        embedding_dim: int,
        num_speakers: int,
        scale: float = 32.0,
        initial_margin: float = 0.2,
        max_margin: float = 0.5,
        reward: float = 10.0,
    ) -> None:
        super().__init__(embedding_dim, num_speakers)
        if not scale > 0:
            raise ValueError(f"scale: is {scale}; a number > 0 is allowed")
        if not 0 < initial_margin < max_margin <= 2:
            raise ValueError(
                f"initial_margin and max_margin: are {initial_margin} and {max_margin}; "
                "0 < initial_margin < max_margin <= 2 is allowed"
            )
        if not 0 <= reward < scale:
            raise ValueError(
                f"reward: is {reward}; 0 or more and below scale ({scale}) is allowed, or no margin is too large"
            )
        self.scale, self.max_margin, self.reward = scale, max_margin, reward
        start = math.log(initial_margin / (max_margin - initial_margin))
        self.margin_logits = nn.Parameter(torch.full((num_speakers,), start))

    def margins(self) -> Tensor:
        """Each speaker's margin, `[num_speakers]`."""
        return self.max_margin * torch.sigmoid(at_least_float32(self.margin_logits))

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """As `ClassificationLoss.logits`."""
        margins = self.margins().to(cosines.dtype)
        return self.scale * (cosines - is_own(labels, self.num_speakers) * margins)

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """As `SpeakerLoss.compute`."""
        output = super().compute(embeddings, labels)
        return output._replace(loss=output.loss - self.reward * self.margins().mean())
