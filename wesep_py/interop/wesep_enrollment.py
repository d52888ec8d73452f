"""How WeSep's networks know a voice: what their arguments about it mean, and the weights of what computes it.

Each takes an embedding (`joint_training: false`), or has a speaker network of its own, which is given a filterbank
(`spk_feat: true`) or makes one of the enrollment's waveform. `use_spk_transform` puts layers after the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from wesep_py.common.errors import CheckpointError, ConfigError, nearest
from wesep_py.features import WesepMel
from wesep_py.interop import encoders
from wesep_py.interop.public_checkpoints import PublicWeights, linear

FUSIONS = {"concat": "concat", "additive": "add", "multiply": "multiply", "FiLM": "film"}
DEFAULTS: dict[str, Any] = {
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
INERT = frozenset({"spk_model_init", "spk_model_freeze", "multi_fuse"})
"""What is about training, or read by nothing."""
TRANSFORMED_DIM = 256
"""The one size of embedding that their transform is built for, whatever the network's is."""
ENCODER = "spk_model."
EMPHASIS, WINDOW, FILTERS = "preEmphasis.flipped_filter", "spk_encoder.spectrogram.window", "spk_encoder.mel_scale.fb"


@dataclass(frozen=True)
class Signature:
    """What a public `forward` takes beside the mixture, and what it returns.

    Attributes:
        enrolled: an embedding, the features that a speaker network hears, the waveform that the network's own speaker
            encoder hears, or the waveform that all of the network hears.
        channel: it returns `[batch, 1, samples]` for a mixture `[batch, samples]`.
        embedding: it returns the embedding after the waveform.
    """

    enrolled: Literal["embedding", "features", "encoder", "waveform"]
    channel: bool = False
    embedding: bool = False


def signature(args: Mapping[str, Any]) -> Signature:
    """The signature of a network with completed arguments.

    Where the speaker network trains along without a classifier, the embedding stands in the place of its logits.
    """
    if not args["joint_training"]:
        return Signature("embedding")
    return Signature("features" if args["spk_feat"] else "encoder", embedding=not args["multi_task"])


def fusion(name: str) -> str:
    """Our name of WeSep's fusion.

    >>> fusion("additive")
    'add'
    """
    if name not in FUSIONS:
        raise ConfigError(f"spk_fuse_type: no fusion is called {name!r}; {nearest(name, FUSIONS)}")
    return FUSIONS[name]


def cue(args: Mapping[str, Any], **arguments: Any) -> dict[str, Any]:
    """The embedding cue of a network with completed arguments.

    Raises:
        ConfigError: a transform of a size that the public network cannot run with.
    """
    made: dict[str, Any] = {"name": "embedding", **arguments}
    if not args["joint_training"]:
        made["embedding_dim"] = args["spk_emb_dim"]
    elif args["multi_task"]:
        made["num_speakers"] = args["spksInTrain"]
    if args["use_spk_transform"]:
        if args["spk_emb_dim"] != TRANSFORMED_DIM:
            raise ConfigError(
                f"use_spk_transform: true with spk_emb_dim {args['spk_emb_dim']} cannot run in WeSep, whose transform "
                f"is of {TRANSFORMED_DIM} numbers; check the configuration"
            )
        made["transform"] = "tanh"
    return made


def speaker(args: Mapping[str, Any], encoder: Mapping[str, Any] | None, mel: Mapping[str, int]) -> dict[str, Any]:
    """The speaker encoder of a network with `joint_training`.

    Args:
        args: completed.
        encoder: model and arguments of the speaker network, where it is not the one that `args` name.
        mel: `sr`, `win` and `stride` of the features that the network makes itself, in Hz and samples.

    Raises:
        ConfigError: a speaker network that cannot be translated, or features that the public network does not compute.
    """
    if not args["spk_feat"] and args["feat_type"] != "consistent":
        raise ConfigError(
            f"feat_type: {args['feat_type']!r} with spk_feat false has no features in WeSep; 'consistent' is allowed"
        )
    network = encoders.translate(str(args["spk_model"]), args["spk_args"] or {}, encoder)
    heard = (args["spk_args"] or {}) if encoder is None else encoder["args"]
    made: dict[str, Any] = {"network": network, "sample_rate": mel["sr"]}
    bins = encoders.num_mel_bins(heard)
    if args["spk_feat"]:
        return {**made, "filterbank": {"num_mel_bins": bins}}
    return {**made, "front_end": "mel", "filterbank": _mel(bins, mel)}


def weights(
    public: PublicWeights,
    args: Mapping[str, Any],
    encoder: Mapping[str, Any] | None,
    mel: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """The weights of the speaker network, the transform and the classifier under our names; arguments as `speaker`'s.

    Raises:
        CheckpointError: a tensor is missing, or the front end's are not those that the arguments promise.
    """
    mapped: dict[str, Tensor] = {}
    if args["use_spk_transform"]:
        # Two linear layers after each other are one.
        first, second = (linear(public, f"spk_transform.transforms.{i}", "x") for i in (0, 1))
        weight, bias = first["x.weight"].double(), first["x.bias"].double()
        above = second["x.weight"].double()
        mapped["cues.0.transform.narrow.weight"] = (above @ weight).to(second["x.weight"])
        mapped["cues.0.transform.narrow.bias"] = (above @ bias + second["x.bias"]).to(second["x.bias"])
        mapped |= linear(public, "spk_transform.transforms.3", "cues.0.transform.widen")
    if not args["joint_training"]:
        return mapped
    named = str(args["spk_model"] if encoder is None else encoder["model"])
    mapped |= encoders.rename(named, public.take_all(ENCODER))
    if args["multi_task"]:
        mapped |= linear(public, "pred_linear", "cues.0.classifier")
    if not args["spk_feat"] and mel is not None:
        _check_front_end(public, mel)
    return mapped


def rename(
    state_dict: Mapping[str, Tensor],
    args: Mapping[str, Any],
    encoder: Mapping[str, Any] | None,
    mel: Mapping[str, int],
    backbone_weights: Callable[[PublicWeights, Mapping[str, Any]], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """All weights, under our names, of a network with a single fusion layer.

    Args:
        state_dict: under their public names.
        args, encoder, mel: as `speaker`'s.
        backbone_weights: takes the backbone's, given the arguments.

    Raises:
        CheckpointError: a tensor is missing, or finds no place.
    """
    public = PublicWeights(state_dict)
    mapped = backbone_weights(public, args)
    mapped |= fusion_weights(public, "spk_fuse.fc", "cues.0.fusion.layers.0", args["spk_fuse_type"])
    mapped |= weights(public, args, encoder, mel)
    public.check_all_taken()
    return mapped


def _mel(num_mel_bins: int, mel: Mapping[str, int]) -> dict[str, Any]:
    in_ms = {name: 1000 * mel[key] / mel["sr"] for name, key in (("window_ms", "win"), ("hop_ms", "stride"))}
    return {"num_mel_bins": num_mel_bins, **in_ms}


def _check_front_end(public: PublicWeights, mel: Mapping[str, int]) -> None:
    """Buffers that follow from the arguments: held against what we compute, and not kept."""
    filters = public.take(FILTERS)
    ours = WesepMel(sample_rate=mel["sr"], **_mel(filters.shape[1], mel))
    emphasis = torch.tensor([[[-0.97, 1.0]]])
    for name, theirs, expected in (
        (EMPHASIS, public.take(EMPHASIS), emphasis),
        (WINDOW, public.take(WINDOW), ours.window),
        (FILTERS, filters, ours.filters),
    ):
        if theirs.shape != expected.shape or not torch.allclose(theirs.float(), expected, atol=1e-4):
            raise CheckpointError(f"{name}: is not what the configuration's sr, win, stride and feat_dim give")


def fusion_weights(public: PublicWeights, theirs: str, ours: str, name: str) -> dict[str, Tensor]:
    """The weights of one fusion layer under our names."""
    if fusion(name) != "film":
        mapped = linear(public, f"{theirs}.linear", f"{ours}.linear")
        if fusion(name) == "concat":
            # Theirs is of [h; e], ours of [e; h].
            weight = mapped[f"{ours}.linear.weight"]
            mapped[f"{ours}.linear.weight"] = weight.roll(-len(weight), dims=1)
        return mapped
    scale = linear(public, f"{theirs}.gamma_fcs.0", f"{ours}.scale")
    return scale | linear(public, f"{theirs}.beta_fcs.0", f"{ours}.shift")
