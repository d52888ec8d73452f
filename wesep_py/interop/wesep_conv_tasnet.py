"""WeSep's `ConvTasNet` (plain, with a deep encoder, and SpEx+) as a network of ours: arguments, and names of weights.

Its separation network is a list of fusion layers, PReLUs, norms, stacks of blocks and blocks that fuse inside, in order
of computation. How they are grouped depends on `multi_fuse` and `spk_fuse_type`; their order does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from wesep_py.errors import ConfigError, nearest
from wesep_py.interop.weights import PublicWeights
from wesep_py.interop.wesep_bsrnn import FUSIONS, fusion_weights

# WeSep gives kernels in samples and trains at 16 kHz; the longer two of SpEx+ are fixed.
SAMPLE_RATE = 16000
MULTI_KERNELS = (80, 160)
IN_BLOCK = "concatConv"
NORMS = {"gLN": "global", "cLN": "frame"}
ACTIVATIONS = ("relu", "sigmoid")
ENCODERS = (None, "Deep", "Multi")
DEFAULTS: dict[str, Any] = {
    "N": 512,
    "L": 16,
    "B": 128,
    "H": 512,
    "P": 3,
    "X": 8,
    "R": 3,
    "spk_emb_dim": 256,
    "norm": "gLN",
    "activate": "relu",
    "causal": False,
    "skip_con": False,
    "spk_fuse_type": IN_BLOCK,
    "multi_fuse": True,
    "use_spk_transform": False,
    "encoder_type": "Multi",
    "decoder_type": "Multi",
    "joint_training": True,
    "multi_task": False,
    "spk_feat": False,
}

# What the names of their modules begin with, and ours; the shorter of two that begin alike comes last.
OUTER = {
    "encoder.encoder_1d_short.": "backbone.bases.0.filters.",
    "encoder.encoder_1d_middle.": "backbone.bases.1.filters.",
    "encoder.encoder_1d_long.": "backbone.bases.2.filters.",
    "encoder.ln.": "backbone.input.0.",
    "encoder.proj.": "backbone.input.1.",
    "encoder.0.": "backbone.bases.0.filters.",
    "encoder.sequential.0.": "backbone.bases.0.filters.",
    **{f"encoder.sequential.{i + 1}.": f"backbone.bases.0.layers.{i}." for i in range(8)},
    "LayerN_S.": "backbone.input.0.",
    "BottleN_S.": "backbone.input.1.",
    "gen_masks.": "backbone.mask.0.",
    "decoder.decoder_1d_1.": "backbone.decoders.0.filters.",
    "decoder.decoder_1d_2.": "backbone.decoders.1.filters.",
    "decoder.decoder_1d_3.": "backbone.decoders.2.filters.",
    **{f"decoder.sequential.{i}.": f"backbone.decoders.0.layers.{i}." for i in range(8)},
    "decoder.sequential.8.": "backbone.decoders.0.filters.",
    "decoder.": "backbone.decoders.0.filters.",
    "spk_model.aux_enc3.0.": "encoder.network.norm.",
    "spk_model.aux_enc3.1.": "encoder.network.input.",
    "spk_model.aux_enc3.5.": "encoder.network.output.",
}
BLOCK = {
    "conv1x1": "expand",
    "PReLU_1": "activation1",
    "norm_1": "norm1",
    "dwconv": "depthwise",
    "PReLU_2": "activation2",
    "norm_2": "norm2",
    "Output": "project",
}
FUSING_BLOCK = {
    "conv1x1": "expand",
    "prelu1": "activation1",
    "lnorm1": "norm1",
    "dconv": "depthwise",
    "prelu2": "activation2",
    "lnorm2": "norm2",
    "sconv": "project",
}
SPEAKER_BLOCK = {
    "conv1": "conv1",
    "batch_norm1": "norm1",
    "prelu1": "activation1",
    "conv2": "conv2",
    "batch_norm2": "norm2",
    "prelu2": "activation2",
    "conv_downsample": "shortcut",
}


def translate(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of WeSep's `ConvTasNet` → a `ModelConfig` mapping.

    Without joint training the embedding is computed elsewhere: `speaker` is `None`, and the cue knows the embedding's
    size.

    Raises:
        ConfigError: an option that ours does not have (`skip_con`, `use_spk_transform`, batch normalisation, …).
    """
    args = {**DEFAULTS, **args}
    _refuse(args)
    encoder, inside, norm = args["encoder_type"], args["spk_fuse_type"] == IN_BLOCK, NORMS[args["norm"]]
    kernels = (args["L"], *MULTI_KERNELS) if encoder == "Multi" else (args["L"],)
    backbone = {
        "name": "conv_tasnet",
        "kernels_ms": [kernel * 1000 / SAMPLE_RATE for kernel in kernels],
        "hop_ms": args["L"] // 2 * 1000 / SAMPLE_RATE,
        "num_filters": args["N"],
        "bottleneck": args["B"],
        "hidden": args["H"],
        "kernel": args["P"],
        "blocks_per_stack": args["X"],
        "num_stacks": args["R"],
        "norm": norm,
        "input_norm": "frame" if encoder == "Multi" else norm,
        "fusion_blocks": None if args["multi_fuse"] else [0],
        "fusion_place": "inside" if inside else "before",
        "fusion_norm": not inside,
        "mask_activation": args["activate"],
        "deep": encoder == "Deep",
        "basis_bias": True,
        "drop_last": True,
        "causal": args["causal"],
    }
    cue = {"name": "embedding", "fusion": "add" if inside else FUSIONS[args["spk_fuse_type"]], "points": "all"}
    speaker = None
    if args["joint_training"]:
        network = {"name": "spex_plus", "embedding_dim": args["spk_emb_dim"]}
        speaker = {"front_end": "backbone", "network": network}
    else:
        cue["embedding_dim"] = args["spk_emb_dim"]
    return {
        "sample_rate": SAMPLE_RATE,
        "normalise": "none",
        "backbone": backbone,
        "speaker": speaker,
        "cues": [cue],
    }


def signature(args: Mapping[str, Any]) -> tuple[Literal["waveform", "embedding"], bool]:
    """What the public `forward` takes beside the mixture, and whether it returns `[batch, 1, samples]`.

    >>> signature({"encoder_type": None, "decoder_type": None, "joint_training": False})
    ('embedding', True)
    """
    args = {**DEFAULTS, **args}
    return "waveform" if args["joint_training"] else "embedding", args["encoder_type"] is None


def rename(state_dict: Mapping[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
    """WeSep's weights under the names of `TargetSpeakerExtractor(translate(args))`.

    Raises:
        CheckpointError: a tensor is missing, or finds no place.
    """
    args, weights = {**DEFAULTS, **args}, PublicWeights(state_dict)
    mapped = dict(_separation(weights, state_dict, args["spk_fuse_type"]))
    if args["encoder_type"] == "Multi":
        for kind in ("weight", "bias"):
            mapped[f"backbone.mask.0.{kind}"] = torch.cat([weights.take(f"decoder.mask{i}.{kind}") for i in (1, 2, 3)])
    for theirs, ours in OUTER.items():
        mapped |= {ours + rest: value for rest, value in weights.take_all(theirs).items()}
    for block in range(3):
        for theirs, ours in SPEAKER_BLOCK.items():
            taken = weights.take_all(f"spk_model.aux_enc3.{block + 2}.{theirs}.")
            mapped |= {f"encoder.network.blocks.{block}.{ours}.{rest}": value for rest, value in taken.items()}
    weights.check_all_taken()
    return {name: value if name.startswith("cues.") else _without_last_axis(value) for name, value in mapped.items()}


def _refuse(args: Mapping[str, Any]) -> None:
    encoder, fusion = args["encoder_type"], args["spk_fuse_type"]
    if encoder not in ENCODERS:
        raise ConfigError(f"encoder_type: is {encoder!r}; null, 'Deep' or 'Multi' can be translated")
    if args["decoder_type"] != encoder:
        raise ConfigError(f"decoder_type: is {args['decoder_type']!r}; it can only be the encoder's, {encoder!r}")
    if fusion not in (*FUSIONS, IN_BLOCK):
        raise ConfigError(f"spk_fuse_type: no fusion is called {fusion!r}; {nearest(fusion, (*FUSIONS, IN_BLOCK))}")
    if args["norm"] not in NORMS:
        raise ConfigError(f"norm: is {args['norm']!r}; 'gLN' or 'cLN' can be translated")
    if args["activate"] not in ACTIVATIONS:
        raise ConfigError(f"activate: is {args['activate']!r}; 'relu' or 'sigmoid' can be translated")
    if args["causal"] and args["norm"] == "gLN":
        raise ConfigError("norm: 'gLN' averages over time, which a causal network cannot; 'cLN' can be translated")
    for key in ("skip_con", "use_spk_transform", "spk_feat", "multi_task"):
        if args[key]:
            raise ConfigError(
                f"{key}: true cannot be translated; only ConvTasNet checkpoints with {key}: false are read"
            )
    if args["joint_training"] and encoder != "Multi":
        raise ConfigError("joint_training: true can be translated with encoder_type 'Multi' (SpEx+) alone")


def _without_last_axis(value: Tensor) -> Tensor:
    """The weight and bias of a norm are `[channels, 1]` there, `[channels]` here; others as they are."""
    return value.squeeze(1) if value.dim() == 2 and value.shape[1] == 1 else value


def _separation(weights: PublicWeights, names: Mapping[str, Tensor], fusion: str) -> Iterator[tuple[str, Tensor]]:
    """(our name, tensor) of everything in `separation.separation`, walked in order of computation."""
    parent = "separation.separation."
    block, point = 0, -1
    for index in sorted({int(name.split(".")[2]) for name in names if name.startswith(parent)}):
        place = f"{parent}{index}."
        if any(name.startswith(f"{place}fc.") for name in names):
            point += 1
            yield from fusion_weights(weights, f"{place}fc", f"cues.0.fusion.layers.{point}", fusion).items()
        elif f"{place}conv1x1.weight" in weights:
            point += 1
            yield from _fusing_block(weights.take_all(place), block, point)
            block += 1
        elif any(name.startswith(f"{place}separation.") for name in names):
            stack = weights.take_all(f"{place}separation.")
            for name, value in stack.items():
                number, part, kind = name.split(".")
                yield f"backbone.blocks.{block + int(number)}.{BLOCK.get(part, part)}.{kind}", value
            block += len({name.split(".")[0] for name in stack})
        else:
            layer = 1 if f"{place}bias" in weights else 0  # the PReLU, and the norm after it
            for kind, value in weights.take_all(place).items():
                yield f"backbone.fusion_norms.{point}.{layer}.{kind}", value


def _fusing_block(taken: Mapping[str, Tensor], block: int, point: int) -> Iterator[tuple[str, Tensor]]:
    """A block whose first convolution takes [h; e]: what it does to h stays in the block, what to e is the fusion's."""
    channels = taken["sconv.weight"].shape[0]
    for name, value in taken.items():
        part, kind = name.split(".")
        if name == "conv1x1.weight":
            of_h, of_e = value.split([channels, value.shape[1] - channels], dim=1)
            yield f"cues.0.fusion.layers.{point}.linear.weight", of_e.squeeze(-1)
            yield f"cues.0.fusion.layers.{point}.linear.bias", torch.zeros(len(of_e))
            value = of_h
        yield f"backbone.blocks.{block}.{FUSING_BLOCK.get(part, part)}.{kind}", value
