"""WeSep's BSRNN: its constructor's arguments, and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.backbones.bands import STANDARD_BANDS, band_widths
from wesep_py.errors import ConfigError, nearest
from wesep_py.features.wesep_mel import WesepMel
from wesep_py.interop import encoders
from wesep_py.interop.weights import PublicWeights, band_layers, linear

FUSIONS = {"concat": "concat", "additive": "add", "multiply": "multiply", "FiLM": "film"}
DEFAULTS: dict[str, Any] = {
    "spk_emb_dim": 256,
    "sr": 16000,
    "win": 512,
    "stride": 128,
    "feature_dim": 128,
    "num_repeat": 6,
    "use_spk_transform": False,
    "spk_fuse_type": "concat",
    "multi_fuse": True,
    "joint_training": False,
    "multi_task": False,
    "spksInTrain": 251,
    "spk_model": None,
    "spk_args": {},
    "spk_feat": False,
}
ENCODER, FRONT_END = (
    "spk_model.",
    ("preEmphasis.flipped_filter", "spk_encoder.spectrogram.window", "spk_encoder.mel_scale.fb"),
)


def translate(args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of WeSep's `BSRNN` → a `ModelConfig` mapping.

    Args:
        args: the constructor's.
        encoder: model and arguments of the jointly trained speaker encoder, where it is not the one that `args` name.

    Raises:
        ConfigError: a fusion that WeSep does not know, or a part that has no counterpart here.
    """
    args = {**DEFAULTS, **args}
    if args["use_spk_transform"]:
        raise ConfigError("use_spk_transform: true cannot be translated; only BSRNN checkpoints without it are read")
    points = "all" if args["multi_fuse"] else "first"
    cue: dict[str, Any] = {"name": "embedding", "fusion": fusion(args["spk_fuse_type"]), "points": points}
    model = {"sample_rate": args["sr"], "normalise": "none", "backbone": backbone(args), "cues": [cue]}
    if not args["joint_training"]:
        cue["embedding_dim"] = args["spk_emb_dim"]
        return model
    network = encoders.translate(str(args["spk_model"]), args["spk_args"], encoder)
    heard = encoder["args"] if encoder is not None else args["spk_args"]
    model["speaker"] = {"network": network, "filterbank": {"num_mel_bins": heard.get("feat_dim", 80)}}
    if args["multi_task"]:
        cue["num_speakers"] = args["spksInTrain"]
    return model


def front_end(state_dict: Mapping[str, Tensor], args: Mapping[str, Any]) -> WesepMel | None:
    """What makes a jointly trained encoder's features of an enrollment's waveform; `None` where it is given features.

    Raises:
        CheckpointError: its buffers are not in the checkpoint.
    """
    args = {**DEFAULTS, **args}
    if args["spk_feat"]:
        return None
    weights = PublicWeights(state_dict)
    return WesepMel(*(weights.take(name) for name in FRONT_END), hop_length=args["stride"])


def rename(
    state_dict: Mapping[str, Tensor], args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """WeSep's weights under our names; those of the front end are `front_end`'s.

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
    if args["joint_training"]:
        named = str(args["spk_model"] if encoder is None else encoder["model"])
        mapped |= encoders.rename(named, weights.take_all(ENCODER))
        if args["multi_task"]:
            mapped |= linear(weights, "pred_linear", "cues.0.classifier")
        if not args["spk_feat"]:
            for name in FRONT_END:
                weights.take(name)
    weights.check_all_taken()
    return mapped


def fusion(name: str) -> str:
    """Our name of WeSep's fusion.

    >>> fusion("additive")
    'add'
    """
    if name not in FUSIONS:
        raise ConfigError(f"spk_fuse_type: no fusion is called {name!r}; {nearest(name, FUSIONS)}")
    return FUSIONS[name]


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


def fusion_weights(weights: PublicWeights, theirs: str, ours: str, name: str) -> dict[str, Tensor]:
    """The weights of one fusion layer under our names."""
    if fusion(name) != "film":
        mapped = linear(weights, f"{theirs}.linear", f"{ours}.linear")
        if fusion(name) == "concat":
            # Theirs is of [h; e], ours of [e; h].
            weight = mapped[f"{ours}.linear.weight"]
            mapped[f"{ours}.linear.weight"] = weight.roll(-len(weight), dims=1)
        return mapped
    scale = linear(weights, f"{theirs}.gamma_fcs.0", f"{ours}.scale")
    return scale | linear(weights, f"{theirs}.beta_fcs.0", f"{ours}.shift")
