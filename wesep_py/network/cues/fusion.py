"""Fusion operators: ways to fuse an embedding e into features h, along any axis of h.

    concat    W [e; h] + b
    add       h + W e + b
    multiply  h ⊙ (W e + b)
    film      (1 + W_γ e + b_γ) ⊙ h + W_β e + b_β, both starting at zero (Perez et al., AAAI 2018)
    scale     h ⊙ e: without a layer, so e has the size of h (TD-SpeakerBeam: Delcroix et al., ICASSP 2020)
    affine    e_γ ⊙ h + e_β, where e = [e_γ; e_β] has twice the size of h

The embedding is one vector per recording, `[batch, dim]`, or has as many axes as the features: its own size on the
fused axis, and size 1 or the features' size on the others. So it may vary over time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.common.registry import Registry

PointSelection = Literal["all", "first"] | list[int]
"""Fusion points of a backbone at which a cue acts: the first, all, or a list of indices."""


class Fusion(nn.Module, ABC):
    """Base class of the operators. `forward` moves the fused axis to the end and back; `fuse` does the rest.

    Args:
        embedding_dim: size of e.
        feature_dim: size of h along `axis`.
        axis: the axis of h (batch included) along which e is fused; negative ones count from the end.
    """

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Fuse an embedding into features, and return features of the same shape."""
        axis, last = self.axis % features.dim(), features.dim() - 1  # an exported graph has no negative axes
        h = features.movedim(axis, last)
        if embedding.dim() == 2 and features.dim() > 2:
            e = embedding.view(len(embedding), *(1,) * (features.dim() - 2), -1)
        else:
            e = embedding.movedim(axis, last)
        return self.fuse(h, e).movedim(last, axis)

    @abstractmethod
    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        """Fuse e `[…, embedding_dim]` into h `[…, feature_dim]`; the other axes broadcast."""


fusions: Registry[Fusion] = Registry("fusion", Fusion)


@fusions.register("concat")
class Concat(Fusion):
    """Concatenation: `W [e; h] + b`."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        self.embedding_dim = embedding_dim
        self.linear = nn.Linear(embedding_dim + feature_dim, feature_dim)

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        # W [e; h] = W_e e + W_h h, so e need not be repeated for every element of h.
        weight_e, weight_h = self.linear.weight.split([self.embedding_dim, h.shape[-1]], dim=1)
        return nn.functional.linear(h, weight_h) + nn.functional.linear(e, weight_e, self.linear.bias)


@fusions.register("add")
class Add(Fusion):
    """Addition: `h + W e + b`."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        self.linear = nn.Linear(embedding_dim, feature_dim)

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        return h + self.linear(e)


@fusions.register("multiply")
class Multiply(Fusion):
    """Multiplication: `h ⊙ (W e + b)`."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        self.linear = nn.Linear(embedding_dim, feature_dim)

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        return h * self.linear(e)


@fusions.register("film")
class FiLM(Fusion):
    """Feature-wise linear modulation: `(1 + W_γ e + b_γ) ⊙ h + W_β e + b_β`."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        self.scale = nn.Linear(embedding_dim, feature_dim)
        self.shift = nn.Linear(embedding_dim, feature_dim)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        return (1 + self.scale(e)) * h + self.shift(e)


@fusions.register("scale")
class Scale(Fusion):
    """Multiplication by the embedding itself: `h ⊙ e`."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        _check_size("scale", embedding_dim, feature_dim)

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        return h * e


@fusions.register("affine")
class Affine(Fusion):
    """Scale and shift by the embedding itself: `e_γ ⊙ h + e_β`, where e_γ is the first half of e."""

    def __init__(self, embedding_dim: int, feature_dim: int, axis: int) -> None:
        super().__init__(embedding_dim, feature_dim, axis)
        _check_size("affine", embedding_dim, 2 * feature_dim)
        self.feature_dim = feature_dim

    def fuse(self, h: Tensor, e: Tensor) -> Tensor:
        return h * e[..., : self.feature_dim] + e[..., self.feature_dim :]


def _check_size(name: str, embedding_dim: int, needed: int) -> None:
    if embedding_dim != needed:
        raise ValueError(
            f"fusion: {name!r} has no layer, so it needs an embedding of {needed} numbers; it is given {embedding_dim}"
        )


class FusionPoints(nn.Module):
    """One operator at selected fusion points of a backbone, with a layer for each point or one for all.

    Args:
        operator: a name in `fusions`.
        embedding_dim, feature_dim, axis: as for `Fusion`.
        num_points: number of fusion points of the backbone.
        points: `first`, `all`, or the indices.
        shared: whether one layer serves all points.

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
        selected = resolve_points(points, num_points)
        make_fusion = fusions.get(operator, "fusion")
        layers = [make_fusion(embedding_dim, feature_dim, axis) for _ in range(1 if shared else len(selected))]
        self.layers = nn.ModuleList(layers)
        self._layer_at = {point: 0 if shared else i for i, point in enumerate(selected)}

    def at(self, point: int) -> bool:
        """Return whether `point` is selected."""
        return point in self._layer_at

    def forward(self, point: int, features: Tensor, embedding: Tensor) -> Tensor:
        """Fuse an embedding into features if `point` is selected; else return them unchanged."""
        if not self.at(point):
            return features
        return self.layers[self._layer_at[point]](features, embedding)


def resolve_points(points: PointSelection, num_points: int) -> Sequence[int]:
    """Return the indices of a selection, in ascending order.

    Raises:
        ValueError: an empty list, or an index that the backbone does not have.
    """
    if points == "first":
        return [0]
    if points == "all":
        return range(num_points)
    wrong = [point for point in points if not 0 <= point < num_points]
    if wrong or not points:
        raise ValueError(f"points: is {points}; indices from 0 to {num_points - 1}, 'first' or 'all' are allowed")
    return sorted(set(points))


def mean_embedding(embeddings: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Return the mean of embeddings of one voice: the mean of their directions times the mean of their lengths.

    Args:
        embeddings: each `[…, dim]`.
        weights: weight of each in both means, above 0; `None` for equal weights.

    >>> mean_embedding([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])]).tolist()
    [[1.0, 1.0]]
    """
    stacked = torch.stack(list(embeddings))
    norms = stacked.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    if weights is None:
        return (stacked / norms).mean(dim=0) * norms.mean(dim=0)
    shares = torch.tensor(weights, dtype=stacked.dtype, device=stacked.device)
    shares = (shares / shares.sum()).view(-1, *(1,) * (stacked.dim() - 1))
    return (stacked / norms * shares).sum(dim=0) * (norms * shares).sum(dim=0)
