"""WeSpeaker's ReDimNet: its sizes, its arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop.wespeaker_common import Rule, complete, substitute
from wesep_py.interop.wespeaker_pooling import POOLING_RULES, translate_pooling

BLOCKS = {"convnext_like": "convnext", "basic_resnet": "resnet", "basic_resnet_fwse": "resnet_se"}
B2 = ((1, 2, 1, 12), (2, 2, 1, 12), (1, 3, 1, 12), (2, 4, 1, 8), (1, 4, 1, 8), (2, 4, 1, 4))
B4 = ((1, 4, 2, 48), (2, 4, 2, 48), (1, 6, 2, 48), (2, 6, 1, 32), (1, 8, 1, 24), (2, 4, 1, 16))
SIZES = {
    "B0": (10, "basic_resnet", 1, ((1, 2, 1, 30), (2, 3, 2, 30), (1, 3, 3, 30), (2, 4, 2, 10), (1, 3, 1, 10))),
    "B1": (12, "convnext_like", 8, ((1, 2, 1, None), (2, 3, 1, None), (3, 4, 1, 12), (2, 5, 1, 12), (2, 3, 1, 8))),
    "B2": (16, "convnext_like", 4, B2),
    "B3": (
        16,
        "basic_resnet_fwse",
        1,
        ((1, 6, 4, 32), (2, 6, 2, 32), (1, 8, 2, 32), (2, 10, 2, 16), (1, 10, 1, 16), (2, 8, 1, 16)),
    ),
    "B4": (32, "basic_resnet_fwse", 1, B4),
    "B5": (32, "basic_resnet_fwse", 16, B4),
    "B6": (
        32,
        "basic_resnet",
        32,
        ((1, 4, 4, 32), (2, 6, 2, 32), (1, 6, 2, 24), (3, 8, 1, 24), (1, 8, 1, 16), (2, 8, 1, 16)),
    ),
}
"""Channels, blocks, channels a group, and of each stage: stride, blocks, width, reduction of the context block."""

MODELS = ("ReDimNet", *(f"ReDimNet{size}" for size in SIZES))
OWN = {
    **{"C": 16, "block_1d_type": "conv+att", "block_2d_type": "basic_resnet", "stages_setup": B2},
    **{"group_divisor": 4, "out_channels": 0},
}
HEAD = {"embed_dim": 192, "pooling_func": "ASTP", "two_emb_layer": False, "global_context_att": True}
"""The arguments of `ReDimNet` itself, and of every size, with their defaults.

WeSpeaker's B1 was once without global context; `global_context_att: false` beside its arguments reads such weights.
"""

RULES: tuple[Rule, ...] = (
    (r"^backbone\.", ""),
    (r"^inputs_weights\.(\d+)", lambda m: f"mixes.{int(m[1]) - 1}"),
    (r"^stem\.0\.", "stem."),
    (r"^stem\.1\.", "stem_norm."),
    (r"^mfa\.", "aggregate."),
    (r"^stage(\d+)\.", r"stages.\1."),
    (r"^(stages\.\d+)\.(\d+)\.conv_block\.", lambda m: f"{m[1]}.blocks.{int(m[2]) - 1}."),
    (r"^(stages\.\d+)\.\d+\.(\d)\.", r"\1.squeeze.\2."),
    (r"^(stages\.\d+)\.0\.", r"\1.expand."),
    (r"\.conv(\d)\.", lambda m: f".convs.{int(m[1]) - 1}.0."),
    (r"\.conv(\d)pw\.", lambda m: f".convs.{int(m[1]) - 1}.1."),
    (r"\.bn(\d)\.", lambda m: f".norms.{int(m[1]) - 1}."),
    (r"\.se\.squeeze\.", ".excite.linear1."),
    (r"\.se\.exitation\.", ".excite.linear2."),
    (r"\.dwconvs\.0\.", ".conv."),
    (r"\.pwconv1\.", ".pointwise."),
    (r"\.\d+\.red_dim_conv\.0\.", ".context.reduce."),
    (r"\.\d+\.red_dim_conv\.1\.", ".context.norm."),
    (r"\.\d+\.exp_dim_conv\.", ".context.expand."),
    (r"\.\d+\.tcm\.([0-3])\.", r".context.convs.\1."),
    (r"\.\d+\.tcm\.4\.(?:attention\.|feed_forward\.)?", ".context.attention."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".project."),
    (r"\.layer_norm\.", ".attention_norm."),
    (r"\.intermediate_dense\.", ".linear1."),
    (r"\.output_dense\.", ".linear2."),
    (r"\.final_layer_norm\.", ".norm."),
    *POOLING_RULES,
    (r"^seg_1\.", "linear."),
    (r"^seg_bn_1\.", "second.1."),
    (r"^seg_2\.", "second.2."),
)
FIRST_MIX = "backbone.inputs_weights.0"


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: redimnet, …}` without the number of mel bins.

    Args:
        model: a name in `MODELS`.
        args: `embed_dim`, `pooling_func`, `two_emb_layer`, `global_context_att`; for `ReDimNet` itself also `C`,
            `block_1d_type`, `block_2d_type`, `stages_setup`, `group_divisor`, `out_channels`.
        block: the 2-D block of `ReDimNet` itself, where `args` do not give it.

    >>> translate("ReDimNetB2", {"embed_dim": 192})["stages"][0]
    {'stride': 1, 'num_blocks': 2, 'width': 1, 'context_reduction': 12}

    Raises:
        ConfigError: another model, block or pooling; an unknown argument.
    """
    if model not in MODELS:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, MODELS)}")
    if model == "ReDimNet":
        none = {name: args[name] or 0 for name in ("group_divisor", "out_channels") if name in args}
        given = complete(model, {**args, **none}, {**HEAD, **OWN, "block_2d_type": block or OWN["block_2d_type"]})
    else:
        given = {**_sizes(model), **complete(model, args, HEAD)}
    if given["block_1d_type"] != "conv+att":
        raise ConfigError(
            f"encoder: block_1d_type {given['block_1d_type']!r} cannot be translated; 'conv+att' is allowed"
        )
    kind = given["block_2d_type"]
    if kind not in BLOCKS:
        raise ConfigError(f"encoder: block_2d_type {kind!r} cannot be translated; {nearest(str(kind), BLOCKS)}")
    pooling = translate_pooling(given["pooling_func"])
    if pooling == "astp":
        pooling = {"name": "astp", "global_context": bool(given["global_context_att"])}
    return {
        "name": "redimnet",
        "channels": given["C"],
        "stages": [
            {"stride": stride, "num_blocks": count, "width": width, "context_reduction": reduction}
            for stride, count, width, *_, reduction in given["stages_setup"]
        ],
        "block": BLOCKS[kind],
        "group_size": given["group_divisor"] or None,
        "frame_dim": given["out_channels"] or None,
        "embedding_dim": given["embed_dim"],
        "pooling": pooling,
        "second_layer": bool(given["two_emb_layer"]),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names.

    The weight of a mix of one output, whose softmax is always one, has no place and is left out.
    """
    kept = {name: tensor for name, tensor in state_dict.items() if name != FIRST_MIX}
    return {
        name: tensor.squeeze(0) if name.startswith("mixes.") else tensor
        for name, tensor in substitute(kept, RULES).items()
    }


def _sizes(model: str) -> dict[str, Any]:
    """The arguments of `ReDimNet` itself that make the named size."""
    channels, block, group_size, stages = SIZES[model.removeprefix("ReDimNet")]
    own = {"C": channels, "block_2d_type": block, "group_divisor": group_size, "stages_setup": stages}
    return {**OWN, **own}
