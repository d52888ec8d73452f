"""Poolings over time: from the frames of a recording to one vector, or one vector per voice.

| name | pooling |
| --- | --- |
| `tap`, `tsdp`, `tstp` | mean, standard deviation, or both |
| `last` | the last frame, for recurrent networks |
| `astp`, `asp` | mean and standard deviation weighted by an attention |
| `mhastp`, `mqmhastp` | the same with several heads, and several queries |
| `recursive` | the same for one voice after the other |
| `netvlad`, `ghostvlad` | residuals to learned centres |

All take the mask of valid frames, and compute in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.common.registry import Registry

VARIANCE_FLOOR = 1e-7


class Pooling(nn.Module, ABC):
    """Base of the poolings.

    Attributes:
        out_dim: size of the vector.
    """

    out_dim: int

    @abstractmethod
    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return one vector per recording, `[batch, out_dim]`.

        Args:
            frames: `[batch, dim, frames]`.
            mask: `[batch, frames]`, True for valid frames.
        """


poolings: Registry[Pooling] = Registry("pooling", Pooling)


def build_pooling(pooling: str | Mapping[str, Any], dim: int, where: str = "pooling") -> Pooling:
    """Build a pooling from its name, or from `{name: …, …}` with arguments.

    Raises:
        ConfigError: no such pooling, or no such argument.
    """
    return poolings.build({"name": pooling} if isinstance(pooling, str) else pooling, where, dim=dim)


def masked_statistics(frames: Tensor, mask: Tensor, unbiased: bool = False) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over the valid frames, each `[batch, dim, 1]`, of `[batch, dim, frames]`."""
    valid = mask[:, None].to(frames.dtype)
    count = valid.sum(dim=2, keepdim=True).clamp_min(1)
    mean = (frames * valid).sum(dim=2, keepdim=True) / count
    squares = ((frames - mean).square() * valid).sum(dim=2, keepdim=True)
    variance = squares / (count - 1).clamp_min(1) if unbiased else squares / count
    return mean, (variance + VARIANCE_FLOOR).sqrt()


def attentive_statistics(frames: Tensor, scores: Tensor, mask: Tensor, floor: float = VARIANCE_FLOOR) -> Tensor:
    """Return mean and standard deviation, weighted by the softmax of scores over the valid frames.

    Args:
        frames: `[batch, dim, frames]`.
        scores: `[batch, dim, frames]`, or `[batch, 1, frames]` for one weight per frame.
        mask: `[batch, frames]`.
        floor: smallest variance.

    Returns:
        `[batch, 2 · dim]`, the means first.
    """
    return weighted_statistics(frames, attention(scores, mask), floor)


def attention(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax of scores `[batch, dim, frames]` over the valid frames, in float32."""
    return scores.float().masked_fill(~mask[:, None], -torch.inf).softmax(dim=2)


def weighted_statistics(frames: Tensor, weights: Tensor, floor: float = VARIANCE_FLOOR) -> Tensor:
    """Return mean and standard deviation, `[batch, 2 · dim]`, under weights that sum to one over time."""
    mean = (weights * frames).sum(dim=2, keepdim=True)
    variance = (weights * (frames - mean).square()).sum(dim=2)
    return torch.cat([mean.squeeze(2), variance.clamp_min(floor).sqrt()], dim=1)


# All frames with the same weight.


@poolings.register("tap")
class AveragePooling(Pooling):
    """Mean over time (TAP).

    Args:
        dim: number of channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, dim]`."""
        return masked_statistics(frames.float(), mask)[0].squeeze(2)


@poolings.register("last")
class LastFramePooling(Pooling):
    """The last valid frame, for networks whose frames sum up what came before them.

    Args:
        dim: number of channels.

    >>> LastFramePooling(1)(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[True, True, False]])).item()
    2.0
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, dim]`."""
        last = mask.sum(dim=1).clamp_min(1) - 1
        return frames.float().gather(2, last[:, None, None].expand(-1, frames.shape[1], 1)).squeeze(2)


@poolings.register("tsdp")
class DeviationPooling(Pooling):
    """Standard deviation over time, unbiased (TSDP).

    Args:
        dim: number of channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, dim]`."""
        return masked_statistics(frames.float(), mask, unbiased=True)[1].squeeze(2)


@poolings.register("tstp")
class StatisticsPooling(Pooling):
    """Mean and standard deviation over time, unbiased (TSTP): Snyder et al., Interspeech 2017.

    Args:
        dim: number of channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = 2 * dim

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, 2 · dim]`, the means first."""
        return torch.cat(masked_statistics(frames.float(), mask, unbiased=True), dim=1).squeeze(2)


# Weights from an attention, for each frame and channel.

ASP_VARIANCE_FLOOR = 1e-5


@poolings.register("astp")
class AttentiveStatisticsPooling(Pooling):
    """Weighted mean and standard deviation over time, with a weight for each frame and channel (ASTP).

    Okabe et al., Interspeech 2018; channel-dependent, with the whole recording's mean and standard deviation as
    context: Desplanques et al., Interspeech 2020, eq. 1 to 5.

    Args:
        dim: number of channels.
        bottleneck: number of units of the attention's hidden layer.
        global_context: the attention also takes the recording's mean and standard deviation.

    >>> AttentiveStatisticsPooling(8)(torch.randn(2, 8, 50), torch.ones(2, 50, dtype=torch.bool)).shape
    torch.Size([2, 16])
    """

    def __init__(self, dim: int, bottleneck: int = 128, global_context: bool = False) -> None:
        super().__init__()
        self.out_dim = 2 * dim
        self.global_context = global_context
        self.linear1 = nn.Conv1d(dim * (3 if global_context else 1), bottleneck, 1)
        self.linear2 = nn.Conv1d(bottleneck, dim, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, 2 · dim]`, the means first."""
        frames = frames.float()
        attended = frames
        if self.global_context:
            mean, deviation = masked_statistics(frames, mask, unbiased=True)
            attended = torch.cat([frames, mean.expand_as(frames), deviation.expand_as(frames)], dim=1)
        return attentive_statistics(frames, self.linear2(torch.tanh(self.linear1(attended))), mask)


@poolings.register("asp")
class NormalisedAttentivePooling(Pooling):
    """Attentive statistics with ReLU and batch normalisation in the attention, as in SimAM-ResNet (ASP).

    Qin et al., "Simple attention module based speaker verification with iterative noisy label detection",
    ICASSP 2022.

    Args:
        dim: number of channels.
        bottleneck: number of units of the attention's hidden layer.
    """

    def __init__(self, dim: int, bottleneck: int = 128) -> None:
        super().__init__()
        self.out_dim = 2 * dim
        self.linear1 = nn.Conv1d(dim, bottleneck, 1)
        self.norm = nn.BatchNorm1d(bottleneck)
        self.linear2 = nn.Conv1d(bottleneck, dim, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, 2 · dim]`, the means first."""
        frames = frames.float()
        scores = self.linear2(self.norm(torch.relu(self.linear1(frames))))
        return attentive_statistics(frames, scores, mask, floor=ASP_VARIANCE_FLOOR)


# Several heads, each on a part of the channels, and several queries.


@poolings.register("mhastp")
class MultiHeadAttentivePooling(Pooling):
    """Attentive statistics with several heads, each of which weights the frames of its part of the channels (MHASTP).

    India et al., "Self multi-head attention for speaker recognition", Interspeech 2019, with standard deviations.

    Args:
        dim: number of channels; a multiple of `num_heads`.
        num_heads: number of parts.
        num_layers: number of linear layers of each head, with tanh between them.
        bottleneck: number of units of their hidden layers.
        per_channel: a weight for each frame and channel, instead of one for each frame.

    Raises:
        ValueError: `dim` is not a multiple of `num_heads`, or there is no head or layer.

    >>> MultiHeadAttentivePooling(8)(torch.randn(2, 8, 50), torch.ones(2, 50, dtype=torch.bool)).shape
    torch.Size([2, 16])
    """

    def __init__(
        self, dim: int, num_heads: int = 2, num_layers: int = 2, bottleneck: int = 64, per_channel: bool = False
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads: is {num_heads}; a number that divides the {dim} channels is needed")
        if num_layers < 1:
            raise ValueError(f"num_layers: is {num_layers}; 1 or more is needed")
        self.out_dim = 2 * dim
        width = dim // num_heads
        sizes = [width, *[bottleneck] * (num_layers - 1), width if per_channel else 1]
        self.heads = nn.ModuleList(_attention(sizes) for _ in range(num_heads))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, 2 · dim]`: mean and deviation of each head's channels in turn."""
        parts = frames.float().chunk(len(self.heads), dim=1)
        pooled = [attentive_statistics(part, head(part), mask) for part, head in zip(parts, self.heads, strict=True)]
        return torch.cat(pooled, dim=1)


@poolings.register("mqmhastp")
class MultiQueryAttentivePooling(Pooling):
    """Several multi-head attentive poolings in parallel (MQMHASTP).

    Zhao et al., "Multi-query multi-head attention pooling and inter-topK penalty for speaker verification",
    ICASSP 2022.

    Args:
        dim: number of channels; a multiple of `num_heads`.
        num_queries: number of multi-head poolings.
        num_heads, num_layers, bottleneck, per_channel: of each; see `MultiHeadAttentivePooling`.

    Raises:
        ValueError: there is no query, or as for `MultiHeadAttentivePooling`.
    """

    def __init__(
        self,
        dim: int,
        num_queries: int = 2,
        num_heads: int = 8,
        num_layers: int = 2,
        bottleneck: int = 64,
        per_channel: bool = True,
    ) -> None:
        super().__init__()
        if num_queries < 1:
            raise ValueError(f"num_queries: is {num_queries}; 1 or more is needed")
        self.out_dim = 2 * dim * num_queries
        self.queries = nn.ModuleList(
            MultiHeadAttentivePooling(dim, num_heads, num_layers, bottleneck, per_channel) for _ in range(num_queries)
        )

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, num_queries · 2 · dim]`."""
        return torch.cat([query(frames, mask) for query in self.queries], dim=1)


def _attention(sizes: list[int]) -> nn.Sequential:
    """Return linear layers of these sizes over the channels, with tanh between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Conv1d(before, after, 1), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


# One vector per voice, for recordings in which several people talk.


class PooledSpeakers(NamedTuple):
    """Pooled vectors of all voices of recordings.

    Attributes:
        statistics: `[batch, voices, out_dim]`.
        existence_logits: `[batch, voices]`, above 0 where that voice exists; the first one always counts.
    """

    statistics: Tensor
    existence_logits: Tensor


@poolings.register("recursive")
class RecursiveAttentivePooling(Pooling):
    """Attentive statistics of one voice after the other; each knows which frames the earlier ones have covered.

    Horiguchi et al., "Recursive attentive pooling for extracting speaker embeddings from multi-speaker recordings",
    SLT 2024. With frames `h_t`, `e_t = [h_t; μ; σ]` and the weights `a^(r)` of the earlier voices,

        c_t^(n) = Σ_{r<n} a_t^(r)                                       coverage
        ã_t^(n) = W2 relu(W1 e_t + b1 + T Wc c_t^(n)) + b2              scores; softmax over time: a^(n)
        p_n = sigmoid(mean_t(w · ã_t^(n)) + b)                          existence

    The weights sum to one over the T frames, so the coverage falls as T grows. Here it is in units of the even share
    1/T: with `Wc = Wc' / T_train` that is the paper's `Wc' c · T_infer / T_train`, its length correction for
    recordings longer than the training crops, and the crops' length need not be known.

    `forward`, as for other poolings, returns the statistics of the first voice.

    Args:
        dim: number of channels.
        bottleneck: number of units of the attention's hidden layer.
        max_voices: number of voices to look for, 2 or more: the most that the training mixtures have.

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
        """Return `[batch, 2 · dim]` of the first voice."""
        return self.voices(frames, mask, max_voices=1).statistics[:, 0]

    def voices(self, frames: Tensor, mask: Tensor, max_voices: int | None = None) -> PooledSpeakers:
        """Return the statistics of `max_voices` voices, whether they exist or not.

        Args:
            frames: `[batch, dim, frames]`.
            mask: `[batch, frames]`, True for the valid ones.
            max_voices: 1 or more; `None`: as constructed.
        """
        frames, valid = frames.float(), mask[:, None].float()
        length = valid.sum(dim=2, keepdim=True).clamp_min(1)
        mean, deviation = masked_statistics(frames, mask, unbiased=True)
        context = self.linear1(torch.cat([frames, mean.expand_as(frames), deviation.expand_as(frames)], dim=1))
        statistics, logits, covered = [], [], None
        for _ in range(self.max_voices if max_voices is None else max_voices):
            hidden = context if covered is None else context + self.coverage(length * covered)
            scores = self.linear2(torch.relu(hidden)).float()
            weights = attention(scores, mask)
            covered = weights if covered is None else covered + weights
            statistics.append(weighted_statistics(frames, weights))
            mean_score = (scores * valid).sum(dim=2) / length.squeeze(2)
            logits.append(self.existence(mean_score).squeeze(1).float())
        return PooledSpeakers(torch.stack(statistics, dim=1), torch.stack(logits, dim=1))


# Residuals to learned centres.


@poolings.register("ghostvlad")
class GhostVLAD(Pooling):
    """Sums over time of the residuals to learned centres, weighted by the assignment of each frame to them.

    With frames `x_t`, centres `c_k` and assignments `a_tk = softmax_k(w_k · x_t + b_k)` over centres and ghosts,
    `V_k = Σ_t a_tk (x_t − c_k)`, each of length one. Ghosts take frames that belong to no centre, and have no residual.
    Xie et al., "Utterance-level aggregation for speaker recognition in the wild", ICASSP 2019, eq. 1.

    Args:
        dim: number of channels.
        num_clusters: number of centres.
        num_ghosts: number of ghosts.

    Raises:
        ValueError: `num_clusters` is below 1, or `num_ghosts` below 0.

    >>> GhostVLAD(16)(torch.randn(2, 16, 50), torch.ones(2, 50, dtype=torch.bool)).shape
    torch.Size([2, 128])
    """

    def __init__(self, dim: int, num_clusters: int = 8, num_ghosts: int = 2) -> None:
        super().__init__()
        if num_clusters < 1:
            raise ValueError(f"num_clusters: is {num_clusters}; 1 or more is needed")
        if num_ghosts < 0:
            raise ValueError(f"num_ghosts: is {num_ghosts}; 0 or more is needed")
        self.out_dim = dim * num_clusters
        self.assign = nn.Conv1d(dim, num_clusters + num_ghosts, 1)
        self.centres = nn.Parameter(nn.init.orthogonal_(torch.empty(num_clusters, dim)))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, num_clusters · dim]`, the residuals to each centre in turn."""
        frames = frames.float()
        assignments = self.assign(frames).float().softmax(dim=1)[:, : len(self.centres)] * mask[:, None]
        with torch.autocast(frames.device.type, enabled=False):
            summed = assignments @ (frames * mask[:, None]).transpose(1, 2)
        residuals = summed - assignments.sum(dim=2, keepdim=True) * self.centres
        return nn.functional.normalize(residuals, dim=2).flatten(1)


@poolings.register("netvlad")
class NetVLAD(GhostVLAD):
    """`GhostVLAD` without ghosts: Arandjelović et al., CVPR 2016; for speakers, Xie et al., ICASSP 2019.

    Args:
        dim: number of channels.
        num_clusters: number of centres.

    Raises:
        ValueError: `num_clusters` is below 1.
    """

    def __init__(self, dim: int, num_clusters: int = 8) -> None:
        super().__init__(dim, num_clusters, num_ghosts=0)
