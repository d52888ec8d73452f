"""WeSpeaker's SimAM-ResNet: its arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop import wespeaker_resnet
from wesep_py.interop.wespeaker_common import complete, substitute

NUM_BLOCKS = {"SimAM_ResNet34_ASP": (3, 4, 6, 3), "SimAM_ResNet100_ASP": (6, 16, 24, 3)}
MODELS = tuple(NUM_BLOCKS)
DEFAULTS = {"in_planes": 64, "embed_dim": 256, "acoustic_dim": 80, "dropout": 0}

RULES = (
    (r"^front\.", ""),
    (r"\.downsample\.", ".shortcut."),
    (r"^pooling\.attention\.0\.", "pool.linear1."),
    (r"^pooling\.attention\.2\.", "pool.norm."),
    (r"^pooling\.attention\.3\.", "pool.linear2."),
    (r"^bottleneck\.", "linear."),
)
"""To the names that WeSpeaker's plain ResNet has, and of what comes after it to ours."""


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: simam_resnet, …}` without the number of mel bins.

    Args:
        model: `SimAM_ResNet34_ASP` or `SimAM_ResNet100_ASP`.
        args: `in_planes`, `embed_dim`, `dropout`; the number of mel bins is called `acoustic_dim` there.
        block: not used; the block is the model's own.

    >>> translate("SimAM_ResNet100_ASP", {"embed_dim": 256})["num_blocks"]
    [6, 16, 24, 3]

    Raises:
        ConfigError: another model, or an unknown argument.
    """
    if model not in NUM_BLOCKS:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, NUM_BLOCKS)}")
    given = complete(model, args, DEFAULTS)
    return {
        "name": "simam_resnet",
        "num_blocks": list(NUM_BLOCKS[model]),
        "channels": given["in_planes"],
        "embedding_dim": given["embed_dim"],
        "pooling": "asp",
        "dropout": float(given["dropout"]),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names."""
    return wespeaker_resnet.rename(substitute(state_dict, RULES))
