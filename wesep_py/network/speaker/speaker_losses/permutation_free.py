"""Embeddings of several voices whose order is not known, and whether each voice is there."""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses.combined import CombinedSpeakerLoss
from wesep_py.network.speaker.speaker_losses.speaker_loss import ClassificationLoss, at_least_float32

ABSENT = -1


class PermutationFreeOutput(NamedTuple):
    """What the loss says of a batch.

    Attributes:
        loss: a scalar.
        labels: `[batch, voices]`, of the speaker that each voice was taken for; −1 where there is none.
        accuracy: a scalar: share of the voices there whose nearest training speaker is that one; without gradient.
        parts: the value of each part before its weight, among them `existence`.
    """

    loss: Tensor
    labels: Tensor
    accuracy: Tensor
    parts: dict[str, Tensor]


class PermutationFreeLoss(nn.Module):
    """A speaker loss on the voices present, in the order that costs least, and cross-entropy of existence.

    The order is the one in which the classification loss is least, over all assignments of a recording's K voices to
    its K speakers. With it the losses are those of single voices, averaged over all voices present. Existence is
    learned of the second voice up to the one after the last (the first is always there, and none is asked for after
    that): with one or two speakers, only whether the second exists.

    Horiguchi et al., "Recursive attentive pooling for extracting speaker embeddings from multi-speaker recordings",
    SLT 2024.

    Args:
        loss: a `ClassificationLoss`, or a combination of losses with one.
        existence_weight: of the cross-entropy, 0 or more.

    Raises:
        ValueError: there is no classification loss, or the weight is negative.

    >>> from wesep_py.network.speaker.speaker_losses import AAMSoftmax
    >>> loss = PermutationFreeLoss(AAMSoftmax(embedding_dim=4, num_speakers=3))
    >>> embeddings = loss.classifier.weight[[2, 0]][None]
    >>> loss(embeddings, torch.zeros(1, 2), torch.tensor([[0, 2]])).labels.tolist()
    [[2, 0]]
    """

    def __init__(self, loss: ClassificationLoss | CombinedSpeakerLoss, existence_weight: float = 0.1) -> None:
        super().__init__()
        classifier = loss.classifier if isinstance(loss, CombinedSpeakerLoss) else loss
        if not isinstance(classifier, ClassificationLoss):
            raise ValueError("loss: has none that classifies, which finds the order of voices; name one, 'aam' say")
        if not existence_weight >= 0:
            raise ValueError(f"existence_weight: is {existence_weight}; 0 or more is allowed")
        self.loss, self.existence_weight = loss, existence_weight

    @property
    def classifier(self) -> ClassificationLoss:
        """The loss that finds the order."""
        found = self.loss.classifier if isinstance(self.loss, CombinedSpeakerLoss) else self.loss
        assert found is not None
        return found

    def update(self, step: int) -> None:
        """As `SpeakerLoss.update`."""
        self.loss.update(step)

    def forward(self, embeddings: Tensor, existence_logits: Tensor, labels: Tensor) -> PermutationFreeOutput:
        """The loss of a batch.

        Args:
            embeddings: `[batch, voices, embedding_dim]`, in any order, those that are there first.
            existence_logits: `[batch, voices]`.
            labels: `[batch, voices]`, the speakers of each recording, in any order; −1 fills up the end.

        Raises:
            InputError: the shapes do not fit, a recording has no speaker, or one after a −1.
        """
        present = _checked(embeddings, existence_logits, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = at_least_float32(embeddings)
            ordered = self._ordered(embeddings.detach(), labels, present)
            known = ordered[present]
            found = self.loss(embeddings[present], known)
            existence = existence_loss(at_least_float32(existence_logits), present.sum(dim=1))
        assert found.cosines is not None, "the classification loss has them"
        accuracy = (found.cosines.argmax(1) == known).float().mean()
        parts = {**(found.parts or {"speakers": found.loss.detach()}), "existence": existence.detach()}
        return PermutationFreeOutput(found.loss + self.existence_weight * existence, ordered, accuracy, parts)

    @torch.no_grad()
    def _ordered(self, embeddings: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        """The labels in the order of the voices: that in which the classification loss is least."""
        batch, voices = labels.shape
        if voices == 1:
            return labels
        self.classifier.check_labels(labels.clamp_min(0))
        flat = embeddings.flatten(0, 1)
        cosines = self.classifier.cosines(flat)
        costs = embeddings.new_zeros(batch, voices, voices)
        for column in range(voices):
            told = labels[:, column].clamp_min(0).repeat_interleave(voices)
            costs[:, :, column] = self.classifier.item_losses(flat, told, cosines).view(batch, voices)
        # A voice that is there goes to a speaker, one that is not to a −1, whatever it costs.
        costs = costs.masked_fill(~present[:, None] & ~present[:, :, None], 0.0)
        costs = costs.masked_fill(present[:, None] != present[:, :, None], torch.inf)
        orders = torch.tensor(list(permutations(range(voices))), device=labels.device)
        totals = sum(costs[:, voice, orders[:, voice]] for voice in range(voices))
        assert isinstance(totals, Tensor)
        return labels.gather(1, orders[totals.argmin(dim=1)])


def existence_loss(logits: Tensor, counts: Tensor) -> Tensor:
    """Binary cross-entropy, over the second voice of each recording up to the one after its last; 0 if none is asked.

    Args:
        logits: `[batch, voices]`.
        counts: `[batch]`, how many voices there are, 1 or more.

    >>> existence_loss(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([1])).item()
    0.6931471824645996
    """
    position = torch.arange(logits.shape[1], device=logits.device)[None]
    asked = ((position >= 1) & (position <= counts[:, None])).to(logits.dtype)
    there = (position < counts[:, None]).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, there, reduction="none")
    return (losses * asked).sum() / asked.sum().clamp_min(1)


def _checked(embeddings: Tensor, existence_logits: Tensor, labels: Tensor) -> Tensor:
    """Which voices are there, `[batch, voices]`."""
    if embeddings.dim() != 3 or not embeddings.numel():
        raise InputError(f"embeddings have shape {list(embeddings.shape)}; [batch, voices, embedding_dim] is needed")
    shape = embeddings.shape[:2]
    if labels.shape != shape or existence_logits.shape != shape or labels.is_floating_point():
        raise InputError(
            f"labels have shape {list(labels.shape)} and type {labels.dtype}, existence_logits shape "
            f"{list(existence_logits.shape)}; {list(shape)}, one for each embedding, and whole numbers are needed"
        )
    present = labels != ABSENT
    if not present[:, 0].all() or (present[:, 1:] & ~present[:, :-1]).any():
        raise InputError("labels: a recording has no speaker, or one after a -1; speakers first, then -1, is needed")
    return present
