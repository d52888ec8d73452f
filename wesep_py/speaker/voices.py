"""All voices of a recording: what networks with a recursive pooling say beyond the one embedding."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from wesep_py.errors import InputError
from wesep_py.speaker.base import SpeakerNetwork, SpeakerOutput
from wesep_py.speaker.pooling import Pooling, RecursiveAttentivePooling


class Voices(NamedTuple):
    """The voices of recordings.

    Attributes:
        embeddings: `[batch, voices, embedding_dim]`.
        existence_logits: `[batch, voices]`, above 0 where there is such a voice. The first counts whatever its is.
        count: `[batch]`, how many there are, 1 or more.
    """

    embeddings: Tensor
    existence_logits: Tensor
    count: Tensor


class PoolingNetwork(SpeakerNetwork):
    """Base of the networks that pool frames and make an embedding of what was pooled.

    Attributes:
        pool: the pooling.
    """

    pool: Pooling

    @abstractmethod
    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, frames, bins]`, `[batch, frames]` → what is pooled, zero past the end; its mask."""

    @abstractmethod
    def embed(self, pooled: Tensor) -> Tensor:
        """What was pooled, `[items, pool.out_dim]` → embeddings `[items, embedding_dim]`, float32."""

    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        frames, mask = self.encode(features, mask)
        return SpeakerOutput(frames, mask, self.embed(self.pool(frames, mask)))

    def voices(
        self,
        frames: Tensor,
        mask: Tensor,
        max_voices: int | None = None,
        threshold: float = 0.5,
        counts: Tensor | None = None,
    ) -> Voices:
        """The voices in frames that `encode` (or `forward`) returned; the first is `SpeakerOutput.embedding`.

        Args:
            frames: `[batch, frame_dim, …]`.
            mask: `[batch, frames]`.
            max_voices: as many are looked for; the pooling's own number, if `None`.
            threshold: the first voice whose probability to exist is below ends the count, 0 to 1.
            counts: `[batch]`, where it is known how many there are: the embeddings of the others are zero, and batch
                normalisation does not see them.

        Raises:
            InputError: the pooling is another than `recursive`, or a number is out of range.
        """
        if not isinstance(self.pool, RecursiveAttentivePooling):
            raise InputError(
                "the speaker encoder hears one voice a recording; one with the pooling 'recursive' is needed"
            )
        if max_voices is not None and max_voices < 1:
            raise InputError(f"max_voices: is {max_voices}; 1 or more is allowed")
        if not 0 < threshold < 1:
            raise InputError(f"threshold: is {threshold}; a probability between 0 and 1 is allowed")
        pooled, logits = self.pool.voices(frames, mask, max_voices)
        if counts is None:
            return Voices(self.embed(pooled.flatten(0, 1)).unflatten(0, logits.shape), logits, count(logits, threshold))
        there = torch.arange(logits.shape[1], device=logits.device)[None] < counts[:, None]
        found = self.embed(pooled[there])
        embeddings = found.new_zeros(*logits.shape, self.embedding_dim)
        embeddings[there] = found
        return Voices(embeddings, logits, counts)


def count(existence_logits: Tensor, threshold: float = 0.5) -> Tensor:
    """How many voices there are, `[batch]`: up to the first that is not; the first of all is taken for granted.

    >>> count(torch.tensor([[-9.0, 3.0, -1.0, 5.0]])).tolist()
    [2]
    """
    there = existence_logits[:, 1:].sigmoid() >= threshold
    return 1 + there.long().cumprod(dim=1).sum(dim=1)
