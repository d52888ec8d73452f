"""Handing the tensors of a public checkpoint to a network of ours, one by one, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from wesep_py.backbones.bands import group_bands
from wesep_py.checkpoint import misfit
from wesep_py.errors import CheckpointError

NAMES_IN_AN_ERROR = 5


class MisfitError(CheckpointError):
    """Weights that do not fit; `lines` says why, a line for each tensor. The message names the first ones."""

    def __init__(self, what: str, lines: list[str]) -> None:
        more = f" and {len(lines) - NAMES_IN_AN_ERROR} more" if len(lines) > NAMES_IN_AN_ERROR else ""
        super().__init__(f"{what}: {', '.join(lines[:NAMES_IN_AN_ERROR])}{more}")
        self.lines = lines


class MissingTensorError(CheckpointError):
    """A tensor that the public checkpoint lacks; `name` is the public one."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the public checkpoint has no tensor {name!r}, which its configuration promises")
        self.name = name


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
            MissingTensorError: it is not there, or was taken before.
        """
        if name not in self._left:
            raise MissingTensorError(name)
        return self._left.pop(name)

    def take_all(self, prefix: str) -> dict[str, Tensor]:
        """Every tensor whose name starts with `prefix`, under the rest of its name."""
        return {name[len(prefix) :]: self._left.pop(name) for name in self.names(prefix)}

    def stacked(self, names: Iterable[str]) -> Tensor:
        """Tensors of one shape, along a new first axis."""
        return torch.stack([self.take(name) for name in names])

    def check_all_taken(self) -> None:
        """Raises:
        MisfitError: some tensors have no place in our network; the message lists them.
        """
        if self._left:
            raise MisfitError("the public checkpoint has tensors that find no place", sorted(self._left))


def fill(network: nn.Module, weights: Mapping[str, Tensor], named: str) -> None:
    """Give a network its weights, all of them and no others.

    Args:
        network: ours.
        weights: under our names. The counters of batch normalisation may be missing, as in old files.
        named: what the public toolkit calls the network, for the message.

    Raises:
        MisfitError: weights that are missing, too many, or of another size.
    """
    expected = network.state_dict()
    counters = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    complete = counters | dict(weights)
    if lines := misfit(expected, complete):
        raise MisfitError(f"{named}: the weights do not fit the arguments", lines)
    network.load_state_dict(complete)


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
