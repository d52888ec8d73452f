"""WeSep's BSRNN: its constructor's arguments, and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.interop import wesep_enrollment
from wesep_py.interop.public_checkpoints import PublicWeights, band_layers, complete, linear
from wesep_py.interop.wesep_enrollment import Signature, fusion, fusion_weights
from wesep_py.network.backbones.spectrum import STANDARD_BANDS, band_widths

DEFAULTS: dict[str, Any] = {
    **wesep_enrollment.DEFAULTS,
    "sr": 16000,
    "win": 512,
    "stride": 128,
    "feature_dim": 128,
    "num_repeat": 6,
    "use_spk_transform": True,
    "spk_fuse_type": "concat",
    "multi_fuse": True,
}
INERT = wesep_enrollment.INERT | {"use_bidirectional"}


def translate(
    args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Arguments of WeSep's `BSRNN` → a `ModelConfig` mapping.

    Args:
        args: the constructor's.
        encoder: model and arguments of the jointly trained speaker encoder, where it is not the one that `args` name.
        state_dict: not used: the arguments say it all.

    Raises:
        ConfigError: a fusion or an argument that WeSep does not know, or a part that has no counterpart here.
    """
    args = complete(args, DEFAULTS, INERT)
    points = "all" if args["multi_fuse"] else "first"
    return {
        "sample_rate": args["sr"],
        "normalise": "none",
        "highpass_hz": 0.0,
        "backbone": backbone(args),
        "speaker": wesep_enrollment.speaker(args, encoder, args) if args["joint_training"] else None,
        "cues": [wesep_enrollment.cue(args, fusion=fusion(args["spk_fuse_type"]), points=points)],
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
    weights = PublicWeights(state_dict)
    fused = range(args["num_repeat"] if args["multi_fuse"] else 1)
    # Their list holds a fusion layer before each block, or one before all of them.
    places = [2 * i for i in fused] if args["multi_fuse"] else [0]
    blocks = [i + 1 + (i if args["multi_fuse"] else 0) for i in range(args["num_repeat"])]
    mapped = backbone_weights(
        weights, args, split="BN.{}", mask="mask.{}", blocks=[f"separator.separation.{place}" for place in blocks]
    )
    for point, place in zip(fused, places, strict=True):
        mapped |= fusion_weights(
            weights, f"separator.separation.{place}.fc", f"cues.0.fusion.layers.{point}", args["spk_fuse_type"]
        )
    mapped |= wesep_enrollment.weights(weights, args, encoder, args)
    weights.check_all_taken()
    return mapped


def bands(sample_rate: int) -> list[list[float]]:
    """WeSep's band list: the standard one, and all that is left up to Nyquist as a single band."""
    return [[float(width_hz), count] for width_hz, count in STANDARD_BANDS] + [[sample_rate / 2, 1]]


def backbone(args: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone's own arguments, which WeSep's and real-TSE's BSRNN share."""
    return {
        "name": "bsrnn",
        "window_ms": 1000 * args["win"] / args["sr"],
        "hop_ms": 1000 * args["stride"] / args["sr"],
        "bands": bands(args["sr"]),
        "feature_dim": args["feature_dim"],
        "num_blocks": args["num_repeat"],
        "pad_mode": "reflect",
    }


def backbone_weights(
    weights: PublicWeights, args: Mapping[str, Any], split: str, mask: str, blocks: list[str]
) -> dict[str, Tensor]:
    """The backbone's weights under our names.

    Args:
        weights: where they are taken from.
        args: `sr` and `win`, which say how wide the bands are.
        split, mask: names of the modules of a band, with `{}` for its number.
        blocks: names of the blocks.
    """
    widths = band_widths(args["sr"], args["win"] // 2 + 1, bands(args["sr"]))
    mapped = band_layers(weights, split, "backbone.split.{}", widths, {0: "norm", 1: "linear"})
    mask_layers = {number: f"layers.{number}" for number in (0, 1, 3, 5)}
    mapped |= band_layers(weights, mask, "backbone.masks.{}", widths, mask_layers)
    for index, block in enumerate(blocks):
        for theirs, ours in (("band_rnn", "along_time"), ("band_comm", "across_bands")):
            target = f"backbone.blocks.{index}.{ours}"
            mapped |= linear(weights, f"{block}.{theirs}.norm", f"{target}.norm")
            mapped |= linear(weights, f"{block}.{theirs}.proj", f"{target}.linear")
            recurrent = weights.take_all(f"{block}.{theirs}.rnn.")
            mapped |= {f"{target}.rnn.{name}": tensor for name, tensor in recurrent.items()}
    return mapped
