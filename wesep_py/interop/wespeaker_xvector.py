"""WeSpeaker's x-vector: its arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop.wespeaker_common import Rule, complete, substitute
from wesep_py.interop.wespeaker_pooling import POOLING_RULES, translate_pooling

MODELS = ("XVEC",)
DEFAULTS = {"hid_dim": 512, "stats_dim": 1500, "embed_dim": 512, "pooling_func": "TSTP"}

RULES: tuple[Rule, ...] = (
    (r"^frame_([1-5])\.conv_1d\.", lambda found: f"convs.{int(found[1]) - 1}."),
    (r"^frame_([1-5])\.bn\.", lambda found: f"norms.{int(found[1]) - 1}."),
    (r"^seg_1\.", "linear."),
    (r"^seg_bn_1\.", "second.1."),
    (r"^seg_2\.", "second.2."),
    *POOLING_RULES,
)


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: xvector, …}` without the number of mel bins.

    Args:
        model: `XVEC`.
        args: `hid_dim`, `stats_dim`, `embed_dim`, `pooling_func`.
        block: not used; there are no blocks.

    >>> translate("XVEC", {"feat_dim": 80, "embed_dim": 512})["frame_dim"]
    1500

    Raises:
        ConfigError: another model or pooling, or an unknown argument.
    """
    if model not in MODELS:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, MODELS)}")
    given = complete(model, args, DEFAULTS)
    return {
        "name": "xvector",
        "channels": given["hid_dim"],
        "frame_dim": given["stats_dim"],
        "embedding_dim": given["embed_dim"],
        "pooling": translate_pooling(given["pooling_func"]),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names."""
    return substitute(state_dict, RULES)
