"""Prototypical and angular prototypical loss: an utterance finds the mean of its speaker's others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.speaker.losses.base import speaker_losses
from wesep_py.speaker.losses.episodes import EpisodeLoss, numbered

LEAST_SCALE = 1e-6
"""The learned factor of a cosine stays above this: a negative one would push a speaker's utterances apart."""


@speaker_losses.register("prototypical")
class PrototypicalLoss(EpisodeLoss):
    """Cross-entropy of `−|q − c|²`: q, a speaker's last utterance; c, the mean of its others.

    Source: Snell et al., "Prototypical networks for few-shot learning", NeurIPS 2017, eqs. 1-2; in this form Chung et
    al., "In defence of metric learning for speaker recognition", Interspeech 2020.

    >>> loss = PrototypicalLoss()
    >>> embeddings = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
    >>> loss(embeddings, torch.tensor([0, 0, 1, 1])).loss.item()
    0.0
    """

    def episode_loss(self, embeddings: Tensor) -> Tensor:
        """As `EpisodeLoss.episode_loss`."""
        queries, prototypes = embeddings[:, -1], embeddings[:, :-1].mean(1)
        distances = (queries[:, None] - prototypes[None]).square().sum(2)
        return F.cross_entropy(-distances, numbered(len(queries), queries))


@speaker_losses.register("angular_prototypical")
class AngularPrototypicalLoss(EpisodeLoss):
    """Cross-entropy of `w cos(q, c) + b`, q and c as in `PrototypicalLoss`, w > 0 and b learned.

    Args:
        initial_scale, initial_bias: w, > 0, and b at the start.

    Raises:
        ValueError: the scale is not positive.

    Source: Chung et al., "In defence of metric learning for speaker recognition", Interspeech 2020.

    >>> sorted(name for name, _ in AngularPrototypicalLoss().named_parameters())
    ['bias', 'scale']
    """

    def __init__(self, initial_scale: float = 10.0, initial_bias: float = -5.0) -> None:
        super().__init__()
        if not initial_scale > 0:
            raise ValueError(f"initial_scale: is {initial_scale}; a number > 0 is allowed")
        self.scale = nn.Parameter(torch.tensor(float(initial_scale)))
        self.bias = nn.Parameter(torch.tensor(float(initial_bias)))

    def episode_loss(self, embeddings: Tensor) -> Tensor:
        """As `EpisodeLoss.episode_loss`."""
        queries, prototypes = F.normalize(embeddings[:, -1]), F.normalize(embeddings[:, :-1].mean(1))
        logits = self.scale.clamp(min=LEAST_SCALE) * (queries @ prototypes.mT) + self.bias
        return F.cross_entropy(logits, numbered(len(queries), queries))
