"""WeSep's networks that mask or map spectra, as tables: BSRNN, DPCCN and TF-GridNet.

Each is a `SpectralNetwork`: its arguments with their public defaults, our backbone for them, and a function that takes
the backbone's weights out of the public ones. What they share (the enrollment, the fusion layers, the frame around the
backbone) is written once. BSRNN's functions serve real-TSE too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from wesep_py.interop.public_checkpoints import PublicWeights, complete_arguments
from wesep_py.interop.wesep_enrollment import (
    ENROLLMENT_DEFAULTS,
    IGNORED_ARGUMENTS,
    PublicExtractor,
    embedding_cue,
    enrollment_signature,
    enrollment_weights,
    fusion_weights,
    joint_encoder,
    translate_fusion,
)
from wesep_py.network.backbones.spectrum import STANDARD_BANDS, band_widths, group_bands

AFFINE = (("weight", "gamma"), ("bias", "beta"))
"""Our names and theirs of the parameters of TF-GridNet's normalisations."""


@dataclass(frozen=True)
class SpectralNetwork:
    """A public network of one backbone and one embedding cue.

    Attributes:
        defaults: its arguments beside those of the enrollment, with their public defaults.
        backbone: completed arguments → the backbone's configuration.
        backbone_weights: takes the backbone's weights, for completed arguments, and returns them under our names.
        only: arguments → those of which our backbone can be built with one value alone, and that value.
        fusion_layers: completed arguments → the public names of the fusion layers, in order.
        cue: completed arguments → arguments of the cue.
        window: the argument that holds the window's length in samples.
        normalise: how the input is normalised.
        ignored: arguments that change nothing that is computed.
    """

    defaults: Mapping[str, Any]
    backbone: Callable[[Mapping[str, Any]], dict[str, Any]]
    backbone_weights: Callable[[PublicWeights, Mapping[str, Any]], dict[str, Tensor]]
    only: Callable[[Mapping[str, Any]], Mapping[str, Any]] = field(default=lambda args: {})
    fusion_layers: Callable[[Mapping[str, Any]], list[str]] = field(default=lambda args: ["spk_fuse.fc"])
    cue: Callable[[Mapping[str, Any]], dict[str, Any]] = field(default=lambda args: {"points": "all"})
    window: str = "win"
    normalise: str = "none"
    ignored: frozenset[str] = IGNORED_ARGUMENTS

    def mel(self, args: Mapping[str, Any]) -> dict[str, int]:
        """Return rate, window and hop of the features that the network makes of an enrollment."""
        return {"sr": args["sr"], "win": args[self.window], "stride": args["stride"]}


def translate_spectral(
    network: SpectralNetwork,
    args: Mapping[str, Any],
    encoder: Mapping[str, Any] | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Return the `ModelConfig` mapping for a public network's arguments; see `PublicExtractor`.

    Raises:
        ConfigError: an unknown argument or fusion, or a value that has no counterpart here.
    """
    args = {key: list(value) if isinstance(value, tuple) else value for key, value in args.items()}
    defaults = {**ENROLLMENT_DEFAULTS, **network.defaults}
    args = complete_arguments(args, defaults, network.ignored, network.only(args))
    return {
        "sample_rate": args["sr"],
        "normalise": network.normalise,
        "highpass_hz": 0.0,
        "backbone": network.backbone(args),
        "speaker": joint_encoder(args, encoder, network.mel(args)) if args["joint_training"] else None,
        "cues": [embedding_cue(args, fusion=translate_fusion(args["spk_fuse_type"]), **network.cue(args))],
    }


def rename_spectral(
    network: SpectralNetwork,
    state_dict: Mapping[str, Tensor],
    args: Mapping[str, Any],
    encoder: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Return a public network's weights under our names; see `PublicExtractor`.

    Raises:
        CheckpointError: a tensor is missing, or has no counterpart.
    """
    args = {**ENROLLMENT_DEFAULTS, **network.defaults, **args}
    weights = PublicWeights(state_dict)
    renamed = network.backbone_weights(weights, args)
    for index, theirs in enumerate(network.fusion_layers(args)):
        renamed |= fusion_weights(weights, theirs, f"cues.0.fusion.layers.{index}", args["spk_fuse_type"])
    renamed |= enrollment_weights(weights, args, encoder, network.mel(args))
    weights.check_all_taken()
    return renamed


def _extractor(network: SpectralNetwork) -> PublicExtractor:
    return PublicExtractor(
        partial(translate_spectral, network), partial(rename_spectral, network), enrollment_signature
    )


def _milliseconds(args: Mapping[str, Any], window: str = "win") -> dict[str, float]:
    """Return window and hop of an STFT, which WeSep gives in samples."""
    return {"window_ms": 1000 * args[window] / args["sr"], "hop_ms": 1000 * args["stride"] / args["sr"]}


# BSRNN (Luo & Yu, 2023). Its separator is a list of blocks with a fusion layer before each (`multi_fuse`), or one
# before all of them:
#
#     multi_fuse: true     fuse 0, block 0, fuse 1, block 1, …     places 0, 1, 2, 3, …
#     multi_fuse: false    fuse 0, block 0, block 1, …             places 0, 1, 2, …


def wesep_bands(sample_rate: int) -> list[list[float]]:
    """Return WeSep's band list: the standard one, and all that is left up to Nyquist as a single band."""
    return [[float(width_hz), count] for width_hz, count in STANDARD_BANDS] + [[sample_rate / 2, 1]]


def bsrnn_backbone(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the backbone's configuration, which WeSep's and real-TSE's BSRNN share."""
    return {
        "name": "bsrnn",
        **_milliseconds(args),
        "bands": wesep_bands(args["sr"]),
        "feature_dim": args["feature_dim"],
        "num_blocks": args["num_repeat"],
        "pad_mode": "reflect",
    }


def bsrnn_backbone_weights(
    weights: PublicWeights, args: Mapping[str, Any], split: str, mask: str, blocks: list[str]
) -> dict[str, Tensor]:
    """Take the backbone's weights, and return them under our names.

    Args:
        weights: the public ones.
        args: `sr` and `win`, which say how wide the bands are.
        split, mask: public names of the modules of a band, with `{}` for its number.
        blocks: public names of the blocks.
    """
    widths = band_widths(args["sr"], args["win"] // 2 + 1, wesep_bands(args["sr"]))
    renamed = _band_weights(weights, split, "backbone.split.{}", widths, {0: "norm", 1: "linear"})
    mask_layers = {number: f"layers.{number}" for number in (0, 1, 3, 5)}
    renamed |= _band_weights(weights, mask, "backbone.masks.{}", widths, mask_layers)
    for index, block in enumerate(blocks):
        for theirs, ours in (("band_rnn", "along_time"), ("band_comm", "across_bands")):
            target = f"backbone.blocks.{index}.{ours}"
            renamed |= weights.take_linear(f"{block}.{theirs}.norm", f"{target}.norm")
            renamed |= weights.take_linear(f"{block}.{theirs}.proj", f"{target}.linear")
            recurrent = weights.take_all(f"{block}.{theirs}.rnn.")
            renamed |= {f"{target}.rnn.{name}": tensor for name, tensor in recurrent.items()}
    return renamed


def _band_weights(
    weights: PublicWeights, theirs: str, ours: str, widths: list[int], layers: Mapping[int, str]
) -> dict[str, Tensor]:
    """Stack the weights of bands of one width: a `Sequential` per band → one batched layer per group of bands.

    Args:
        weights: the public ones.
        theirs, ours: names, in which `{}` stands for the number of the band, and of the group.
        widths: number of bins of each band.
        layers: index in their `Sequential` → our layer's name.
    """
    renamed: dict[str, Tensor] = {}
    first = 0
    for index, group in enumerate(group_bands(widths)):
        bands = range(first, first + group.count)
        first += group.count
        for number, name in layers.items():
            weight = weights.take_stacked(f"{theirs.format(band)}.{number}.weight" for band in bands)
            bias = weights.take_stacked(f"{theirs.format(band)}.{number}.bias" for band in bands)
            # A convolution's weight is [bands, out, in, 1], ours [bands, in, out]; a normalisation's [bands, features].
            target = f"{ours.format(index)}.{name}"
            renamed[f"{target}.weight"] = weight.squeeze(-1).transpose(1, 2) if weight.dim() == 4 else weight[:, None]
            renamed[f"{target}.bias"] = bias[:, None]
    return renamed


def _bsrnn_weights(weights: PublicWeights, args: Mapping[str, Any]) -> dict[str, Tensor]:
    places = [2 * i + 1 if args["multi_fuse"] else i + 1 for i in range(args["num_repeat"])]
    blocks = [f"separator.separation.{place}" for place in places]
    return bsrnn_backbone_weights(weights, args, split="BN.{}", mask="mask.{}", blocks=blocks)


def _bsrnn_fusion_layers(args: Mapping[str, Any]) -> list[str]:
    places = range(0, 2 * args["num_repeat"], 2) if args["multi_fuse"] else [0]
    return [f"separator.separation.{place}.fc" for place in places]


BSRNN = _extractor(
    SpectralNetwork(
        defaults={
            "sr": 16000,
            "win": 512,
            "stride": 128,
            "feature_dim": 128,
            "num_repeat": 6,
            "use_spk_transform": True,
            "spk_fuse_type": "concat",
            "multi_fuse": True,
        },
        backbone=bsrnn_backbone,
        backbone_weights=_bsrnn_weights,
        fusion_layers=_bsrnn_fusion_layers,
        cue=lambda args: {"points": "all" if args["multi_fuse"] else "first"},
        ignored=IGNORED_ARGUMENTS | {"use_bidirectional"},
    )
)


# DPCCN (Han et al., 2022).

DENSE_LEVELS, DEEP_LEVELS, DENSE_LAYERS, POOL_SIZES = 4, 3, 5, 4


def _dpccn_only(args: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kernel_size": [3, 3],
        "stride1": [1, 1],
        "stride2": [1, 2],
        "paddings": [1, 1],
        "output_padding": [0, 0],
        "tcn_dims": 384,
        "causal": False,
        "pool_size": [4, 8, 16, 32],
        "feature_dim": args.get("win", 512) // 2 + 1,
    }


def _dpccn_backbone(args: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": "dpccn",
        **_milliseconds(args),
        "window": "hann",
        "pad_mode": "reflect",
        "pad_bins": True,
        "tcn_repeats": args["tcn_layers"],
        "tcn_blocks": args["tcn_blocks"],
        "fuse_along": "bins",
    }


def _dpccn_weights(weights: PublicWeights, args: Mapping[str, Any]) -> dict[str, Tensor]:
    names = {"conv2d": "convolution", "avg_proj": "pyramid.project", "deconv2d": "synthesis.conv"}
    names |= {f"avg_pool.{i}.1": f"pyramid.reduce.{i}" for i in range(POOL_SIZES)}
    # Levels of the U-Net. The outermost dense blocks, which keep all bins, have names of their own here; both decoders
    # count from the deepest level:
    #
    #     theirs   encoder.0   1        2   …   7          decoder.0   1   …   6      7
    #     ours     first       down.0   1   …   6          up.0        1   …   6      last
    names |= _dense_block("encoder.0", "first")
    for level in range(1, DENSE_LEVELS + DEEP_LEVELS + 1):
        dense = level <= DENSE_LEVELS
        down, up = f"encoder.{level}", f"decoder.{DENSE_LEVELS + DEEP_LEVELS - level}"
        ours_down, ours_up = f"down.{level - 1}", f"up.{DENSE_LEVELS + DEEP_LEVELS - level}"
        names[f"{down}.0.conv2d" if dense else f"{down}.conv2d"] = f"{ours_down}.resize.conv"
        names[f"{up}.1.convtrans2d" if dense else f"{up}.convtrans2d"] = f"{ours_up}.resize.conv"
        if dense:
            names |= _dense_block(f"{down}.1", f"{ours_down}.dense") | _dense_block(f"{up}.0", f"{ours_up}.dense")
    names |= _dense_block(f"decoder.{DENSE_LEVELS + DEEP_LEVELS}", "last")
    for repeat in range(args["tcn_layers"]):
        for block in range(args["tcn_blocks"]):
            theirs, ours = f"tcn_layers.{repeat}.{block}", f"tcn.{repeat * args['tcn_blocks'] + block}"
            names |= {f"{theirs}.dconv1": f"{ours}.depthwise", f"{theirs}.dconv2": f"{ours}.pointwise"}
    return {
        f"backbone.{ours}.{part}": weights.take(f"{theirs}.{part}")
        for theirs, ours in names.items()
        for part in ("weight", "bias")
    }


def _dense_block(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.conv{i + 1}.conv2d": f"{ours}.layers.{i}.conv" for i in range(DENSE_LAYERS)}


DPCCN = _extractor(
    SpectralNetwork(
        defaults={"sr": 16000, "win": 512, "stride": 128, "tcn_blocks": 10, "tcn_layers": 2},
        only=_dpccn_only,
        backbone=_dpccn_backbone,
        backbone_weights=_dpccn_weights,
    )
)


# TF-GridNet (Wang et al., 2023).


def _tf_gridnet_backbone(args: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": "tf_gridnet",
        **_milliseconds(args, "n_fft"),
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


def _tf_gridnet_weights(weights: PublicWeights, args: Mapping[str, Any]) -> dict[str, Tensor]:
    renamed = {f"backbone.convolution.{part}": weights.take(f"conv.0.{part}") for part in ("weight", "bias")}
    renamed |= {f"backbone.norm_{part}": weights.take(f"conv.1.{part}") for part in ("weight", "bias")}
    renamed |= {f"backbone.synthesis.conv.{part}": weights.take(f"deconv.{part}") for part in ("weight", "bias")}
    for index in range(args["n_layers"]):
        theirs, ours = f"blocks.{index}", f"backbone.blocks.{index}"
        renamed |= tf_gridnet_recurrent_weights(weights, f"{theirs}.intra", f"{ours}.along_bins", args)
        renamed |= tf_gridnet_recurrent_weights(weights, f"{theirs}.inter", f"{ours}.along_frames", args)
        renamed |= _tf_gridnet_attention_weights(weights, theirs, f"{ours}.attention")
    return renamed


def tf_gridnet_recurrent_weights(
    weights: PublicWeights, theirs: str, ours: str, args: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Take the weights of one recurrent layer, and return them under our names.

    The input of a step is `kernel` places of `dim` channels. Our layer takes them channel by channel
    (index `channel · kernel + place`). Theirs does so where steps overlap; where `emb_ks` is `emb_hs`, it takes them
    place by place, and ends in a linear layer instead of a transposed convolution.
    """
    kernel, hop, dim = args["emb_ks"], args["emb_hs"], args["emb_dim"]
    renamed = weights.take_linear(f"{theirs}_norm", f"{ours}.norm")
    recurrent = weights.take_all(f"{theirs}_rnn.")
    weight, bias = weights.take(f"{theirs}_linear.weight"), weights.take(f"{theirs}_linear.bias")
    if kernel == hop:
        recurrent = {
            name: tensor.unflatten(1, (kernel, dim)).transpose(1, 2).flatten(1) if "weight_ih" in name else tensor
            for name, tensor in recurrent.items()
        }
        renamed[f"{ours}.bias"] = bias.view(kernel, dim)
    else:
        weight = weight.permute(2, 1, 0).flatten(0, 1)  # [hidden, dim, kernel] → [kernel · dim, hidden]
        renamed[f"{ours}.bias"] = bias.expand(hop, -1).clone()
    renamed[f"{ours}.linear.weight"] = weight
    return renamed | {f"{ours}.rnn.{name}": tensor for name, tensor in recurrent.items()}


def _tf_gridnet_attention_weights(weights: PublicWeights, theirs: str, ours: str) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for letter, name in (("Q", "query"), ("K", "key"), ("V", "value")):
        renamed |= weights.take_linear(f"{theirs}.attn_conv_{letter}", f"{ours}.{name}.linear")
        renamed[f"{ours}.{name}.slope"] = weights.take(f"{theirs}.attn_norm_{letter}.act.weight").view(-1, 1, 1, 1)
        for part, public in AFFINE:  # [1, heads, channels, 1, bins] → [heads, 1, channels, bins]
            tensor = weights.take(f"{theirs}.attn_norm_{letter}.{public}")
            renamed[f"{ours}.{name}.{part}"] = tensor.squeeze(0).transpose(1, 2)
    renamed |= weights.take_linear(f"{theirs}.attn_concat_proj.0", f"{ours}.linear")
    renamed[f"{ours}.activation.weight"] = weights.take(f"{theirs}.attn_concat_proj.1.weight")
    for part, public in AFFINE:  # [1, channels, 1, bins] → [bins, channels]
        renamed[f"{ours}.norm.{part}"] = weights.take(f"{theirs}.attn_concat_proj.2.{public}")[0, :, 0].T
    return renamed


TF_GRIDNET = _extractor(
    SpectralNetwork(
        defaults={
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
        },
        only=lambda args: {"n_srcs": 1, "n_imics": 1, "window": "hann", "activation": "prelu", "eps": 1e-5},
        backbone=_tf_gridnet_backbone,
        backbone_weights=_tf_gridnet_weights,
        cue=lambda args: {"points": "all", "shared": True},
        window="n_fft",
        normalise="std",
    )
)
