"""WeSep's DPCCN: its constructor's arguments, and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.interop import wesep_enrollment
from wesep_py.interop.public_checkpoints import PublicWeights, complete
from wesep_py.interop.wesep_enrollment import Signature, fusion

DEFAULTS: dict[str, Any] = {
    **wesep_enrollment.DEFAULTS,
    "sr": 16000,
    "win": 512,
    "stride": 128,
    "tcn_blocks": 10,
    "tcn_layers": 2,
}
ONLY = {
    "kernel_size": [3, 3],
    "stride1": [1, 1],
    "stride2": [1, 2],
    "paddings": [1, 1],
    "output_padding": [0, 0],
    "tcn_dims": 384,
    "causal": False,
    "pool_size": [4, 8, 16, 32],
}
"""The one value of each that the backbone can be built with."""

DENSE_LEVELS, DEEP_LEVELS, DENSE_LAYERS, POOL_SIZES = 4, 3, 5, 4


def translate(
    args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Arguments of WeSep's `DPCCN` → a `ModelConfig` mapping.

    Args:
        args: the constructor's.
        encoder: model and arguments of the jointly trained speaker encoder, where it is not the one that `args` name.
        state_dict: not used: the arguments say it all.

    Raises:
        ConfigError: an unknown argument or fusion, or a part that has no counterpart here.
    """
    args = {key: list(value) if isinstance(value, tuple) else value for key, value in args.items()}
    bins = args.get("win", DEFAULTS["win"]) // 2 + 1
    args = complete(args, DEFAULTS, wesep_enrollment.INERT, {**ONLY, "feature_dim": bins})
    return {
        "sample_rate": args["sr"],
        "normalise": "none",
        "highpass_hz": 0.0,
        "backbone": backbone(args),
        "speaker": wesep_enrollment.speaker(args, encoder, args) if args["joint_training"] else None,
        "cues": [wesep_enrollment.cue(args, fusion=fusion(args["spk_fuse_type"]), points="all")],
    }


def signature(args: Mapping[str, Any]) -> Signature:
    """What the public `forward` takes and returns."""
    return wesep_enrollment.signature({**DEFAULTS, **args})


def rename(
    state_dict: Mapping[str, Tensor], args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """WeSep's weights under our names.

    Raises:
        CheckpointError: a tensor is missing, or finds no place.
    """
    args = {**DEFAULTS, **args}
    return wesep_enrollment.rename(state_dict, args, encoder, args, backbone_weights)


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
