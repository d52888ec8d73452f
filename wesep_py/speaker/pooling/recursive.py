"""Recursive attentive pooling: one vector for every voice of a recording in which people overlap."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.speaker.pooling.base import Pooling, attention, masked_statistics, poolings, weighted_statistics


class PooledVoices(NamedTuple):
    """The voices of a recording, before the layers that make embeddings of them.

    Attributes:
        statistics: `[batch, voices, out_dim]`.
        existence_logits: `[batch, voices]`, above 0 where a voice is there; the first is taken for granted.
    """

    statistics: Tensor
    existence_logits: Tensor


@poolings.register("recursive")
class RecursiveAttentivePooling(Pooling):
    """Attentive statistics of one voice after the other; each sees which frames the ones before have taken.

    Horiguchi et al., "Recursive attentive pooling for extracting speaker embeddings from multi-speaker recordings",
    SLT 2024. With frames `h_t`, `e_t = [h_t; μ; σ]` and the weights `a^(r)` of the voices before,

        c_t^(n) = Σ_{r<n} a_t^(r)                                       coverage
        ã_t^(n) = W2 relu(W1 e_t + b1 + T Wc c_t^(n)) + b2              scores; softmax over time: a^(n)
        p_n = sigmoid(mean_t(w · ã_t^(n)) + b)                          existence

    The weights sum to one over the T frames, so that the coverage falls as T grows. It is counted in parts of the even
    share 1/T here: with `Wc = Wc' / T_train` that is the paper's `Wc' c · T_infer / T_train`, its correction for a
    recording of another length than the training crops, without having to know how long those were.

    As a pooling like others it gives the first voice's statistics.

    Args:
        dim: channels.
        bottleneck: units of the attention's hidden layer.
        max_voices: as many as are looked for, 2 or more: those that training's mixtures have at most.

    Raises:
        ValueError: `max_voices` is below 2.

    >>> pool = RecursiveAttentivePooling(8)
    >>> pool.voices(torch.randn(3, 8, 50), torch.ones(3, 50, dtype=torch.bool)).statistics.shape
    torch.Size([3, 2, 16])
    """

    def __init__(self, dim: int, bottleneck: int = 128, max_voices: int = 2) -> None:
        super().__init__()
        if max_voices < 2:
            raise ValueError(f"max_voices: is {max_voices}; 2 or more is allowed (for one voice, use 'astp')")
        self.out_dim, self.max_voices = 2 * dim, max_voices
        self.linear1 = nn.Conv1d(3 * dim, bottleneck, 1)
        self.coverage = nn.Conv1d(dim, bottleneck, 1, bias=False)
        self.linear2 = nn.Conv1d(bottleneck, dim, 1)
        self.existence = nn.Linear(dim, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, 2 · dim]`: the first voice's."""
        return self.voices(frames, mask, max_voices=1).statistics[:, 0]

    def voices(self, frames: Tensor, mask: Tensor, max_voices: int | None = None) -> PooledVoices:
        """So many voices, whether they exist or not.

        Args:
            frames: `[batch, dim, frames]`.
            mask: `[batch, frames]`, true for the valid ones.
            max_voices: 1 or more; as constructed, if `None`.
        """
        frames, valid = frames.float(), mask[:, None].float()
        length = valid.sum(dim=2, keepdim=True).clamp_min(1)
        mean, deviation = masked_statistics(frames, mask, unbiased=True)
        seen = self.linear1(torch.cat([frames, mean.expand_as(frames), deviation.expand_as(frames)], dim=1))
        statistics, logits, covered = [], [], None
        for _ in range(self.max_voices if max_voices is None else max_voices):
            hidden = seen if covered is None else seen + self.coverage(length * covered)
            scores = self.linear2(torch.relu(hidden)).float()
            weights = attention(scores, mask)
            covered = weights if covered is None else covered + weights
            statistics.append(weighted_statistics(frames, weights))
            mean_score = (scores * valid).sum(dim=2) / length.squeeze(2)
            logits.append(self.existence(mean_score).squeeze(1).float())
        return PooledVoices(torch.stack(statistics, dim=1), torch.stack(logits, dim=1))
