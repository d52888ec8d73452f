"""Four ways to fuse an embedding e into features h, along any axis of h.

    concat    W [e; h] + b
    add       h + W e + b
    multiply  h ⊙ (W e + b)
    film      (1 + W_γ e + b_γ) ⊙ h + W_β e + b_β, both starting at zero (Perez et al., AAAI 2018)

The embedding is one vector a recording, `[batch, dim]`, or has the features' own number of axes, with its dimension
on the fused axis and sizes of one (or the same) elsewhere: one that varies over time, say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.common.registry import Registry

PointSelection = Literal["all", "first"] | list[int]


class Fusion(nn.Module, ABC):
    """Base of the operators: `fuse(h, e)` with the fused axis last; `forward` moves it there and back.

    Args:
        embedding_dim: size of e.
        feature_dim: size of h along `axis`.
        axis: the axis of h (batch included) along which e is fused; negative ones count from the end.
    """

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Features of the same shape, steered."""
        h = features.movedim(self.axis, -1)
        if embedding.dim() == 2 and features.dim() > 2:
            e = embedding.view(len(embedding), *(1,) * (features.dim() - 2), -1)
        else:
            e = embedding.movedim(self.axis, -1)
        return self.fuse(h, e).movedim(-1, self.axis)

    @abstractmethod
    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        """`[…, feature_dim]` and `[…, embedding_dim]`, broadcastable → `[…, feature_dim]`."""


fusions: Registry[Fusion] = Registry("fusion", Fusion)


@fusions.register("concat")
class Concat(Fusion):
    """`W [e; h] + b`."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        self.embedding_dim = embedding_dim
        self.linear = nn.Linear(embedding_dim + feature_dim, feature_dim)

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        # The product over [e; h] is the sum of two, so e need not be repeated for every element of h.
        of_e, of_h = self.linear.weight.split([self.embedding_dim, h.shape[-1]], dim=1)
        return nn.functional.linear(h, of_h) + nn.functional.linear(e, of_e, self.linear.bias)


@fusions.register("add")
class Add(Fusion):
    """`h + W e + b`."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        self.linear = nn.Linear(embedding_dim, feature_dim)

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        return h + self.linear(e)


@fusions.register("multiply")
class Multiply(Fusion):
    """`h ⊙ (W e + b)`."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        self.linear = nn.Linear(embedding_dim, feature_dim)

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        return h * self.linear(e)


@fusions.register("film")
class FiLM(Fusion):
    """`(1 + W_γ e + b_γ) ⊙ h + W_β e + b_β`."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        self.scale = nn.Linear(embedding_dim, feature_dim)
        self.shift = nn.Linear(embedding_dim, feature_dim)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        return (1 + self.scale(e)) * h + self.shift(e)


class FusionPoints(nn.Module):
    """One operator at chosen points of a backbone, with a layer for each or one for all.

    Args:
        operator: a name in `fusions`.
        embedding_dim, feature_dim, axis: as `Fusion`.
        num_points: how many points the backbone has.
        points: `first`, `all`, or the indices.
        shared: one layer for all points.

    Raises:
        ValueError: an index that the backbone does not have.
    """

    def __init__(
        self,
        operator: str,
        embedding_dim: int,
        feature_dim: int,
        axis: int,
        num_points: int,
        points: PointSelection = "all",
        shared: bool = False,
    ) -> None:
        super().__init__()
        chosen = resolve_points(points, num_points)
        make = fusions.get(operator, "fusion")
        layers = [make(embedding_dim, feature_dim, axis) for _ in range(1 if shared else len(chosen))]
        self.layers = nn.ModuleList(layers)
        self._layer_at = {point: 0 if shared else i for i, point in enumerate(chosen)}

    def at(self, point: int) -> bool:
        """Whether `point` is one of the chosen."""
        return point in self._layer_at

    def forward(self, point: int, features: Tensor, embedding: Tensor) -> Tensor:
        """The features, steered if `point` is one of the chosen."""
        if not self.at(point):
            return features
        return self.layers[self._layer_at[point]](features, embedding)


def resolve_points(points: PointSelection, num_points: int) -> Sequence[int]:
    """The indices that `first`, `all` or a list of indices stand for."""
    if points == "first":
        return [0]
    if points == "all":
        return range(num_points)
    wrong = [point for point in points if not 0 <= point < num_points]
    if wrong or not points:
        raise ValueError(f"points: is {points}; indices from 0 to {num_points - 1}, 'first' or 'all' are allowed")
    return sorted(set(points))


def mean_embedding(embeddings: Sequence[Tensor]) -> Tensor:
    """Mean of several embeddings of one voice, each brought to the mean length of all first."""
    stacked = torch.stack(list(embeddings))
    norms = stacked.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    return (stacked / norms).mean(dim=0) * norms.mean(dim=0)
