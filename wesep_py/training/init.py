"""Starting from the weights of another run, whose network may be another in parts."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from wesep_py import checkpoint
from wesep_py.errors import CheckpointError
from wesep_py.training.config import InitConfig
from wesep_py.training.provenance import lineage


@dataclass(frozen=True)
class Initialised:
    """What was taken over.

    Attributes:
        source: the checkpoint's folder.
        hash: of its weights and configuration.
        taken: how many tensors.
        fresh: names of the network's tensors that were not.
        unused: names of the checkpoint's tensors that were not.
        lineage: how the checkpoint was made, and before it those that it went on from itself.
    """

    source: str
    hash: str
    taken: int
    fresh: list[str]
    unused: list[str]
    lineage: list[dict[str, Any]]

    def __str__(self) -> str:
        text = f"{self.taken} of {self.taken + len(self.fresh)} tensors are those of {self.source}"
        if self.fresh:
            text += f"; freshly initialised: {', '.join(self.fresh)}"
        return text + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def initialise(network: nn.Module, config: InitConfig) -> Initialised:
    """Give a network the weights of a checkpoint, where name and shape are the same.

    Args:
        network: changed in place.
        config: which checkpoint, and what of it.

    Raises:
        CheckpointError: it is missing or damaged; nothing of it fits, or with `strict` not everything.

    Example: `init: {checkpoint: exp/base, skip: ["encoder.*"]}`
    """
    saved = checkpoint.load(config.checkpoint)
    own = network.state_dict()
    given = {
        name: tensor
        for name, tensor in saved.state_dict.items()
        if not any(fnmatchcase(name, pattern) for pattern in config.skip)
    }
    if config.strict and (lines := checkpoint.misfit(own, given)):
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise CheckpointError(
            f"init.checkpoint: {saved.folder} does not fit the network: {'; '.join(lines[:5])}{more}; with "
            "init.strict=false what fits is taken"
        )
    fits = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    if not fits:
        raise CheckpointError(f"init.checkpoint: nothing of {saved.folder} fits the network; give a model of its kind")
    with torch.no_grad():
        for name, tensor in fits.items():
            own[name].copy_(tensor)
    return Initialised(
        str(saved.folder),
        saved.hash,
        len(fits),
        [name for name in own if name not in fits],
        [name for name in saved.state_dict if name not in fits],
        lineage(saved),
    )
