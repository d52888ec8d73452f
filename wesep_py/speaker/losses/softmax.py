"""Softmax cross-entropy, plain or on scaled cosines."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.speaker.losses.base import at_least_float32, speaker_losses
from wesep_py.speaker.losses.classification import ClassificationLoss


@speaker_losses.register("softmax")
class Softmax(ClassificationLoss):
    """Cross-entropy of a linear layer's outputs; with a scale, of scaled cosines.

    Args:
        embedding_dim, num_speakers: as `ClassificationLoss`.
        scale: logits are `scale · cos θ`, > 0, without bias; `None`: they are `W e + b`.

    Raises:
        ValueError: a size or the scale is out of range.

    Source: for scaled cosines ("NormFace") Wang et al., "NormFace: L2 hypersphere embedding for face verification",
    ACM Multimedia 2017.

    >>> loss = Softmax(embedding_dim=4, num_speakers=3)
    >>> loss(torch.randn(2, 4), torch.tensor([0, 2])).cosines.shape
    torch.Size([2, 3])
    """

    def __init__(self, embedding_dim: int, num_speakers: int, scale: float | None = None) -> None:
        super().__init__(embedding_dim, num_speakers)
        if scale is not None and not scale > 0:
            raise ValueError(f"scale: is {scale}; a number > 0 is allowed, or none at all")
        self.scale = scale
        self.bias = nn.Parameter(torch.zeros(num_speakers)) if scale is None else None

    def logits(self, embeddings: Tensor, labels: Tensor, cosines: Tensor) -> Tensor:
        """As `ClassificationLoss.logits`."""
        if self.bias is None:
            return self.scale * cosines
        weight, bias = (at_least_float32(p).to(embeddings.dtype) for p in (self.weight, self.bias))
        return F.linear(embeddings, weight, bias)
