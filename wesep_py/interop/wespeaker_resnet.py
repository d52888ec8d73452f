"""WeSpeaker's ResNet: its arguments and the names of its weights, as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop.wespeaker_pooling import POOLING_RULES, translate_pooling

BLOCKS = {"BasicBlock": "basic", "Bottleneck": "bottleneck"}
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

MODELS = ("ResNet", *NAMED)
ARGUMENTS = ("block", "num_blocks", "m_channels", "feat_dim", "embed_dim", "pooling_func", "two_emb_layer")


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: resnet, …}` without the number of mel bins.

    Args:
        model: a name in `NAMED`, or `ResNet`, where `args` give `num_blocks` and `block` is given.
        args: `m_channels`, `embed_dim`, `pooling_func`, `two_emb_layer`.
        block: the class of the blocks.

    >>> translate("ResNet34", {"embed_dim": 256})["num_blocks"]
    [3, 4, 6, 3]

    Raises:
        ConfigError: another model, block or pooling; an unknown or a missing argument.
    """
    if model not in MODELS:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, MODELS)}")
    for name in args:
        if name not in ARGUMENTS:
            raise ConfigError(f"encoder: {model} has no argument {name!r}; {nearest(name, ARGUMENTS)}")
    needed = "num_blocks" if model == "ResNet" else "embed_dim"
    if needed not in args:
        raise ConfigError(f"encoder: {model} needs its argument {needed!r}; give it")
    if model == "ResNet":
        block = str(args.get("block", block))
        if block not in BLOCKS:
            raise ConfigError(f"encoder.block: is {block!r}; {nearest(block, BLOCKS)}")
        kind, num_blocks = BLOCKS[block], args["num_blocks"]
    else:
        kind, num_blocks = NAMED[model]
    return {
        "name": "resnet",
        "num_blocks": list(num_blocks),
        "channels": args.get("m_channels", 32),
        "embedding_dim": args.get("embed_dim", 128),
        "block": kind,
        "pooling": translate_pooling(args.get("pooling_func", "TSTP")),
        "second_layer": bool(args.get("two_emb_layer", False)),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names."""
    return {_rename(name): tensor for name, tensor in state_dict.items()}


def _rename(name: str) -> str:
    block = re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|shortcut\.)(\d)\.(.+)", name)
    if block is None:
        for pattern, replacement in POOLING_RULES:
            name = re.sub(pattern, replacement, name)
        layer, dot, rest = name.partition(".")
        ours = {"conv1": "conv", "bn1": "norm", "seg_1": "linear", "seg_bn_1": "second.1", "seg_2": "second.2"}
        return ours.get(layer, layer) + dot + rest
    stage, index, part, number, rest = block.groups()
    prefix = f"stages.{int(stage) - 1}.{index}"
    if part == "shortcut.":
        return f"{prefix}.shortcut.{number}.{rest}"
    return f"{prefix}.{'convs' if part == 'conv' else 'norms'}.{int(number) - 1}.{rest}"
