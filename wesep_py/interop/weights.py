"""Handing the tensors of a public checkpoint to a network of ours, one by one, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from wesep_py.backbones.bands import group_bands
from wesep_py.errors import CheckpointError

NAMES_IN_AN_ERROR = 5


class PublicWeights:
    """The tensors of a public checkpoint, each taken once.

    >>> weights = PublicWeights({"fc.weight": torch.ones(2, 3)})
    >>> weights.take("fc.weight").shape
    torch.Size([2, 3])
    >>> weights.check_all_taken()
    """

    def __init__(self, state_dict: Mapping[str, Tensor]) -> None:
        self._left = dict(state_dict)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self, prefix: str) -> list[str]:
        """Names not yet taken that start with `prefix`."""
        return [name for name in self._left if name.startswith(prefix)]

    def take(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            CheckpointError: it is not there, or was taken before.
        """
        if name not in self._left:
            raise CheckpointError(f"the public checkpoint has no tensor {name!r}, which its configuration promises")
        return self._left.pop(name)

    def take_all(self, prefix: str) -> dict[str, Tensor]:
        """Every tensor whose name starts with `prefix`, under the rest of its name."""
        return {name[len(prefix) :]: self._left.pop(name) for name in self.names(prefix)}

    def stacked(self, names: Iterable[str]) -> Tensor:
        """Tensors of one shape, along a new first axis."""
        return torch.stack([self.take(name) for name in names])

    def check_all_taken(self) -> None:
        """Raises:
        CheckpointError: some tensors have no place in our network; the message lists them.
        """
        if self._left:
            names = sorted(self._left)
            more = f" and {len(names) - NAMES_IN_AN_ERROR} more" if len(names) > NAMES_IN_AN_ERROR else ""
            raise CheckpointError(
                f"the public checkpoint has tensors that find no place: {', '.join(names[:NAMES_IN_AN_ERROR])}{more}"
            )


def linear(weights: PublicWeights, theirs: str, ours: str) -> dict[str, Tensor]:
    """Weight and bias of one layer, renamed; a 1×1 convolution's weight loses its axes of size one."""
    weight = weights.take(f"{theirs}.weight")
    return {
        f"{ours}.weight": weight.flatten(1) if weight.dim() > 2 else weight,
        f"{ours}.bias": weights.take(f"{theirs}.bias"),
    }


def band_layers(
    weights: PublicWeights, theirs: str, ours: str, widths: list[int], layers: Mapping[int, str]
) -> dict[str, Tensor]:
    """A `Sequential` a band → batched layers a group of bands.

    Args:
        theirs, ours: `"{}"` stands for the band's index in the one, and for the group's in the other.
        widths: bins of each band.
        layers: index in their `Sequential` → our layer's name.
    """
    mapped: dict[str, Tensor] = {}
    first = 0
    for index, group in enumerate(group_bands(widths)):
        bands = range(first, first + group.count)
        first += group.count
        for number, name in layers.items():
            weight = weights.stacked(f"{theirs.format(band)}.{number}.weight" for band in bands)
            bias = weights.stacked(f"{theirs.format(band)}.{number}.bias" for band in bands)
            # A convolution's weight is [bands, out, in, 1], ours [bands, in, out]; a normalisation's [bands, features].
            target = f"{ours.format(index)}.{name}"
            mapped[f"{target}.weight"] = weight.squeeze(-1).transpose(1, 2) if weight.dim() == 4 else weight[:, None]
            mapped[f"{target}.bias"] = bias[:, None]
    return mapped
