"""WeSep's `ConvTasNet`: plain, with a deep encoder, and as SpEx+ (`encoder_type` null, `Deep`, `Multi`).

The public separation network is one list, in order of computation: fusion layers, PReLUs, normalisations, stacks of
blocks, and blocks that fuse inside. So its weights are renamed by walking along that list; all other modules are
renamed by their first words, in the tables below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from wesep_py.common.errors import nearest
from wesep_py.interop.public_checkpoints import PublicWeights, UntranslatableError, complete_arguments
from wesep_py.interop.wesep_enrollment import (
    ENCODER_PREFIX,
    ENROLLMENT_DEFAULTS,
    FUSIONS,
    IGNORED_ARGUMENTS,
    PublicExtractor,
    PublicSignature,
    embedding_cue,
    enrollment_signature,
    enrollment_weights,
    fusion_weights,
    joint_encoder,
)

MULTI_KERNELS = (80, 160)
"""The longer two kernels of SpEx+, in samples, are fixed; the first is `L`."""
IN_BLOCK = "concatConv"
"""The fusion inside of the first block of each stack."""
NORMS = {"gLN": "global", "cLN": "frame", "BN": "batch"}
SPEX_FILTERS = 256
"""The one number of filters that the speaker network of the public SpEx+ runs with."""
ACTIVATIONS = ("relu", "sigmoid")
ENCODER_TYPES = (None, "Deep", "Multi")
CONV_TASNET_DEFAULTS: dict[str, Any] = {
    **ENROLLMENT_DEFAULTS,
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

# First words of the public names → of ours. Of two that begin alike, the shorter comes last.
OUTER_MODULES = {
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
BLOCK_LAYERS = {
    "conv1x1": "expand",
    "PReLU_1": "activation1",
    "norm_1": "norm1",
    "dwconv": "depthwise",
    "PReLU_2": "activation2",
    "norm_2": "norm2",
    "Output": "project",
    "Sc_conv": "skip",
}
FUSING_BLOCK_LAYERS = {
    "conv1x1": "expand",
    "prelu1": "activation1",
    "lnorm1": "norm1",
    "dconv": "depthwise",
    "prelu2": "activation2",
    "lnorm2": "norm2",
    "sconv": "project",
}
SPEX_SPEAKER_MODULES = {
    "aux_enc3.0.": "encoder.network.norm.",
    "aux_enc3.1.": "encoder.network.input.",
    "aux_enc3.5.": "encoder.network.output.",
}
SPEX_SPEAKER_LAYERS = {
    "conv1": "conv1",
    "batch_norm1": "norm1",
    "prelu1": "activation1",
    "conv2": "conv2",
    "batch_norm2": "norm2",
    "prelu2": "activation2",
    "conv_downsample": "shortcut",
}


def translate_conv_tasnet(
    args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Return the `ModelConfig` mapping for arguments of WeSep's `ConvTasNet`.

    Without joint training the embedding is computed elsewhere: `speaker` is `None`, and the cue knows the embedding's
    size.

    Args:
        args: the constructor's; and `sr`, the rate in Hz that it was trained at, which it has no argument for.
        encoder: model and arguments of the jointly trained speaker encoder, where it is not the one that `args` name.
        state_dict: not used; the arguments give all sizes.

    Raises:
        ConfigError: an unknown argument, or an option that has no counterpart here, or cannot run in WeSep.
    """
    args = complete_arguments(args, CONV_TASNET_DEFAULTS, IGNORED_ARGUMENTS)
    if problems := list(_problems(args)):
        raise UntranslatableError(problems)
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
        speaker = joint_encoder(args, encoder, {"sr": rate})
    elif args["joint_training"]:
        speaker = {"front_end": "backbone", "network": {"name": "spex_plus", "embedding_dim": args["spk_emb_dim"]}}
    fusion = "add" if inside else FUSIONS[args["spk_fuse_type"]]
    return {
        "sample_rate": rate,
        "normalise": "none",
        "highpass_hz": 0.0,
        "backbone": backbone,
        "speaker": speaker,
        "cues": [embedding_cue(args, fusion=fusion, points="all")],
    }


def conv_tasnet_signature(args: Mapping[str, Any]) -> PublicSignature:
    """Return what the public `forward` takes and returns.

    >>> conv_tasnet_signature({"encoder_type": None, "decoder_type": None, "joint_training": False})
    PublicSignature(enrollment='embedding', channel_axis=True, returns_embedding=False)
    """
    args = {**CONV_TASNET_DEFAULTS, **args}
    enrollment = enrollment_signature(args).enrollment
    return PublicSignature("waveform" if enrollment == "encoder" else enrollment, channel_axis=not args["encoder_type"])


def rename_conv_tasnet(
    state_dict: Mapping[str, Tensor], args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Return public weights under the names of `TargetSpeakerExtractor(translate_conv_tasnet(args))`.

    Raises:
        CheckpointError: a tensor is missing, or has no counterpart.
    """
    args, weights = {**CONV_TASNET_DEFAULTS, **args}, PublicWeights(state_dict)
    renamed = dict(_separation_weights(weights, state_dict, args["spk_fuse_type"]))
    if args["encoder_type"] == "Multi":
        # One layer here makes the masks of all three scales.
        for kind in ("weight", "bias"):
            renamed[f"backbone.mask.0.{kind}"] = torch.cat([weights.take(f"decoder.mask{i}.{kind}") for i in (1, 2, 3)])
    for theirs, ours in OUTER_MODULES.items():
        renamed |= {ours + name: value for name, value in weights.take_all(theirs).items()}
    renamed = {
        name: value if name.startswith("cues.") else _without_last_axis(value) for name, value in renamed.items()
    }
    spex_speaker = args["joint_training"] and not args["spk_feat"]
    if spex_speaker:
        renamed |= _spex_speaker_weights(PublicWeights(weights.take_all(ENCODER_PREFIX)))
        if args["multi_task"]:
            renamed |= weights.take_linear("pred_linear", "cues.0.classifier")
    public_speaker = args["joint_training"] and not spex_speaker
    renamed |= enrollment_weights(weights, {**args, "joint_training": public_speaker}, encoder)
    weights.check_all_taken()
    return renamed


CONV_TASNET = PublicExtractor(translate_conv_tasnet, rename_conv_tasnet, conv_tasnet_signature)


def _problems(args: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each value that has no counterpart here, or that cannot run in WeSep."""
    kind, fusion = args["encoder_type"] or None, args["spk_fuse_type"]
    if kind not in ENCODER_TYPES:
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
        yield "skip_con: true with concatConv and one block per stack has no output in WeSep; X of 2 or more is allowed"
    if args["joint_training"] and not args["spk_feat"]:
        if kind != "Multi":
            yield (
                "joint_training: true on waveforms cannot run in WeSep except with encoder_type 'Multi' (SpEx+); "
                "use that, or spk_feat: true"
            )
        elif args["N"] != SPEX_FILTERS:
            yield f"N: is {args['N']}; the speaker network of WeSep's SpEx+ runs only with {SPEX_FILTERS} filters"


def _without_last_axis(value: Tensor) -> Tensor:
    """Return weight and bias of a normalisation, `[channels, 1]` there, as `[channels]`; others as they are."""
    return value.squeeze(1) if value.dim() == 2 and value.shape[1] == 1 else value


def _separation_weights(
    weights: PublicWeights, names: Mapping[str, Tensor], fusion: str
) -> Iterator[tuple[str, Tensor]]:
    """Take the weights of `separation.separation`, walking along the list; yield our name and the tensor of each.

    With two stacks of three blocks, for example:

        before the block   fuse 0, PReLU, norm, stack of 3, fuse 1, PReLU, norm, stack of 3
        inside the block   block that fuses 0, stack of 2, block that fuses 1, stack of 2

    `block` counts blocks over all stacks, as ours do, and `point` fusion points.
    """
    parent = "separation.separation."
    block, point = 0, -1
    for index in sorted({int(name.split(".")[2]) for name in names if name.startswith(parent)}):
        place = f"{parent}{index}."
        if any(name.startswith(f"{place}fc.") for name in names):
            point += 1
            yield from fusion_weights(weights, f"{place}fc", f"cues.0.fusion.layers.{point}", fusion).items()
        elif f"{place}conv1x1.weight" in weights:
            point += 1
            yield from _fusing_block_weights(weights.take_all(place), block, point)
            block += 1
        elif any(name.startswith(f"{place}separation.") for name in names):
            stack = weights.take_all(f"{place}separation.")
            for name, value in stack.items():
                number, part, kind = name.split(".")
                yield f"backbone.blocks.{block + int(number)}.{BLOCK_LAYERS.get(part, part)}.{kind}", value
            block += len({name.split(".")[0] for name in stack})
        else:
            # Of these two, only the norm has a bias.
            layer = 1 if f"{place}bias" in weights else 0
            for kind, value in weights.take_all(place).items():
                yield f"backbone.fusion_norms.{point}.{layer}.{kind}", value


def _fusing_block_weights(tensors: Mapping[str, Tensor], block: int, point: int) -> Iterator[tuple[str, Tensor]]:
    """Split the first convolution of a block, which takes [h; e]: its columns for e are an additive fusion layer here.

    W[h; e] = Wₕh + Wₑe, so the block keeps Wₕ and the bias, and the fusion adds Wₑe, with a bias of zero.
    """
    channels = tensors["sconv.weight"].shape[0]
    for name, value in tensors.items():
        part, kind = name.split(".")
        if name == "conv1x1.weight":
            value, of_embedding = value.split([channels, value.shape[1] - channels], dim=1)
            yield f"cues.0.fusion.layers.{point}.linear.weight", of_embedding.squeeze(-1)
            yield f"cues.0.fusion.layers.{point}.linear.bias", torch.zeros(len(of_embedding))
        yield f"backbone.blocks.{block}.{FUSING_BLOCK_LAYERS.get(part, part)}.{kind}", value


def _spex_speaker_weights(weights: PublicWeights) -> dict[str, Tensor]:
    """Take all weights of the speaker network of SpEx+, and return them under our names."""
    renamed = {
        ours + name: value
        for theirs, ours in SPEX_SPEAKER_MODULES.items()
        for name, value in weights.take_all(theirs).items()
    }
    for block in range(3):
        for theirs, ours in SPEX_SPEAKER_LAYERS.items():
            layer = weights.take_all(f"aux_enc3.{block + 2}.{theirs}.")
            renamed |= {f"encoder.network.blocks.{block}.{ours}.{name}": value for name, value in layer.items()}
    weights.check_all_taken()
    return renamed
