"""Losses that compare utterances of a batch with one another: prototypical, angular prototypical, GE2E, triplet.

An episode is a batch with several utterances from each of several speakers; `episodes` arranges a batch so.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses.speaker_loss import SpeakerLoss, SpeakerLossOutput, speaker_losses

MAX_BATCHES_WITHOUT_EPISODE = 20
"""Training ends after this number of batches in a row without an episode: it is no chance, and nothing is learned."""


class EpisodeLoss(SpeakerLoss):
    """Base of the losses on episodes: the same number of utterances, two or more, from each of two or more speakers.

    `episodes` finds the episode of a batch. A batch without one, which may be drawn by chance, has a loss of 0 with
    zero gradients; training ends after `MAX_BATCHES_WITHOUT_EPISODE` of them in a row.
    """

    def __init__(self) -> None:
        super().__init__()
        self._without_episode = 0

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """Return the loss of a batch in any order; see `SpeakerLoss.compute`.

        Raises:
            InputError: in training, at the last of `MAX_BATCHES_WITHOUT_EPISODE` batches in a row without an episode.
        """
        episode = episodes(embeddings, labels)
        if len(episode) >= 2:
            self._without_episode = 0
            return SpeakerLossOutput(self.episode_loss(episode))
        self._without_episode += self.training
        if self._without_episode >= MAX_BATCHES_WITHOUT_EPISODE:
            raise InputError(
                f"in {MAX_BATCHES_WITHOUT_EPISODE} batches in a row fewer than two speakers had two utterances "
                f"(in the last, {len(episode)} of {len(labels.unique())}), which this loss compares; set "
                "simulation.enrollment.count: 1 (to train an extractor, `utterances: both` of speaker_margin), which "
                "gives a second utterance of each speaker, or a larger train.batch_size"
            )
        return SpeakerLossOutput(0.0 * sum((part.sum() for part in self.parameters()), start=embeddings.sum()))

    @abstractmethod
    def episode_loss(self, embeddings: Tensor) -> Tensor:
        """Return the loss, a scalar, of `[speakers, utterances, embedding_dim]`."""


def episodes(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return a batch as an episode: `[batch, embedding_dim]` → `[speakers, utterances, embedding_dim]`.

    The speakers, by rising label, are those with two or more utterances. The first utterances of each are taken, as
    many as the speaker with the fewest has, in their order.

    >>> episodes(torch.arange(6.0)[:, None], torch.tensor([7, 3, 7, 3, 5, 7]))[..., 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    _, counts = labels.unique(return_counts=True)
    several = counts >= 2
    if not several.any():
        return embeddings.new_zeros(0, 2, embeddings.shape[1])
    starts = (counts.cumsum(0) - counts)[several]
    places = starts[:, None] + arange_on(int(counts[several].min()), starts)
    return embeddings[labels.argsort(stable=True)[places]]


def arange_on(count: int, like: Tensor) -> Tensor:
    """Return 0 … count − 1 on the device of `like`."""
    return torch.arange(count, device=like.device)


MIN_SCALE = 1e-6
"""Lower bound of the learned factor of a cosine: a negative one would push a speaker's utterances apart."""


@speaker_losses.register("prototypical")
class PrototypicalLoss(EpisodeLoss):
    """Cross-entropy of `−|q − c|²`, with q the last utterance of a speaker and c the mean of its others.

    Source: Snell et al., "Prototypical networks for few-shot learning", NeurIPS 2017, eqs. 1-2; in this form Chung et
    al., "In defence of metric learning for speaker recognition", Interspeech 2020.

    >>> loss = PrototypicalLoss()
    >>> embeddings = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
    >>> loss(embeddings, torch.tensor([0, 0, 1, 1])).loss.item()
    0.0
    """

    def episode_loss(self, embeddings: Tensor) -> Tensor:
        """Return the loss of an episode; see `EpisodeLoss.episode_loss`."""
        queries, prototypes = embeddings[:, -1], embeddings[:, :-1].mean(1)
        distances = (queries[:, None] - prototypes[None]).square().sum(2)
        return F.cross_entropy(-distances, arange_on(len(queries), queries))


@speaker_losses.register("angular_prototypical")
class AngularPrototypicalLoss(EpisodeLoss):
    """Cross-entropy of `w cos(q, c) + b`, with q and c as in `PrototypicalLoss`, and learned w > 0 and b.

    Args:
        initial_scale, initial_bias: w, above 0, and b at the start.

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
        """Return the loss of an episode; see `EpisodeLoss.episode_loss`."""
        queries, prototypes = F.normalize(embeddings[:, -1]), F.normalize(embeddings[:, :-1].mean(1))
        logits = self.scale.clamp(min=MIN_SCALE) * (queries @ prototypes.mT) + self.bias
        return F.cross_entropy(logits, arange_on(len(queries), queries))


@speaker_losses.register("ge2e")
class GE2ELoss(EpisodeLoss):
    """GE2E, the generalised end-to-end loss, on `S = w cos(e, c_k) + b` of each utterance e and each centroid c.

    The centroid of an utterance's own speaker is computed without that utterance.

    Args:
        kind: `softmax`: cross-entropy of S over the speakers; `contrast`: `1 − σ(S_own) + max_{k≠own} σ(S_k)`.
        initial_scale, initial_bias: w, above 0, and b at the start; both are learned.

    The paper's sum over the batch is a mean here.

    Raises:
        ValueError: the scale is not positive.

    Source: Wan et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018, eqs. 5-9.

    >>> loss = GE2ELoss()
    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    >>> loss(embeddings, torch.tensor([0, 0, 1, 1])).loss.item() < 1e-6
    True
    """

    def __init__(
        self,
        kind: Literal["softmax", "contrast"] = "softmax",
        initial_scale: float = 10.0,
        initial_bias: float = -5.0,
    ) -> None:
        super().__init__()
        if not initial_scale > 0:
            raise ValueError(f"initial_scale: is {initial_scale}; a number > 0 is allowed")
        self.kind = kind
        self.scale = nn.Parameter(torch.tensor(float(initial_scale)))
        self.bias = nn.Parameter(torch.tensor(float(initial_bias)))

    def episode_loss(self, embeddings: Tensor) -> Tensor:
        """Return the loss of an episode; see `EpisodeLoss.episode_loss`."""
        unit = F.normalize(embeddings, dim=2)
        num_speakers, num_utterances, _ = unit.shape
        total = unit.sum(1)
        to_all = torch.einsum("sud,kd->suk", unit, F.normalize(total))
        to_own = (unit * F.normalize(total[:, None] - unit, dim=2)).sum(2)
        own = torch.eye(num_speakers, dtype=torch.bool, device=unit.device)[:, None]
        cosines = torch.where(own, to_own[:, :, None], to_all)
        similarity = self.scale.clamp(min=MIN_SCALE) * cosines + self.bias
        if self.kind == "softmax":
            labels = arange_on(num_speakers, unit).repeat_interleave(num_utterances)
            return F.cross_entropy(similarity.flatten(0, 1), labels)
        probability = torch.sigmoid(similarity)
        nearest_other = probability.masked_fill(own, 0.0).amax(2)
        return (1.0 - probability.diagonal(dim1=0, dim2=2).mT + nearest_other).mean()


BEYOND_ALL_DISTANCES = 5.0
"""More than the squared distance of two vectors of length one, which is at most 4."""


@speaker_losses.register("triplet")
class TripletLoss(SpeakerLoss):
    """`max(0, d(anchor, positive) − d(anchor, negative) + margin)`, with d the squared distance of length-one vectors.

    Args:
        margin: 0 to 4.
        mining: `hard`: each anchor with its furthest positive and its nearest negative in the batch; `semi_hard`: each
            pair of anchor and positive with the nearest negative that is further than the positive, or, if there is
            none, with the furthest negative.

    The mean is over the anchors (`hard`) or the pairs (`semi_hard`) that have a positive and a negative in the batch;
    without any, the loss is 0 with zero gradients.

    Raises:
        ValueError: the margin is out of range.

    Source: Schroff et al., "FaceNet: a unified embedding for face recognition and clustering", CVPR 2015, eq. 3 and
    section 3.2 (semi-hard); Hermans et al., "In defense of the triplet loss for person re-identification", 2017, eq. 5
    (hard).

    >>> loss = TripletLoss(margin=0.5)
    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> loss(embeddings, torch.tensor([0, 0, 1])).loss.item()
    0.0
    """

    def __init__(self, margin: float = 0.2, mining: Literal["hard", "semi_hard"] = "semi_hard") -> None:
        super().__init__()
        if not 0 <= margin <= 4:
            raise ValueError(f"margin: is {margin}; 0 to 4 is allowed (a squared distance)")
        self.margin, self.mining = margin, mining

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """Return the loss; see `SpeakerLoss.compute`."""
        unit = F.normalize(embeddings)
        distances = 2.0 - 2.0 * unit @ unit.mT
        same = labels[:, None] == labels
        positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        mine = self._hard if self.mining == "hard" else self._semi_hard
        to_positive, to_negative, counts = mine(distances, positive, ~same)
        losses = F.relu(to_positive - to_negative + self.margin) * counts
        return SpeakerLossOutput(losses.sum() / counts.sum().clamp(min=1))

    @staticmethod
    def _hard(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        furthest = distances.masked_fill(~positive, -BEYOND_ALL_DISTANCES).amax(1)
        nearest = distances.masked_fill(~negative, BEYOND_ALL_DISTANCES).amin(1)
        return furthest, nearest, positive.any(1) & negative.any(1)

    @staticmethod
    def _semi_hard(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # [anchor, positive, negative]
        further = negative[:, None] & (distances[:, None] > distances[:, :, None])
        nearest_further = distances[:, None].masked_fill(~further, BEYOND_ALL_DISTANCES).amin(2)
        furthest = distances.masked_fill(~negative, -BEYOND_ALL_DISTANCES).amax(1, keepdim=True)
        to_negative = torch.where(further.any(2), nearest_further, furthest)
        return distances, to_negative, positive & negative.any(1, keepdim=True)
