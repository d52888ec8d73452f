"""A loss that makes one utterance predict the centroid of its speaker's utterances."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses.speaker_loss import SpeakerLoss, SpeakerLossOutput, speaker_losses


@speaker_losses.register("running_centroid")
class RunningCentroidLoss(SpeakerLoss):
    """`mean_i (1 − cos(e_i, c_{y_i}))`, with c_j the running mean of the directions of speaker j's embeddings.

    The centroids have no gradient; in training they move after the loss is computed:
    `c_j ← m c_j + (1 − m) · mean of e_i / |e_i| over the items of speaker j`. A speaker counts from its second batch
    on. An embedding near the centroid says of a voice what many utterances would say.

    Needs a loss beside it that keeps speakers apart: a classification or episode loss, or the extraction itself. Alone,
    all embeddings become one direction.

    Args:
        embedding_dim: size of the embeddings.
        num_speakers: 1 or more.
        memory: m, 0 to below 1.

    Attributes:
        centroids: a buffer, `[num_speakers, embedding_dim]`, zero for speakers that have not occurred; it is part of
            the state dict.

    Raises:
        ValueError: an argument out of range.

    Source: after Heo et al., "Centroid estimation with transformer-based speaker embedder for robust target speaker
    extraction", ICASSP 2024; that the centroid is a running mean, and the cosine, are a choice of ours.

    >>> loss = RunningCentroidLoss(embedding_dim=2, num_speakers=2)
    >>> loss(torch.tensor([[3.0, 0.0]]), torch.tensor([0])).loss.item()  # not known yet
    0.0
    >>> loss(torch.tensor([[0.0, 4.0]]), torch.tensor([0])).loss.item()
    1.0
    """

    centroids: Tensor

    def __init__(self, embedding_dim: int, num_speakers: int, memory: float = 0.9) -> None:
        super().__init__()
        if embedding_dim < 1 or num_speakers < 1:
            raise ValueError(
                f"embedding_dim and num_speakers: are {embedding_dim} and {num_speakers}; 1 or more is allowed"
            )
        if not 0 <= memory < 1:
            raise ValueError(f"memory: is {memory}; 0 to below 1 is allowed")
        self.memory = memory
        self.register_buffer("centroids", torch.zeros(num_speakers, embedding_dim))

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """Return the loss, and in training move the centroids; see `SpeakerLoss.compute`."""
        if labels.min() < 0 or labels.max() >= len(self.centroids):
            raise InputError(
                f"labels: some are not from 0 to {len(self.centroids) - 1}; the loss is for {len(self.centroids)} "
                "speakers"
            )
        labels, directions = labels.long(), F.normalize(embeddings)
        centroids = F.normalize(self.centroids[labels]).to(directions.dtype)
        counts = self.centroids[labels].any(dim=1).to(directions.dtype)
        distances = (1 - (directions * centroids).sum(1)) * counts
        if self.training:
            self._move(directions.detach(), labels)
        return SpeakerLossOutput(distances.sum() / counts.sum().clamp(min=1))

    @torch.no_grad()
    def _move(self, directions: Tensor, labels: Tensor) -> None:
        directions = directions.to(self.centroids.dtype)
        total = torch.zeros_like(self.centroids).index_add_(0, labels, directions)
        count = directions.new_zeros(len(self.centroids)).index_add_(0, labels, torch.ones_like(directions[:, 0]))
        # The first mean of a speaker is the centroid itself; only its direction is used, so m need not be made up for.
        share = (1 - self.memory) * (count > 0).to(total.dtype)[:, None]
        self.centroids.mul_(1 - share).add_(share * total / count.clamp(min=1)[:, None])
