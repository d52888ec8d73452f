"""Memory: kept between steps instead of returned to the system and asked for again; saved by computing twice."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from wesep_py.errors import ConfigError

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell the GNU C library's malloc to keep what is freed.

    By default it maps every large tensor afresh and unmaps it when it is freed; each step on the CPU then pays for
    zeroed pages again: a quarter to a third of its processor time (`bench/training_step.py`).

    Returns:
        Whether it was done; false on systems with another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    largest = 2**31 - 1
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: largest, _M_TOP_PAD: 64 * 2**20}
    return all(mallopt(option, value) == 1 for option, value in settings.items())


def recompute_blocks(network: nn.Module) -> None:
    """Let the repeated blocks of a network's backbone keep their inputs only, and be computed again for the gradients.

    Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174. The gradients are the same.

    Raises:
        ConfigError: the network has no such blocks (`blocks_of`).
    """
    blocks = blocks_of(network)
    if not blocks:
        raise ConfigError("train.gradient_checkpointing: is true, and the network has no blocks to compute again")
    for block in blocks:
        block.forward = _twice(block, block.forward)


def compile_blocks(network: nn.Module) -> None:
    """Send the repeated blocks of a network through `torch.compile`; all of a network that has none.

    What is around the blocks of a separator computes with complex spectra, which torch's compiler does not translate.
    """
    for part in blocks_of(network) or [network]:
        part.compile()


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The `blocks` of a network's backbone, or else all that its outermost lists of modules hold."""
    backbone = getattr(network, "backbone", network)
    own = getattr(backbone, "blocks", None)
    lists = [own] if isinstance(own, nn.ModuleList) else list(backbone.children())
    return [block for group in lists if isinstance(group, nn.ModuleList) for block in group]


def _twice(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*positional: Any, **named: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*positional, **named)
        return checkpoint(forward, *positional, use_reentrant=False, **named)

    return run
