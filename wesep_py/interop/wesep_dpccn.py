"""WeSep's DPCCN: its constructor's arguments, and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.errors import ConfigError, nearest
from wesep_py.interop.weights import PublicWeights
from wesep_py.interop.wesep_bsrnn import fusion, fusion_weights

DEFAULTS: dict[str, Any] = {
    "sr": 16000,
    "win": 512,
    "stride": 128,
    "tcn_blocks": 10,
    "tcn_layers": 2,
    "spk_emb_dim": 256,
    "use_spk_transform": False,
    "spk_fuse_type": "multiply",
    "joint_training": False,
}
INERT = frozenset(
    {
        "multi_task",
        "spksInTrain",
        "spk_model",
        "spk_model_init",
        "spk_model_freeze",
        "spk_args",
        "spk_feat",
        "feat_type",
    }
)
"""What describes a speaker encoder that trains with the network; nothing reads it where there is none."""

DENSE_LEVELS, DEEP_LEVELS, DENSE_LAYERS, POOL_SIZES = 4, 3, 5, 4


def translate(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of WeSep's `DPCCN` → a `ModelConfig` mapping.

    Raises:
        ConfigError: an unknown argument or fusion, or a part that has no counterpart here.
    """
    args = complete(args, DEFAULTS)
    for key in ("use_spk_transform", "joint_training"):
        if args[key]:
            raise ConfigError(f"{key}: true cannot be translated; only DPCCN checkpoints with {key}: false are read")
    return {
        "sample_rate": args["sr"],
        "normalise": "none",
        "backbone": backbone(args),
        "cues": [
            {
                "name": "embedding",
                "fusion": fusion(args["spk_fuse_type"]),
                "embedding_dim": args["spk_emb_dim"],
                "points": "all",
            }
        ],
    }


def rename(state_dict: Mapping[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
    """WeSep's weights under our names.

    Raises:
        CheckpointError: a tensor is missing, or finds no place.
    """
    args = {**DEFAULTS, **args}
    weights = PublicWeights(state_dict)
    mapped = backbone_weights(weights, args)
    mapped |= fusion_weights(weights, "spk_fuse.fc", "cues.0.fusion.layers.0", args["spk_fuse_type"])
    weights.check_all_taken()
    return mapped


def complete(args: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with the defaults of those that are not given.

    Raises:
        ConfigError: an argument that has neither a default nor no effect.
    """
    for key in args:
        if key not in defaults and key not in INERT:
            raise ConfigError(f"{key}: cannot be translated; {nearest(key, defaults)}")
    return {**defaults, **args}


def backbone(args: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone's own arguments."""
    return {
        "name": "dpccn",
        "window_ms": 1000 * args["win"] / args["sr"],
        "hop_ms": 1000 * args["stride"] / args["sr"],
        "window": "hann",
        "pad_mode": "reflect",
        "pad_bins": True,
        "tcn_repeats": args["tcn_layers"],
        "tcn_blocks": args["tcn_blocks"],
        "fuse_along": "bins",
    }


def backbone_weights(weights: PublicWeights, args: Mapping[str, Any]) -> dict[str, Tensor]:
    """The backbone's weights under our names."""
    names = {"conv2d": "convolution", "avg_proj": "pyramid.project", "deconv2d": "synthesis.conv"}
    names |= {f"avg_pool.{i}.1": f"pyramid.reduce.{i}" for i in range(POOL_SIZES)}
    names |= _dense("encoder.0", "first")
    # Their encoder counts from the dense block that keeps all bins; their decoder's levels are ours, deepest first.
    for level in range(1, DENSE_LEVELS + DEEP_LEVELS + 1):
        dense = level <= DENSE_LEVELS
        down, up = f"encoder.{level}", f"decoder.{DENSE_LEVELS + DEEP_LEVELS - level}"
        ours_down, ours_up = f"down.{level - 1}", f"up.{DENSE_LEVELS + DEEP_LEVELS - level}"
        names[f"{down}.0.conv2d" if dense else f"{down}.conv2d"] = f"{ours_down}.resize.conv"
        names[f"{up}.1.convtrans2d" if dense else f"{up}.convtrans2d"] = f"{ours_up}.resize.conv"
        if dense:
            names |= _dense(f"{down}.1", f"{ours_down}.dense") | _dense(f"{up}.0", f"{ours_up}.dense")
    names |= _dense(f"decoder.{DENSE_LEVELS + DEEP_LEVELS}", "last")
    for repeat in range(args["tcn_layers"]):
        for block in range(args["tcn_blocks"]):
            theirs, ours = f"tcn_layers.{repeat}.{block}", f"tcn.{repeat * args['tcn_blocks'] + block}"
            names |= {f"{theirs}.dconv1": f"{ours}.depthwise", f"{theirs}.dconv2": f"{ours}.pointwise"}
    return {
        f"backbone.{ours}.{part}": weights.take(f"{theirs}.{part}")
        for theirs, ours in names.items()
        for part in ("weight", "bias")
    }


def _dense(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.conv{i + 1}.conv2d": f"{ours}.layers.{i}.conv" for i in range(DENSE_LAYERS)}
