"""WeSpeaker's Res2Net: its arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop.wespeaker_common import Rule, complete, substitute
from wesep_py.interop.wespeaker_pooling import POOLING_RULES, translate_pooling

BLOCK = "BasicBlockRes2Net"
SHARED = {"embed_dim": 192, "pooling_func": "TSTP", "two_emb_layer": False}
NAMED: dict[str, dict[str, Any]] = {
    "Res2Net": {"m_channels": None, "num_blocks": None},
    "Res2Net34_Base": {},
    "Res2Net34_Large": {},
}
"""Each network's arguments beside the shared ones, and their defaults; `None` where one must be given."""

MODELS = tuple(NAMED)
SIZES = {"Base": 32, "Large": 64, "aug": 64}
"""Channels of the first stage, by the end of a network's name."""

LAYERS = (3, 4, 6, 3)
RULES: tuple[Rule, ...] = (
    (r"^conv1\.", "stem.conv."),
    (r"^bn1\.", "stem.norm."),
    (r"^layer(\d)\.", lambda m: f"stages.{int(m[1]) - 1}."),
    (r"\.conv1\.", ".reduce.conv."),
    (r"\.bn1\.", ".reduce.norm."),
    (r"\.convs\.(\d+)\.", r".convs.\1.conv."),
    (r"\.bns\.(\d+)\.", r".convs.\1.norm."),
    (r"\.conv3\.", ".expand.conv."),
    (r"\.bn3\.", ".expand.norm."),
    (r"\.shortcut\.0\.", ".shortcut.conv."),
    (r"\.shortcut\.1\.", ".shortcut.norm."),
    *POOLING_RULES,
    (r"^seg_1\.", "linear."),
    (r"^seg_bn_1\.", "second.1."),
    (r"^seg_2\.", "second.2."),
)


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: res2net, …}` without the number of mel bins.

    Args:
        model: `Res2Net`, `Res2Net34_Base` or `Res2Net34_Large`.
        args: `embed_dim`, `pooling_func`, `two_emb_layer`, and for `Res2Net` `m_channels` and `num_blocks`.
        block: the class of the blocks, of which there is one.

    >>> translate("Res2Net34_Base", {"feat_dim": 80, "embed_dim": 256})["channels"]
    32

    Raises:
        ConfigError: another model, block or pooling; an unknown or a missing argument.
    """
    if block not in (None, BLOCK):
        raise ConfigError(f"encoder.block: is {block!r}; {nearest(str(block), [BLOCK])}")
    return {"name": "res2net", **sizes(model, args, NAMED)}


def sizes(model: str, args: Mapping[str, Any], named: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The arguments that Res2Net and ERes2Net have in common, as ours; `named` as `NAMED`."""
    if model not in named:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, named)}")
    given = complete(model, args, {**SHARED, **named[model]})
    translated = {
        "num_blocks": list(given.get("num_blocks", LAYERS)),
        "channels": given["m_channels"] if "m_channels" in given else SIZES[model.rpartition("_")[2]],
        "embedding_dim": given["embed_dim"],
        "pooling": translate_pooling(given["pooling_func"]),
        "second_layer": bool(given["two_emb_layer"]),
    }
    public = {"baseWidth": "base_width", "scale": "scale", "expansion": "expansion"}
    return {**translated, **{ours: given[theirs] for theirs, ours in public.items() if theirs in given}}


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names."""
    return substitute(state_dict, RULES)
