"""WeSep's `ConvTasNet` (plain, with a deep encoder, and SpEx+) as a network of ours: arguments, and names of weights.

Its separation network is a list of fusion layers, PReLUs, norms, stacks of blocks and blocks that fuse inside, in order
of computation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from wesep_py.common.errors import nearest
from wesep_py.interop import wesep_enrollment
from wesep_py.interop.public_checkpoints import PublicWeights, UntranslatableError, complete, linear
from wesep_py.interop.wesep_enrollment import FUSIONS, Signature, fusion_weights

# WeSep gives kernels in samples; the longer two of SpEx+ are fixed.
MULTI_KERNELS = (80, 160)
IN_BLOCK = "concatConv"
NORMS = {"gLN": "global", "cLN": "frame", "BN": "batch"}
SPEX_FILTERS = 256
ACTIVATIONS = ("relu", "sigmoid")
ENCODERS = (None, "Deep", "Multi")
DEFAULTS: dict[str, Any] = {
    **wesep_enrollment.DEFAULTS,
    "N": 512,
    "L": 16,
    "B": 128,
    "H": 512,
    "P": 3,
    "X": 8,
    "R": 3,
    "norm": "gLN",
    "activate": "relu",
    "causal": False,
    "skip_con": False,
    "spk_fuse_type": IN_BLOCK,
    "multi_fuse": True,
    "use_spk_transform": True,
    "encoder_type": "Multi",
    "decoder_type": "Multi",
    "sr": 16000,
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
}
BLOCK = {
    "conv1x1": "expand",
    "PReLU_1": "activation1",
    "norm_1": "norm1",
    "dwconv": "depthwise",
    "PReLU_2": "activation2",
    "norm_2": "norm2",
    "Output": "project",
    "Sc_conv": "skip",
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
SPEAKER = {
    "aux_enc3.0.": "encoder.network.norm.",
    "aux_enc3.1.": "encoder.network.input.",
    "aux_enc3.5.": "encoder.network.output.",
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


def translate(
    args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Arguments of WeSep's `ConvTasNet` → a `ModelConfig` mapping.

    Without joint training the embedding is computed elsewhere: `speaker` is `None`, and the cue knows the embedding's
    size.

    Args:
        args: the constructor's; and `sr`, the rate in Hz that it was trained at, of which it is not told.
        encoder: model and arguments of the jointly trained speaker encoder, where it is not the one that `args` name.
        state_dict: not used: the arguments say it all.

    Raises:
        ConfigError: an unknown argument, or an option that has no counterpart here, or cannot run in WeSep.
    """
    args = complete(args, DEFAULTS, wesep_enrollment.INERT)
    if refused := list(_refusals(args)):
        raise UntranslatableError(refused)
    kind, inside, norm, rate = args["encoder_type"], args["spk_fuse_type"] == IN_BLOCK, NORMS[args["norm"]], args["sr"]
    kernels = (args["L"], *MULTI_KERNELS) if kind == "Multi" else (args["L"],)
    backbone = {
        "name": "conv_tasnet",
        "kernels_ms": [kernel * 1000 / rate for kernel in kernels],
        "hop_ms": args["L"] // 2 * 1000 / rate,
        "num_filters": args["N"],
        "bottleneck": args["B"],
        "hidden": args["H"],
        "kernel": args["P"],
        "blocks_per_stack": args["X"],
        "num_stacks": args["R"],
        "norm": norm,
        "input_norm": "frame" if kind == "Multi" else norm,
        "fusion_place": "inside" if inside else "before",
        "fusion_norm": not inside,
        "skip": args["skip_con"],
        "mask_activation": args["activate"],
        "deep": kind == "Deep",
        "basis_bias": True,
        "drop_last": True,
        "causal": args["causal"],
    }
    speaker = None
    if args["joint_training"] and args["spk_feat"]:
        speaker = wesep_enrollment.speaker(args, encoder, {"sr": rate})
    elif args["joint_training"]:
        speaker = {"front_end": "backbone", "network": {"name": "spex_plus", "embedding_dim": args["spk_emb_dim"]}}
    fusion = "add" if inside else FUSIONS[args["spk_fuse_type"]]
    return {
        "sample_rate": rate,
        "normalise": "none",
        "highpass_hz": 0.0,
        "backbone": backbone,
        "speaker": speaker,
        "cues": [wesep_enrollment.cue(args, fusion=fusion, points="all")],
    }


def signature(args: Mapping[str, Any]) -> Signature:
    """What the public `forward` takes and returns.

    >>> signature({"encoder_type": None, "decoder_type": None, "joint_training": False})
    Signature(enrolled='embedding', channel=True, embedding=False)
    """
    args = {**DEFAULTS, **args}
    taken = wesep_enrollment.signature(args).enrolled
    return Signature("waveform" if taken == "encoder" else taken, channel=not args["encoder_type"])


def rename(
    state_dict: Mapping[str, Tensor], args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
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
    mapped = {name: value if name.startswith("cues.") else _without_last_axis(value) for name, value in mapped.items()}
    own = args["joint_training"] and not args["spk_feat"]
    if own:
        mapped |= _speaker_weights(PublicWeights(weights.take_all(wesep_enrollment.ENCODER)))
        if args["multi_task"]:
            mapped |= linear(weights, "pred_linear", "cues.0.classifier")
    mapped |= wesep_enrollment.weights(weights, {**args, "joint_training": args["joint_training"] and not own}, encoder)
    weights.check_all_taken()
    return mapped


def _speaker_weights(weights: PublicWeights) -> dict[str, Tensor]:
    mapped = {ours + rest: v for theirs, ours in SPEAKER.items() for rest, v in weights.take_all(theirs).items()}
    for block in range(3):
        for theirs, ours in SPEAKER_BLOCK.items():
            taken = weights.take_all(f"aux_enc3.{block + 2}.{theirs}.")
            mapped |= {f"encoder.network.blocks.{block}.{ours}.{rest}": value for rest, value in taken.items()}
    weights.check_all_taken()
    return mapped


def _refusals(args: Mapping[str, Any]) -> Iterator[str]:
    """What has no counterpart here, and what cannot run in WeSep, a line each."""
    kind, fusion = args["encoder_type"] or None, args["spk_fuse_type"]
    if kind not in ENCODERS:
        yield f"encoder_type: is {kind!r}; null, 'Deep' or 'Multi' can be translated"
    if (args["decoder_type"] or None) != kind:
        yield f"decoder_type: is {args['decoder_type']!r}; it can only be the encoder's, {kind!r}"
    if fusion not in (*FUSIONS, IN_BLOCK):
        yield f"spk_fuse_type: no fusion is called {fusion!r}; {nearest(fusion, (*FUSIONS, IN_BLOCK))}"
    if args["norm"] not in NORMS:
        yield f"norm: is {args['norm']!r}; {', '.join(map(repr, NORMS))} can be translated"
    if args["activate"] == "softmax":
        yield "activate: 'softmax' runs over the recordings of a batch in WeSep; 'relu' or 'sigmoid' can be translated"
    elif args["activate"] not in ACTIVATIONS:
        yield f"activate: is {args['activate']!r}; 'relu' or 'sigmoid' can be translated"
    if args["causal"] and args["norm"] == "gLN":
        yield "norm: 'gLN' averages over time, which a causal network cannot; 'cLN' or 'BN' can be translated"
    if args["causal"] and kind == "Deep":
        yield "encoder_type: 'Deep' looks ahead, which a causal network cannot; null or 'Multi' can be translated"
    if not args["multi_fuse"]:
        yield "multi_fuse: false cannot run in WeSep, whose ConvTasNet then loses its fusion layer; true is translated"
    if args["skip_con"] and fusion == IN_BLOCK and args["X"] == 1:
        yield "skip_con: true with one block a stack and concatConv passes nothing on in WeSep; X from 2 up is allowed"
    if args["joint_training"] and not args["spk_feat"]:
        if kind != "Multi":
            yield (
                "joint_training: true on waveforms cannot run in WeSep but with encoder_type 'Multi' (SpEx+); "
                "use that, or spk_feat: true"
            )
        elif args["N"] != SPEX_FILTERS:
            yield f"N: is {args['N']}; the speaker network of WeSep's SpEx+ runs with {SPEX_FILTERS} filters alone"


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
