"""A run's adversaries (`losses.Adversary`) in its training state: what all ranks share, and what each has alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric

from wesep_py.losses import Adversary
from wesep_py.training.state import check_optimizer_state


def adversary_states(adversaries: Mapping[str, Adversary], fabric: Fabric) -> dict[str, Any]:
    """What a state holds of each, under its name; empty without any. Called on every rank."""
    return {
        name: {"network": adversary.state_dict(), "memories": _of_all_ranks(adversary.memory(), fabric)}
        for name, adversary in adversaries.items()
    }


def load_adversaries(adversaries: Mapping[str, Adversary], states: Mapping[str, Any], fabric: Fabric) -> None:
    """Go on from what `adversary_states` gave; with another number of ranks, those too many begin without memory.

    Raises:
        KeyError, ValueError, RuntimeError: it is of others.
    """
    for name, adversary in adversaries.items():
        optimizer = getattr(adversary, "optimizer", None)
        if isinstance(optimizer, torch.optim.Optimizer):
            check_optimizer_state(optimizer, states[name]["network"]["optimizer"])
        adversary.load_state_dict(states[name]["network"])
        memories = states[name]["memories"]
        if fabric.global_rank < len(memories):
            adversary.load_memory(memories[fabric.global_rank])


def _of_all_ranks(memory: dict[str, Any], fabric: Fabric) -> list[dict[str, Any]]:
    if fabric.world_size == 1:
        return [memory]
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, memory)
    return gathered
