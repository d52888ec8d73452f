"""WeSep real-TSE's BSRNN (`TSE_BSRNN_SPK`): its cues, arguments and weights.

Its arguments are `separator`, for the backbone that it shares with WeSep's BSRNN, and `speaker`, with a part for each
of five cues that can be on at once (`features`) and the speaker encoder that they share (`speaker_model`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wesep_py.common.errors import CheckpointError, ConfigError, nearest
from wesep_py.interop.public_checkpoints import PublicWeights
from wesep_py.interop.wesep_enrollment import PublicExtractor, PublicSignature, fusion_weights, translate_fusion
from wesep_py.interop.wesep_networks import bsrnn_backbone, bsrnn_backbone_weights
from wesep_py.interop.wespeaker_networks import rename_encoder, translate_encoder

REALTSE_CUES = ("usef", "tfmap", "listen", "context", "spkemb")
"""In the order in which our network takes them."""
EMBEDDING_CUES = {"context", "spkemb"}
"""Those that need the speaker encoder and have a fusion layer."""
SEPARATOR_DEFAULTS: dict[str, Any] = {
    "sr": 16000,
    "win": 512,
    "stride": 128,
    "feature_dim": 128,
    "num_repeat": 6,
    "causal": False,
    "nspk": 1,
}
SHARED_ENCODER_PREFIX = "spk_ft.encoder.spk_model."
DEFAULT_FUSION = "multiply"


def translate_realtse(
    args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Return the `ModelConfig` mapping for arguments of `TSE_BSRNN_SPK`.

    Args:
        args: `separator` and `speaker`.
        encoder: model and arguments of the speaker encoder, where it is not the one that `args` name.
        state_dict: the weights, from whose shapes the sizes come that no argument gives.

    Raises:
        ConfigError: a cue that real-TSE does not know, or a part that has no counterpart here.
    """
    separator, cues = _separator(args), _enabled_cues(args)
    model: dict[str, Any] = {
        "sample_rate": separator["sr"],
        "normalise": "none",
        "highpass_hz": 0.0,
        # Along time, a causal network normalises the features of each frame; across bands, all bands of a frame.
        "backbone": {
            **bsrnn_backbone(separator),
            "causal": separator["causal"],
            "norm": "frame" if separator["causal"] else "group",
            "norm_across": "group",
            "norm_eps": 1e-5,
        },
        "cues": [_cue(name, options, separator, state_dict or {}) for name, options in cues.items()],
    }
    if cues.keys() & EMBEDDING_CUES:
        model["speaker"] = _speaker(args["speaker"]["speaker_model"], encoder, separator["sr"], "context" in cues)
    return model


def rename_realtse(
    state_dict: Mapping[str, Tensor], args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Return real-TSE's weights under our names.

    Raises:
        CheckpointError: a tensor is missing, or has no counterpart.
    """
    separator, cues = _separator(args), _enabled_cues(args)
    weights = PublicWeights(state_dict)
    renamed = bsrnn_backbone_weights(
        weights,
        separator,
        split="sep_model.subband_norm.BN.{}",
        mask="sep_model.band_masker.mask.{}",
        blocks=[f"sep_model.separator.separation.{i}" for i in range(separator["num_repeat"])],
    )
    shared_encoder = weights.take_all(SHARED_ENCODER_PREFIX)
    for index, (name, options) in enumerate(cues.items()):
        ours, theirs = f"cues.{index}", f"spk_ft.{name}"
        _check_same_encoder(shared_encoder, weights.take_all(f"{theirs}.encoder.spk_model."), name)
        if name == "tfmap":
            renamed[f"{ours}.log_temperatures"] = torch.zeros(1)
        elif name == "usef":
            renamed |= _usef_weights(weights, theirs, ours)
        elif name == "context":
            renamed |= _context_weights(weights, theirs, ours)
        if name in EMBEDDING_CUES:
            fusion = options.get("fusion", DEFAULT_FUSION)
            renamed |= fusion_weights(weights, f"{theirs}.fusionLayer.fc", f"{ours}.fusion.layers.0", fusion)
    if cues.keys() & EMBEDDING_CUES:
        model = args["speaker"]["speaker_model"]["speaker_encoder"]["model"] if encoder is None else encoder["model"]
        renamed |= rename_encoder(model, shared_encoder)
    weights.check_all_taken()
    return renamed


REALTSE_BSRNN = PublicExtractor(translate_realtse, rename_realtse, lambda args: PublicSignature("waveform"))


def _separator(args: Mapping[str, Any]) -> dict[str, Any]:
    separator = {**SEPARATOR_DEFAULTS, **args["separator"]}
    if separator["nspk"] != 1:
        raise ConfigError(f"separator.nspk: is {separator['nspk']}; only networks with one target can be read")
    return separator


def _enabled_cues(args: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the cues that are switched on and their arguments, in the order of `REALTSE_CUES`."""
    features = args["speaker"]["features"]
    for name in features:
        if name not in REALTSE_CUES:
            raise ConfigError(f"speaker.features: no cue is called {name!r}; {nearest(name, REALTSE_CUES)}")
    return {name: features[name] for name in REALTSE_CUES if features.get(name, {}).get("enabled", False)}


def _cue(
    name: str, options: Mapping[str, Any], separator: Mapping[str, Any], state_dict: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return the configuration of our cue."""
    if name == "listen":
        return {"name": "listen_first", "silence_ms": 1000 * options.get("glue", 512) / separator["sr"]}
    if name == "tfmap":
        return {"name": "tf_map"}
    if name == "usef":
        kernel = state_dict.get("spk_ft.usef.usef_con2v.1.weight")
        return {
            "name": "usef",
            "channels": options.get("emb_dim", separator["feature_dim"] // 2) if kernel is None else len(kernel),
            "num_heads": options.get("n_head", 4),
            "query_dim": options.get("approx_qk_dim", 512),
            "kernel": options.get("t_ksize", 3),
            "causal": False,  # theirs is centred, with one frame of look-ahead, in the causal network too
        }
    fusion = {"fusion": translate_fusion(options.get("fusion", DEFAULT_FUSION)), "points": "first"}
    if name == "spkemb":
        return {"name": "embedding", **fusion}
    return {
        "name": "context",
        "dim": options.get("atten_dim", separator["feature_dim"]),
        "num_heads": options.get("num_heads", 2),
        **fusion,
        "projection": "band",
    }


def _speaker(
    speaker_model: Mapping[str, Any], encoder: Mapping[str, Any] | None, sample_rate: int, needs_frames: bool
) -> dict[str, Any]:
    """Return the configuration of the speaker encoder.

    Args:
        speaker_model: public arguments: the encoder and its filterbank.
        encoder: the encoder that takes its place, if any.
        sample_rate: of the separator, in Hz.
        needs_frames: True if a cue uses the encoder's frames, which are those of the last block of an ECAPA-TDNN.
    """
    named = speaker_model["speaker_encoder"]
    network = translate_encoder(named["model"], named.get("spk_args", {}), encoder)
    if network["name"] == "ecapa_tdnn":
        network["frames"] = "last_block"
    elif needs_frames:
        raise ConfigError(
            f"speaker_encoder: {named['model']!r} cannot be translated; "
            "real-TSE networks with the cue 'context' are read with ECAPA_TDNN"
        )
    fbank = speaker_model.get("fbank", {})
    return {
        "network": network,
        "sample_rate": fbank.get("sample_rate", sample_rate),
        "filterbank": {
            "num_mel_bins": fbank.get("num_mel_bins", 80),
            "frame_length_ms": float(fbank.get("frame_length", 25)),
            "frame_shift_ms": float(fbank.get("frame_shift", 10)),
            "dither": float(fbank.get("dither", 0.0)),
        },
    }


def _check_same_encoder(shared: Mapping[str, Tensor], of_cue: Mapping[str, Tensor], cue: str) -> None:
    """Check that the encoder of a cue is the shared one under a second name.

    Raises:
        CheckpointError: it has weights of its own, which have no counterpart here.
    """
    for name, tensor in of_cue.items():
        if name not in shared or not torch.equal(tensor, shared[name]):
            raise CheckpointError(
                f"the cue {cue!r} of the public checkpoint has a speaker encoder of its own ({name} differs); "
                "a network here has one encoder"
            )


def _context_weights(weights: PublicWeights, theirs: str, ours: str) -> dict[str, Tensor]:
    """Take the weights of the cue `context`, an attention of the mixture's bands to the enrollment's frames."""
    attention = f"{theirs}.attenFuse"
    projections = weights.take(f"{attention}.multihead_attn.in_proj_weight").chunk(3)
    biases = weights.take(f"{attention}.multihead_attn.in_proj_bias").chunk(3)
    renamed: dict[str, Tensor] = {}
    for name, weight, bias in zip(("query", "key", "value"), projections, biases, strict=True):
        renamed |= {f"{ours}.{name}.weight": weight, f"{ours}.{name}.bias": bias}
    if f"{attention}.Linear_mix.weight" in weights:
        # Two linear layers in a row are one: the query's projection takes in the layer before it.
        mix = weights.take_linear(f"{attention}.Linear_mix", "mix")
        renamed[f"{ours}.query.bias"] = projections[0] @ mix["mix.bias"] + biases[0]
        renamed[f"{ours}.query.weight"] = projections[0] @ mix["mix.weight"]
    # One linear layer per band, each with weight and bias → one batched layer, [bands, in, out].
    bands = range(len(weights.names(f"{attention}.Linear.")) // 2)
    frames = weights.take_stacked(f"{attention}.Linear.{band}.weight" for band in bands)
    renamed[f"{ours}.frames.weight"] = frames.transpose(1, 2)
    frames_bias = weights.take_stacked(f"{attention}.Linear.{band}.bias" for band in bands)
    renamed[f"{ours}.frames.bias"] = frames_bias[:, None]
    return renamed | weights.take_linear(f"{attention}.multihead_attn.out_proj", f"{ours}.output")


def _usef_weights(weights: PublicWeights, theirs: str, ours: str) -> dict[str, Tensor]:
    """Take the weights of the cue `usef`."""
    attention = f"{theirs}.usef_att"
    # Theirs runs over [frames, bins], ours over [bins, frames].
    renamed = {
        f"{ours}.conv.weight": weights.take(f"{theirs}.usef_con2v.1.weight").transpose(2, 3),
        f"{ours}.conv.bias": weights.take(f"{theirs}.usef_con2v.1.bias"),
    }
    for part in ("weight", "bias"):
        norm = weights.take(f"{theirs}.usef_con2v.0.{part}")
        renamed[f"{ours}.input_norm.{part}"] = norm[..., None] if norm.dim() == 2 else norm[:, None, None]
    for name, letter in (("query", "Q"), ("key", "K"), ("value", "V")):
        conv, norm = f"{attention}.attn_conv_{letter}", f"{attention}.attn_norm_{letter}"
        renamed |= _usef_layer_weights(weights, f"{ours}.{name}", conv, f"{norm}.act", norm)
    output = f"{attention}.attn_concat_proj"
    return renamed | _usef_layer_weights(weights, f"{ours}.output", f"{output}.0", f"{output}.1", f"{output}.2")


def _usef_layer_weights(weights: PublicWeights, ours: str, conv: str, activation: str, norm: str) -> dict[str, Tensor]:
    renamed = {f"{ours}.conv.{part}": weights.take(f"{conv}.{part}") for part in ("weight", "bias")}
    renamed[f"{ours}.act.weight"] = weights.take(f"{activation}.weight")
    for theirs, part in (("gamma", "weight"), ("beta", "bias")):
        affine = weights.take(f"{norm}.{theirs}")  # [1, heads, channels of a head, 1, bins], or [1, channels, 1, bins]
        channels, bins = affine.shape[-3], affine.shape[-1]
        renamed[f"{ours}.{part}"] = affine.reshape(-1, 1, channels, bins)
    return renamed
