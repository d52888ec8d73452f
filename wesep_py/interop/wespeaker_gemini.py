"""WeSpeaker's Gemini DF-ResNet: its arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop.wespeaker_common import Rule, complete, substitute
from wesep_py.interop.wespeaker_pooling import POOLING_RULES, translate_pooling

DEPTHS = {
    "Gemini_DF_ResNet60": (3, 3, 9, 3),
    "Gemini_DF_ResNet114": (3, 3, 27, 3),
    "Gemini_DF_ResNet183": (3, 8, 45, 3),
    "Gemini_DF_ResNet237": (3, 8, 63, 3),
}
"""Blocks of each stage."""

DIMS = (32, 32, 64, 128, 256)
MODELS = ("Gemini_DF_ResNet", *DEPTHS)
SHARED = {"pooling_func": "TSTP", "two_emb_layer": False}

RULES: tuple[Rule, ...] = (
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"(?<=\d\.)conv([1-3])\.", lambda found: f"convs.{int(found[1]) - 1}."),
    (r"(?<=\d\.)bn([1-3])\.", lambda found: f"norms.{int(found[1]) - 1}."),
    (r"^downsample_layers\.0\.0\.", "conv."),
    (r"^downsample_layers\.0\.1\.", "norm."),
    (r"^downsample_layers\.([1-4])\.0\.", lambda found: f"stages.{int(found[1]) - 1}.conv."),
    (r"^downsample_layers\.([1-4])\.1\.", lambda found: f"stages.{int(found[1]) - 1}.norm."),
    (r"^seg_1\.", "linear."),
    (r"^seg_bn_1\.", "second.1."),
    (r"^seg_2\.", "second.2."),
    *POOLING_RULES,
)


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: gemini_df_resnet, …}` without the number of mel bins.

    Args:
        model: a name in `DEPTHS`, or `Gemini_DF_ResNet`, where `args` give `depths` and `dims`.
        args: `embed_dim`, `pooling_func`, `two_emb_layer`.
        block: not used; there is one kind.

    >>> translate("Gemini_DF_ResNet114", {"embed_dim": 256})["num_blocks"]
    [3, 3, 27, 3]

    Raises:
        ConfigError: another model or pooling; an unknown or a missing argument.
    """
    if model not in MODELS:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, MODELS)}")
    own = {"embed_dim": None} if model in DEPTHS else {"depths": None, "dims": None, "embed_dim": 128}
    given = complete(model, args, {**SHARED, **own})
    return {
        "name": "gemini_df_resnet",
        "num_blocks": list(DEPTHS.get(model, given.get("depths"))),
        "channels": list(given.get("dims", DIMS)),
        "embedding_dim": given["embed_dim"],
        "pooling": translate_pooling(given["pooling_func"]),
        "second_layer": bool(given["two_emb_layer"]),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names."""
    return substitute(state_dict, RULES)
