"""A loss on the embeddings of several voices in unknown order, and on whether each voice exists."""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import InputError
from wesep_py.network.speaker.speaker_losses.combined import CombinedSpeakerLoss
from wesep_py.network.speaker.speaker_losses.speaker_loss import ClassificationLoss, at_least_float32

NO_SPEAKER = -1
"""Label of a voice that does not exist."""


class PermutationFreeOutput(NamedTuple):
    """The value of the loss on a batch.

    Attributes:
        loss: a scalar.
        labels: `[batch, voices]`, the speaker that each voice was assigned to; −1 for none.
        accuracy: a scalar: share of the existing voices whose nearest training speaker is the assigned one; detached.
        parts: the value of each part before its weight; `existence` is one of them.
    """

    loss: Tensor
    labels: Tensor
    accuracy: Tensor
    parts: dict[str, Tensor]


class PermutationFreeLoss(nn.Module):
    """A speaker loss on the existing voices in the best order, and the cross-entropy of existence.

    The order is the assignment of a recording's K voices to its K speakers with the smallest classification loss. With
    it the losses are those of single voices, averaged over all existing voices. Existence is learned for the second
    voice up to the one after the last (the first always exists, and none is looked for after that): with one or two
    speakers, only whether the second exists.

    Horiguchi et al., "Recursive attentive pooling for extracting speaker embeddings from multi-speaker recordings",
    SLT 2024.

    Args:
        loss: a `ClassificationLoss`, or a combination of losses with one.
        existence_weight: weight of the cross-entropy, 0 or more.

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
            raise ValueError(
                "loss: has no classification loss, which finds the order of voices; add one, for example 'aam'"
            )
        if not existence_weight >= 0:
            raise ValueError(f"existence_weight: is {existence_weight}; 0 or more is allowed")
        self.loss, self.existence_weight = loss, existence_weight

    @property
    def classifier(self) -> ClassificationLoss:
        """The loss that finds the order."""
        loss = self.loss.classifier if isinstance(self.loss, CombinedSpeakerLoss) else self.loss
        assert loss is not None
        return loss

    def update(self, step: int) -> None:
        """Call `SpeakerLoss.update` of the loss."""
        self.loss.update(step)

    def forward(self, embeddings: Tensor, existence_logits: Tensor, labels: Tensor) -> PermutationFreeOutput:
        """Return the loss of a batch.

        Args:
            embeddings: `[batch, voices, embedding_dim]`, in any order, existing voices first.
            existence_logits: `[batch, voices]`.
            labels: `[batch, voices]`, the speakers of each recording, in any order; −1 after the last one.

        Raises:
            InputError: the shapes do not fit, or a recording has no speaker, or one after a −1.
        """
        exists = _existing_voices(embeddings, existence_logits, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = at_least_float32(embeddings)
            ordered = self._ordered(embeddings.detach(), labels, exists)
            speakers = ordered[exists]
            output = self.loss(embeddings[exists], speakers)
            existence = existence_loss(at_least_float32(existence_logits), exists.sum(dim=1))
        assert output.cosines is not None, "the classification loss has them"
        accuracy = (output.cosines.argmax(1) == speakers).float().mean()
        parts = {**(output.parts or {"speakers": output.loss.detach()}), "existence": existence.detach()}
        return PermutationFreeOutput(output.loss + self.existence_weight * existence, ordered, accuracy, parts)

    @torch.no_grad()
    def _ordered(self, embeddings: Tensor, labels: Tensor, exists: Tensor) -> Tensor:
        """Return the labels in the order of the voices with the smallest classification loss."""
        batch, voices = labels.shape
        if voices == 1:
            return labels
        self.classifier.check_labels(labels.clamp_min(0))
        flat = embeddings.flatten(0, 1)
        cosines = self.classifier.cosines(flat)
        costs = embeddings.new_zeros(batch, voices, voices)
        for column in range(voices):
            speakers = labels[:, column].clamp_min(0).repeat_interleave(voices)
            costs[:, :, column] = self.classifier.item_losses(flat, speakers, cosines).view(batch, voices)
        # costs: [recording, voice, speaker]. Existing voices go to speakers, the others to labels −1: a pair of the
        # latter costs nothing, a mixed pair is impossible.
        costs = costs.masked_fill(~exists[:, None] & ~exists[:, :, None], 0.0)
        costs = costs.masked_fill(exists[:, None] != exists[:, :, None], torch.inf)
        orders = torch.tensor(list(permutations(range(voices))), device=labels.device)
        totals = sum(costs[:, voice, orders[:, voice]] for voice in range(voices))
        assert isinstance(totals, Tensor)
        return labels.gather(1, orders[totals.argmin(dim=1)])


def existence_loss(logits: Tensor, counts: Tensor) -> Tensor:
    """Return the binary cross-entropy over the second voice of each recording up to the one after its last; 0 if none.

    Args:
        logits: `[batch, voices]`.
        counts: `[batch]`, number of existing voices, 1 or more.

    >>> existence_loss(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([1])).item()
    0.6931471824645996
    """
    position = torch.arange(logits.shape[1], device=logits.device)[None]
    counted = ((position >= 1) & (position <= counts[:, None])).to(logits.dtype)
    exists = (position < counts[:, None]).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, exists, reduction="none")
    return (losses * counted).sum() / counted.sum().clamp_min(1)


def _existing_voices(embeddings: Tensor, existence_logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mask of existing voices, `[batch, voices]`, after a check of shapes and labels."""
    if embeddings.dim() != 3 or not embeddings.numel():
        raise InputError(f"embeddings have shape {list(embeddings.shape)}; [batch, voices, embedding_dim] is needed")
    shape = embeddings.shape[:2]
    if labels.shape != shape or existence_logits.shape != shape or labels.is_floating_point():
        raise InputError(
            f"labels have shape {list(labels.shape)} and type {labels.dtype}, existence_logits shape "
            f"{list(existence_logits.shape)}; {list(shape)}, one for each embedding, and whole numbers are needed"
        )
    exists = labels != NO_SPEAKER
    if not exists[:, 0].all() or (exists[:, 1:] & ~exists[:, :-1]).any():
        raise InputError("labels: a recording has no speaker, or one after a -1; speakers first, then -1, are needed")
    return exists
