"""Centre loss: embeddings near the moving mean of their speaker."""

from __future__ import annotations

import torch
from torch import Tensor

from wesep_py.errors import InputError
from wesep_py.speaker.losses.base import SpeakerLoss, SpeakerLossOutput, speaker_losses


@speaker_losses.register("centre")
class CentreLoss(SpeakerLoss):
    """`λ/2 · mean_i |e_i − c_{y_i}|²`; in training, centres then move towards their speaker's embeddings.

    `c_j ← c_j − α Σ_{i: y_i = j} (c_j − e_i) / (1 + n_j)`, n_j: items of speaker j in the batch. It joins a
    classification loss, which keeps the speakers apart; alone, everything falls into one point. The paper's sum over
    the batch is a mean here, as that of the cross-entropy beside it.

    Args:
        embedding_dim: size of the embeddings.
        num_speakers: 1 or more.
        strength: λ, 0 or more.
        rate: α, 0 to 1.

    Attributes:
        centres: a buffer, `[num_speakers, embedding_dim]`, starting at zero; it is part of the state dict.

    Raises:
        ValueError: an argument out of range.

    Source: Wen et al., "A discriminative feature learning approach for deep face recognition", ECCV 2016, eqs. 2-4.

    >>> loss = CentreLoss(embedding_dim=2, num_speakers=2, strength=1.0)
    >>> loss(torch.tensor([[3.0, 4.0]]), torch.tensor([0])).loss.item()
    12.5
    >>> loss.centres[0].tolist()
    [0.75, 1.0]
    """

    centres: Tensor

    def __init__(self, embedding_dim: int, num_speakers: int, strength: float = 0.001, rate: float = 0.5) -> None:
        super().__init__()
        if embedding_dim < 1 or num_speakers < 1:
            raise ValueError(
                f"embedding_dim and num_speakers: are {embedding_dim} and {num_speakers}; 1 or more is allowed"
            )
        if strength < 0:
            raise ValueError(f"strength: is {strength}; 0 or more is allowed")
        if not 0 <= rate <= 1:
            raise ValueError(f"rate: is {rate}; 0 to 1 is allowed")
        self.strength, self.rate = strength, rate
        self.register_buffer("centres", torch.zeros(num_speakers, embedding_dim))

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """As `SpeakerLoss.compute`."""
        if labels.min() < 0 or labels.max() >= len(self.centres):
            raise InputError(
                f"labels: go outside 0 to {len(self.centres) - 1}, the speakers that the loss was made for"
            )
        labels = labels.long()
        away = embeddings - self.centres[labels].to(embeddings.dtype)
        if self.training:
            self._move(away.detach(), labels)
        return SpeakerLossOutput(self.strength / 2 * away.square().sum(1).mean())

    @torch.no_grad()
    def _move(self, away: Tensor, labels: Tensor) -> None:
        away = away.to(self.centres.dtype)
        total = torch.zeros_like(self.centres).index_add_(0, labels, away)
        counts = away.new_zeros(len(self.centres)).index_add_(0, labels, torch.ones_like(away[:, 0]))
        self.centres += self.rate * total / (1.0 + counts)[:, None]
