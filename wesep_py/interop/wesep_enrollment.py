"""The part of WeSep's networks that knows the target speaker: arguments, weights and the public call signature.

A public network takes an embedding (`joint_training: false`), or has a speaker network of its own. Then it takes a
filterbank (`spk_feat: true`), or a waveform that it makes a filterbank of. `use_spk_transform` puts layers after the
embedding, `spk_fuse_type` says how it is fused, and `multi_task` adds a classifier of the training speakers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from wesep_py.common.errors import CheckpointError, ConfigError, nearest
from wesep_py.features import WesepMel
from wesep_py.interop.public_checkpoints import PublicWeights
from wesep_py.interop.wespeaker_networks import num_mel_bins, rename_encoder, translate_encoder

FUSIONS = {"concat": "concat", "additive": "add", "multiply": "multiply", "FiLM": "film"}
ENROLLMENT_DEFAULTS: dict[str, Any] = {
    "spk_emb_dim": 256,
    "use_spk_transform": False,
    "spk_fuse_type": "multiply",
    "joint_training": True,
    "multi_task": False,
    "spksInTrain": 251,
    "spk_model": None,
    "spk_args": None,
    "spk_feat": False,
    "feat_type": "consistent",
}
IGNORED_ARGUMENTS = frozenset({"spk_model_init", "spk_model_freeze", "multi_fuse"})
"""Arguments that concern training, or that nothing reads."""
TRANSFORMED_DIM = 256
"""The one size of embedding that the public transform is built for, whatever the network's is."""
ENCODER_PREFIX = "spk_model."
EMPHASIS, WINDOW, FILTERS = "preEmphasis.flipped_filter", "spk_encoder.spectrogram.window", "spk_encoder.mel_scale.fb"


@dataclass(frozen=True)
class PublicSignature:
    """Inputs of a public `forward` beside the mixture, and its outputs.

    Attributes:
        enrollment: `embedding`; `features`: the filterbank that the speaker network takes; `encoder`: a waveform for
            the speaker encoder alone; `waveform`: a waveform for the whole network.
        channel_axis: it returns `[batch, 1, samples]` for a mixture `[batch, samples]`.
        returns_embedding: it returns the embedding after the waveform.
    """

    enrollment: Literal["embedding", "features", "encoder", "waveform"]
    channel_axis: bool = False
    returns_embedding: bool = False


class PublicExtractor(NamedTuple):
    """A public extraction network, as three functions.

    Attributes:
        translate: `(args, encoder=None, state_dict=None)` → a `ModelConfig` mapping. `encoder` has model and arguments
            of the speaker network, where it is not the one that `args` name; `state_dict`, for sizes that no argument
            gives, are the public weights.
        rename: `(state_dict, args, encoder=None)` → the weights under our names.
        signature: `(args)` → the signature of the public network.
    """

    translate: Callable[..., dict[str, Any]]
    rename: Callable[..., dict[str, Tensor]]
    signature: Callable[[Mapping[str, Any]], PublicSignature]


def enrollment_signature(args: Mapping[str, Any]) -> PublicSignature:
    """Return the signature of a network with these arguments.

    Where the speaker network is trained jointly and without a classifier, the embedding takes the place of its logits.
    """
    args = {**ENROLLMENT_DEFAULTS, **args}
    if not args["joint_training"]:
        return PublicSignature("embedding")
    return PublicSignature("features" if args["spk_feat"] else "encoder", returns_embedding=not args["multi_task"])


def translate_fusion(name: str) -> str:
    """Return our name of WeSep's fusion.

    >>> translate_fusion("additive")
    'add'

    Raises:
        ConfigError: there is no fusion of that name.
    """
    if name not in FUSIONS:
        raise ConfigError(f"spk_fuse_type: no fusion is called {name!r}; {nearest(name, FUSIONS)}")
    return FUSIONS[name]


def embedding_cue(args: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Return the configuration of the embedding cue.

    Args:
        args: completed arguments of the public network.
        options: further arguments of the cue.

    Raises:
        ConfigError: a transform of a size that the public network cannot run with.
    """
    cue: dict[str, Any] = {"name": "embedding", **options}
    if not args["joint_training"]:
        cue["embedding_dim"] = args["spk_emb_dim"]
    elif args["multi_task"]:
        cue["num_speakers"] = args["spksInTrain"]
    if args["use_spk_transform"]:
        if args["spk_emb_dim"] != TRANSFORMED_DIM:
            raise ConfigError(
                f"use_spk_transform: true with spk_emb_dim {args['spk_emb_dim']} cannot run in WeSep, whose transform "
                f"takes {TRANSFORMED_DIM} numbers; check the configuration"
            )
        cue["transform"] = "tanh"
    return cue


def joint_encoder(args: Mapping[str, Any], encoder: Mapping[str, Any] | None, mel: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration of the speaker encoder of a network with `joint_training`.

    Args:
        args: completed arguments of the public network.
        encoder: model and arguments of the speaker network, where it is not the one that `args` name.
        mel: `sr`, `win` and `stride` of the features that the network makes itself, in Hz and samples.

    Raises:
        ConfigError: a speaker network that cannot be translated, or features that the public network does not compute.
    """
    if not args["spk_feat"] and args["feat_type"] != "consistent":
        raise ConfigError(
            f"feat_type: {args['feat_type']!r} with spk_feat false has no features in WeSep; 'consistent' is allowed"
        )
    network = translate_encoder(str(args["spk_model"]), args["spk_args"] or {}, encoder)
    bins = num_mel_bins((args["spk_args"] or {}) if encoder is None else encoder["args"])
    config: dict[str, Any] = {"network": network, "sample_rate": mel["sr"]}
    if args["spk_feat"]:
        return {**config, "filterbank": {"num_mel_bins": bins}}
    return {**config, "front_end": "mel", "filterbank": _mel_config(bins, mel)}


def enrollment_weights(
    weights: PublicWeights,
    args: Mapping[str, Any],
    encoder: Mapping[str, Any] | None,
    mel: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """Take the weights of the speaker network, the transform and the classifier, and return them under our names.

    Args:
        weights: the public ones.
        args, encoder, mel: as for `joint_encoder`; without `mel` the front end's buffers are not looked for.

    Raises:
        CheckpointError: a tensor is missing, or the front end's are not those that the arguments promise.
    """
    renamed: dict[str, Tensor] = {}
    if args["use_spk_transform"]:
        # Two linear layers in a row are one: W₂(W₁x + b₁) + b₂ = (W₂W₁)x + (W₂b₁ + b₂).
        first, second = (weights.take_linear(f"spk_transform.transforms.{i}", "x") for i in (0, 1))
        weight, bias = first["x.weight"].double(), first["x.bias"].double()
        outer_weight = second["x.weight"].double()
        renamed["cues.0.transform.narrow.weight"] = (outer_weight @ weight).to(second["x.weight"])
        renamed["cues.0.transform.narrow.bias"] = (outer_weight @ bias + second["x.bias"]).to(second["x.bias"])
        renamed |= weights.take_linear("spk_transform.transforms.3", "cues.0.transform.widen")
    if not args["joint_training"]:
        return renamed
    model = str(args["spk_model"] if encoder is None else encoder["model"])
    renamed |= rename_encoder(model, weights.take_all(ENCODER_PREFIX))
    if args["multi_task"]:
        renamed |= weights.take_linear("pred_linear", "cues.0.classifier")
    if not args["spk_feat"] and mel is not None:
        _check_front_end(weights, mel)
    return renamed


def fusion_weights(weights: PublicWeights, theirs: str, ours: str, fusion: str) -> dict[str, Tensor]:
    """Take the weights of one fusion layer, and return them under our names.

    Args:
        weights: the public ones.
        theirs, ours: names of the layer.
        fusion: WeSep's name of the fusion.
    """
    kind = translate_fusion(fusion)
    if kind == "film":
        scale = weights.take_linear(f"{theirs}.gamma_fcs.0", f"{ours}.scale")
        return scale | weights.take_linear(f"{theirs}.beta_fcs.0", f"{ours}.shift")
    renamed = weights.take_linear(f"{theirs}.linear", f"{ours}.linear")
    if kind == "concat":
        # Their columns are [h (channels) | e (embedding)], ours [e | h]; the layer has as many rows as h has channels.
        weight = renamed[f"{ours}.linear.weight"]
        renamed[f"{ours}.linear.weight"] = weight.roll(-len(weight), dims=1)
    return renamed


def _mel_config(bins: int, mel: Mapping[str, int]) -> dict[str, Any]:
    in_ms = {name: 1000 * mel[key] / mel["sr"] for name, key in (("window_ms", "win"), ("hop_ms", "stride"))}
    return {"num_mel_bins": bins, **in_ms}


def _check_front_end(weights: PublicWeights, mel: Mapping[str, int]) -> None:
    """Take the buffers that follow from the arguments, and compare them with those that we compute."""
    filters = weights.take(FILTERS)
    ours = WesepMel(sample_rate=mel["sr"], **_mel_config(filters.shape[1], mel))
    emphasis = torch.tensor([[[-0.97, 1.0]]])
    for name, theirs, expected in (
        (EMPHASIS, weights.take(EMPHASIS), emphasis),
        (WINDOW, weights.take(WINDOW), ours.window),
        (FILTERS, filters, ours.filters),
    ):
        if theirs.shape != expected.shape or not torch.allclose(theirs.float(), expected, atol=1e-4):
            raise CheckpointError(f"{name}: is not what the configuration's sr, win, stride and feat_dim give")
