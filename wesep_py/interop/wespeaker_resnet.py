"""WeSpeaker's ResNet: its arguments and the names of its weights, as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.errors import ConfigError, nearest

BLOCKS = {"BasicBlock": "basic", "Bottleneck": "bottleneck"}
POOLINGS = {"TAP": "mean", "TSDP": "std", "TSTP": "mean_std"}
NAMED = {
    "ResNet18": ("basic", (2, 2, 2, 2)),
    "ResNet34": ("basic", (3, 4, 6, 3)),
    "ResNet50": ("bottleneck", (3, 4, 6, 3)),
    "ResNet101": ("bottleneck", (3, 4, 23, 3)),
    "ResNet152": ("bottleneck", (3, 8, 36, 3)),
    "ResNet221": ("bottleneck", (6, 16, 48, 3)),
    "ResNet293": ("bottleneck", (10, 20, 64, 3)),
}
"""Block and number of blocks of each depth."""


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: resnet, …}` without the number of mel bins.

    Args:
        model: a name in `NAMED`, or `ResNet`, where `args` give `num_blocks` and `block` is given.
        args: `m_channels`, `embed_dim`, `pooling_func`, `two_emb_layer`.
        block: the class of the blocks.

    >>> translate("ResNet34", {"embed_dim": 256})["num_blocks"]
    [3, 4, 6, 3]

    Raises:
        ConfigError: another model, block or pooling.
    """
    if model in NAMED:
        kind, num_blocks = NAMED[model]
    elif model == "ResNet":
        if block not in BLOCKS:
            raise ConfigError(f"encoder.block: is {block!r}; {nearest(str(block), BLOCKS)}")
        kind, num_blocks = BLOCKS[block], args["num_blocks"]
    else:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, [*NAMED, 'ResNet'])}")
    pooling = args.get("pooling_func", "TSTP")
    if pooling not in POOLINGS:
        raise ConfigError(f"encoder: pooling_func {pooling!r} cannot be translated; {nearest(pooling, POOLINGS)}")
    return {
        "name": "resnet",
        "num_blocks": list(num_blocks),
        "channels": args.get("m_channels", 32),
        "embedding_dim": args.get("embed_dim", 256),
        "block": kind,
        "pooling": POOLINGS[pooling],
        "second_layer": bool(args.get("two_emb_layer", True)),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names."""
    return {_rename(name): tensor for name, tensor in state_dict.items()}


def _rename(name: str) -> str:
    block = re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|shortcut\.)(\d)\.(.+)", name)
    if block is None:
        layer, dot, rest = name.partition(".")
        ours = {"conv1": "conv", "bn1": "norm", "seg_1": "linear", "seg_bn_1": "second.1", "seg_2": "second.2"}
        return ours.get(layer, layer) + dot + rest
    stage, index, part, number, rest = block.groups()
    prefix = f"stages.{int(stage) - 1}.{index}"
    if part == "shortcut.":
        return f"{prefix}.shortcut.{number}.{rest}"
    return f"{prefix}.{'convs' if part == 'conv' else 'norms'}.{int(number) - 1}.{rest}"
