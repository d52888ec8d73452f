"""WeSpeaker's ECAPA-TDNN: its arguments and the names of its weights, as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.errors import CheckpointError, ConfigError

NAMES = (
    ("se_res2block.0.bn.", "expand.norm."),
    ("se_res2block.0.", "expand."),
    ("se_res2block.1.bns.", "res2.norms."),
    ("se_res2block.1.", "res2."),
    ("se_res2block.2.bn.", "project.norm."),
    ("se_res2block.2.", "project."),
    ("se_res2block.3.", "excite."),
)


def translate(model: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """A model's name and arguments in WeSpeaker → `{name: ecapa_tdnn, …}` without the number of mel bins.

    >>> translate("ECAPA_TDNN_GLOB_c512", {"feat_dim": 80, "embed_dim": 192})["channels"]
    512

    Raises:
        ConfigError: another model, or another pooling.
    """
    sized = re.fullmatch(r"ECAPA_TDNN(?P<glob>_GLOB)?(_c(?P<channels>\d+))?", model)
    if sized is None:
        raise ConfigError(f"encoder: {model!r} cannot be translated; 'ECAPA_TDNN' and its sizes are allowed")
    if args.get("pooling_func", "ASTP") != "ASTP":
        raise ConfigError(f"encoder: pooling_func {args['pooling_func']!r} cannot be translated; 'ASTP' is allowed")
    channels = args.get("channels", sized["channels"])
    return {
        "name": "ecapa_tdnn",
        "channels": int(channels or 512),
        "embedding_dim": args.get("embed_dim", 192),
        "global_context": bool(args.get("global_context_att", sized["glob"] is not None)),
        "embedding_norm": bool(args.get("emb_bn", False)),
    }


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names.

    Raises:
        CheckpointError: two names become one.
    """
    mapped: dict[str, Tensor] = {}
    for theirs, tensor in state_dict.items():
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
