"""WeSep's TF-GridNet: its constructor's arguments, and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.interop import wesep_enrollment
from wesep_py.interop.public_checkpoints import PublicWeights, complete, linear
from wesep_py.interop.wesep_enrollment import Signature, fusion

DEFAULTS: dict[str, Any] = {
    **wesep_enrollment.DEFAULTS,
    "sr": 16000,
    "n_fft": 128,
    "stride": 64,
    "n_layers": 6,
    "lstm_hidden_units": 192,
    "attn_n_head": 4,
    "attn_approx_qk_dim": 512,
    "emb_dim": 48,
    "emb_ks": 4,
    "emb_hs": 1,
}
ONLY = {"n_srcs": 1, "n_imics": 1, "window": "hann", "activation": "prelu", "eps": 1e-5}
"""The one value of each that the backbone can be built with."""


def translate(
    args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Arguments of WeSep's `TFGridNet` → a `ModelConfig` mapping.

    Args:
        args: the constructor's.
        encoder: model and arguments of the jointly trained speaker encoder, where it is not the one that `args` name.
        state_dict: not used: the arguments say it all.

    Raises:
        ConfigError: an unknown argument or fusion, or a value that has no counterpart here.
    """
    args = complete(args, DEFAULTS, wesep_enrollment.INERT, ONLY)
    cue = wesep_enrollment.cue(args, fusion=fusion(args["spk_fuse_type"]), points="all", shared=True)
    return {
        "sample_rate": args["sr"],
        "normalise": "std",
        "highpass_hz": 0.0,
        "backbone": backbone(args),
        "speaker": wesep_enrollment.speaker(args, encoder, _mel(args)) if args["joint_training"] else None,
        "cues": [cue],
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
    return wesep_enrollment.rename(state_dict, args, encoder, _mel(args), backbone_weights)


def _mel(args: Mapping[str, Any]) -> dict[str, int]:
    return {"sr": args["sr"], "win": args["n_fft"], "stride": args["stride"]}


def backbone(args: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone's own arguments."""
    return {
        "name": "tf_gridnet",
        "window_ms": 1000 * args["n_fft"] / args["sr"],
        "hop_ms": 1000 * args["stride"] / args["sr"],
        "pad_mode": "reflect",
        "feature_dim": args["emb_dim"],
        "num_blocks": args["n_layers"],
        "hidden": args["lstm_hidden_units"],
        "kernel": args["emb_ks"],
        "kernel_hop": args["emb_hs"],
        "num_heads": args["attn_n_head"],
        "query_size": args["attn_approx_qk_dim"],
        "fuse_along": "bins",
    }


def backbone_weights(weights: PublicWeights, args: Mapping[str, Any]) -> dict[str, Tensor]:
    """The backbone's weights under our names."""
    mapped = {f"backbone.convolution.{part}": weights.take(f"conv.0.{part}") for part in ("weight", "bias")}
    mapped |= {f"backbone.norm_{part}": weights.take(f"conv.1.{part}") for part in ("weight", "bias")}
    mapped |= {f"backbone.synthesis.conv.{part}": weights.take(f"deconv.{part}") for part in ("weight", "bias")}
    for index in range(args["n_layers"]):
        theirs, ours = f"blocks.{index}", f"backbone.blocks.{index}"
        mapped |= recurrent_weights(weights, f"{theirs}.intra", f"{ours}.along_bins", args)
        mapped |= recurrent_weights(weights, f"{theirs}.inter", f"{ours}.along_frames", args)
        mapped |= attention_weights(weights, theirs, f"{ours}.attention")
    return mapped


def recurrent_weights(weights: PublicWeights, theirs: str, ours: str, args: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of one recurrent layer under our names.

    Ours sees the elements of a step channel by channel (`dim · kernel + place`). Theirs does so where steps overlap;
    where `emb_ks` is `emb_hs`, it sees them place by place, and ends in a linear layer instead of a transposed
    convolution.
    """
    kernel, hop, dim = args["emb_ks"], args["emb_hs"], args["emb_dim"]
    mapped = linear(weights, f"{theirs}_norm", f"{ours}.norm")
    recurrent = weights.take_all(f"{theirs}_rnn.")
    weight, bias = weights.take(f"{theirs}_linear.weight"), weights.take(f"{theirs}_linear.bias")
    if kernel == hop:
        recurrent = {
            name: tensor.unflatten(1, (kernel, dim)).transpose(1, 2).flatten(1) if "weight_ih" in name else tensor
            for name, tensor in recurrent.items()
        }
        mapped[f"{ours}.bias"] = bias.view(kernel, dim)
    else:
        weight = weight.permute(2, 1, 0).flatten(0, 1)
        mapped[f"{ours}.bias"] = bias.expand(hop, -1).clone()
    mapped[f"{ours}.linear.weight"] = weight
    return mapped | {f"{ours}.rnn.{name}": tensor for name, tensor in recurrent.items()}


def attention_weights(weights: PublicWeights, theirs: str, ours: str) -> dict[str, Tensor]:
    """The weights of one attention under our names."""
    mapped: dict[str, Tensor] = {}
    for letter, name in (("Q", "query"), ("K", "key"), ("V", "value")):
        mapped |= linear(weights, f"{theirs}.attn_conv_{letter}", f"{ours}.{name}.linear")
        mapped[f"{ours}.{name}.slope"] = weights.take(f"{theirs}.attn_norm_{letter}.act.weight").view(-1, 1, 1, 1)
        # [1, heads, channels, 1, bins] → [heads, 1, channels, bins]
        for part, public in (("weight", "gamma"), ("bias", "beta")):
            tensor = weights.take(f"{theirs}.attn_norm_{letter}.{public}")
            mapped[f"{ours}.{name}.{part}"] = tensor.squeeze(0).transpose(1, 2)
    mapped |= linear(weights, f"{theirs}.attn_concat_proj.0", f"{ours}.linear")
    mapped[f"{ours}.activation.weight"] = weights.take(f"{theirs}.attn_concat_proj.1.weight")
    # [1, channels, 1, bins] → [bins, channels]
    for part, public in (("weight", "gamma"), ("bias", "beta")):
        tensor = weights.take(f"{theirs}.attn_concat_proj.2.{public}")
        mapped[f"{ours}.norm.{part}"] = tensor[0, :, 0].T
    return mapped
