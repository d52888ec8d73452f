"""WeSpeaker's ECAPA-TDNN: its arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import CheckpointError, ConfigError, nearest
from wesep_py.interop.wespeaker_common import complete, substitute
from wesep_py.interop.wespeaker_pooling import POOLING_RULES, translate_pooling

NAMES = (
    ("se_res2block.0.bn.", "expand.norm."),
    ("se_res2block.0.", "expand."),
    ("se_res2block.1.bns.", "res2.norms."),
    ("se_res2block.1.", "res2."),
    ("se_res2block.2.bn.", "project.norm."),
    ("se_res2block.2.", "project."),
    ("se_res2block.3.", "excite."),
)


SIZED = {
    "ECAPA_TDNN_c512": (512, False),
    "ECAPA_TDNN_c1024": (1024, False),
    "ECAPA_TDNN_GLOB_c512": (512, True),
    "ECAPA_TDNN_GLOB_c1024": (1024, True),
}
"""Channels of each published size, and whether its attention sees the whole recording's statistics."""

MODELS = ("ECAPA_TDNN", *SIZED)
FRAME_DIM = 1536
"""Before pooling, whatever the channels."""


def translate(model: str, args: Mapping[str, Any], block: str | None = None) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: ecapa_tdnn, …}` without the number of mel bins.

    Args:
        model: a name in `SIZED`, or `ECAPA_TDNN`.
        args: `channels`, `embed_dim`, `pooling_func`, `global_context_att` (heard by ASTP only), `emb_bn`.
        block: not used; there is one kind.

    >>> translate("ECAPA_TDNN_GLOB_c512", {"feat_dim": 80, "embed_dim": 192})["channels"]
    512

    Raises:
        ConfigError: another model or pooling, or an unknown argument.
    """
    if model not in MODELS:
        raise ConfigError(f"encoder: {model!r} cannot be translated; {nearest(model, MODELS)}")
    channels, context = SIZED.get(model, (512, False))
    own = {"channels": channels, "embed_dim": 192, "global_context_att": context}
    given = complete(model, args, {**own, "pooling_func": "ASTP", "emb_bn": False})
    pooling = translate_pooling(given["pooling_func"])
    attention = {"global_context": bool(given["global_context_att"])} if pooling == "astp" else {}
    return {
        "name": "ecapa_tdnn",
        "channels": given["channels"],
        "frame_dim": FRAME_DIM,
        "embedding_dim": given["embed_dim"],
        "pooling": pooling,
        **attention,
        "embedding_norm": bool(given["emb_bn"]),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names.

    Raises:
        CheckpointError: two names become one.
    """
    mapped: dict[str, Tensor] = {}
    for theirs, tensor in substitute(state_dict, POOLING_RULES).items():
        ours = _rename(theirs)
        if ours in mapped:
            raise CheckpointError(f"two tensors of the public checkpoint become {ours!r}; one of them is {theirs!r}")
        mapped[ours] = tensor
    return mapped


def _rename(name: str) -> str:
    layer, dot, rest = name.partition(".")
    if layer in ("layer2", "layer3", "layer4"):
        for theirs, ours in NAMES:
            if rest.startswith(theirs):
                return f"blocks.{int(layer[-1]) - 2}.{ours}{rest[len(theirs) :]}"
    if layer == "layer1":
        return f"layer1.{rest.replace('bn.', 'norm.')}"
    return {"bn": "pool_norm", "bn2": "embedding_norm"}.get(layer, layer) + dot + rest
