"""WeSep real-TSE's BSRNN (`TSE_BSRNN_SPK`): its cues, arguments and the names of its weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wesep_py.common.errors import CheckpointError, ConfigError, nearest
from wesep_py.interop import encoders
from wesep_py.interop.public_checkpoints import PublicWeights, linear
from wesep_py.interop.wesep_bsrnn import backbone, backbone_weights
from wesep_py.interop.wesep_enrollment import Signature, fusion, fusion_weights

CUES = ("usef", "tfmap", "listen", "context", "spkemb")
"""In the order in which our network takes them."""
SEPARATOR_DEFAULTS: dict[str, Any] = {
    "sr": 16000,
    "win": 512,
    "stride": 128,
    "feature_dim": 128,
    "num_repeat": 6,
    "causal": False,
    "nspk": 1,
}
ENCODER = "spk_ft.encoder.spk_model."


def translate(
    args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Arguments of `TSE_BSRNN_SPK` → a `ModelConfig` mapping.

    Args:
        args: `separator` and `speaker`.
        encoder: model and arguments of the speaker encoder, where it is not the one that `args` name.
        state_dict: the weights, from whose shapes the sizes come that no argument gives.

    Raises:
        ConfigError: a cue that real-TSE does not know, or a part that has no counterpart here.
    """
    separator, features = _separator(args), _features(args)
    model: dict[str, Any] = {
        "sample_rate": separator["sr"],
        "normalise": "none",
        "highpass_hz": 0.0,
        # Along time, a causal network normalises the features of each frame; across bands, all bands of a frame.
        "backbone": {
            **backbone(separator),
            "causal": separator["causal"],
            "norm": "frame" if separator["causal"] else "group",
            "norm_across": "group",
            "norm_eps": 1e-5,
        },
        "cues": [_cue(name, arguments, separator, state_dict or {}) for name, arguments in features.items()],
    }
    if features.keys() & {"context", "spkemb"}:
        model["speaker"] = _speaker(args["speaker"]["speaker_model"], encoder, separator["sr"], "context" in features)
    return model


def signature(args: Mapping[str, Any]) -> Signature:
    """What the public `forward` takes and returns."""
    return Signature("waveform")


def rename(
    state_dict: Mapping[str, Tensor], args: Mapping[str, Any], encoder: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Real-TSE's weights under our names.

    Raises:
        CheckpointError: a tensor is missing, or finds no place.
    """
    separator, features = _separator(args), _features(args)
    weights = PublicWeights(state_dict)
    mapped = backbone_weights(
        weights,
        separator,
        split="sep_model.subband_norm.BN.{}",
        mask="sep_model.band_masker.mask.{}",
        blocks=[f"sep_model.separator.separation.{i}" for i in range(separator["num_repeat"])],
    )
    shared = weights.take_all(ENCODER)
    for index, (name, arguments) in enumerate(features.items()):
        ours, theirs = f"cues.{index}", f"spk_ft.{name}"
        _check_same_encoder(shared, weights.take_all(f"{theirs}.encoder.spk_model."), name)
        if name == "tfmap":
            mapped[f"{ours}.log_temperatures"] = torch.zeros(1)
        elif name == "usef":
            mapped |= _usef(weights, theirs, ours)
        elif name == "context":
            mapped |= _context(weights, theirs, ours)
        if name in ("context", "spkemb"):
            mapped |= fusion_weights(
                weights, f"{theirs}.fusionLayer.fc", f"{ours}.fusion.layers.0", arguments.get("fusion", "multiply")
            )
    if features.keys() & {"context", "spkemb"}:
        named = args["speaker"]["speaker_model"]["speaker_encoder"]["model"] if encoder is None else encoder["model"]
        mapped |= encoders.rename(named, shared)
    weights.check_all_taken()
    return mapped


def _separator(args: Mapping[str, Any]) -> dict[str, Any]:
    separator = {**SEPARATOR_DEFAULTS, **args["separator"]}
    if separator["nspk"] != 1:
        raise ConfigError(f"separator.nspk: is {separator['nspk']}; networks of one target are read")
    return separator


def _features(args: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The cues that are switched on and their arguments, in the order of `CUES`."""
    given = args["speaker"]["features"]
    for name in given:
        if name not in CUES:
            raise ConfigError(f"speaker.features: no cue is called {name!r}; {nearest(name, CUES)}")
    return {name: given[name] for name in CUES if given.get(name, {}).get("enabled", False)}


def _cue(
    name: str, arguments: Mapping[str, Any], separator: Mapping[str, Any], state_dict: Mapping[str, Tensor]
) -> dict[str, Any]:
    if name == "listen":
        return {"name": "listen_first", "silence_ms": 1000 * arguments.get("glue", 512) / separator["sr"]}
    if name == "tfmap":
        return {"name": "tf_map"}
    if name == "spkemb":
        return {"name": "embedding", "fusion": fusion(arguments.get("fusion", "multiply")), "points": "first"}
    if name == "context":
        return {
            "name": "context",
            "dim": arguments.get("atten_dim", separator["feature_dim"]),
            "num_heads": arguments.get("num_heads", 2),
            "fusion": fusion(arguments.get("fusion", "multiply")),
            "points": "first",
            "projection": "band",
        }
    kernel = state_dict.get("spk_ft.usef.usef_con2v.1.weight")
    return {
        "name": "usef",
        "channels": arguments.get("emb_dim", separator["feature_dim"] // 2) if kernel is None else len(kernel),
        "num_heads": arguments.get("n_head", 4),
        "query_dim": arguments.get("approx_qk_dim", 512),
        "kernel": arguments.get("t_ksize", 3),
        "causal": False,  # theirs is centred, one frame ahead, in the causal network too
    }


def _speaker(
    speaker: Mapping[str, Any], encoder: Mapping[str, Any] | None, sample_rate: int, needs_frames: bool
) -> dict[str, Any]:
    named = speaker["speaker_encoder"]
    network = encoders.translate(named["model"], named.get("spk_args", {}), encoder)
    if network["name"] == "ecapa_tdnn":
        network["frames"] = "last_block"
    elif needs_frames:
        raise ConfigError(
            f"speaker_encoder: {named['model']!r} cannot be translated; "
            "real-TSE networks with the cue 'context' are read with ECAPA_TDNN"
        )
    fbank = speaker.get("fbank", {})
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


def _check_same_encoder(shared: Mapping[str, Tensor], own: Mapping[str, Tensor], cue: str) -> None:
    """A cue's `encoder` is the frontend's under a second name; one with weights of its own has no counterpart."""
    for name, tensor in own.items():
        if name not in shared or not torch.equal(tensor, shared[name]):
            raise CheckpointError(
                f"the cue {cue!r} of the public checkpoint has a speaker encoder of its own ({name} differs); "
                "a network here has one encoder"
            )


def _context(weights: PublicWeights, theirs: str, ours: str) -> dict[str, Tensor]:
    attention = f"{theirs}.attenFuse"
    parts = weights.take(f"{attention}.multihead_attn.in_proj_weight").chunk(3)
    biases = weights.take(f"{attention}.multihead_attn.in_proj_bias").chunk(3)
    mapped: dict[str, Tensor] = {}
    for name, weight, bias in zip(("query", "key", "value"), parts, biases, strict=True):
        mapped |= {f"{ours}.{name}.weight": weight, f"{ours}.{name}.bias": bias}
    if f"{attention}.Linear_mix.weight" in weights:
        # Two linear layers after each other are one.
        first = linear(weights, f"{attention}.Linear_mix", "mix")
        mapped[f"{ours}.query.bias"] = parts[0] @ first["mix.bias"] + biases[0]
        mapped[f"{ours}.query.weight"] = parts[0] @ first["mix.weight"]
    bands = range(len(weights.names(f"{attention}.Linear.")) // 2)
    frames = weights.stacked(f"{attention}.Linear.{band}.weight" for band in bands)
    mapped[f"{ours}.frames.weight"] = frames.transpose(1, 2)
    mapped[f"{ours}.frames.bias"] = weights.stacked(f"{attention}.Linear.{band}.bias" for band in bands)[:, None]
    return mapped | linear(weights, f"{attention}.multihead_attn.out_proj", f"{ours}.output")


def _usef(weights: PublicWeights, theirs: str, ours: str) -> dict[str, Tensor]:
    attention = f"{theirs}.usef_att"
    # Theirs runs over [frames, bins], ours over [bins, frames].
    mapped = {
        f"{ours}.conv.weight": weights.take(f"{theirs}.usef_con2v.1.weight").transpose(2, 3),
        f"{ours}.conv.bias": weights.take(f"{theirs}.usef_con2v.1.bias"),
    }
    for part in ("weight", "bias"):
        norm = weights.take(f"{theirs}.usef_con2v.0.{part}")
        mapped[f"{ours}.input_norm.{part}"] = norm[..., None] if norm.dim() == 2 else norm[:, None, None]
    for name, letter in (("query", "Q"), ("key", "K"), ("value", "V")):
        conv, norm = f"{attention}.attn_conv_{letter}", f"{attention}.attn_norm_{letter}"
        mapped |= _head(weights, f"{ours}.{name}", conv, f"{norm}.act", norm)
    output = f"{attention}.attn_concat_proj"
    return mapped | _head(weights, f"{ours}.output", f"{output}.0", f"{output}.1", f"{output}.2")


def _head(weights: PublicWeights, ours: str, conv: str, act: str, norm: str) -> dict[str, Tensor]:
    mapped = {f"{ours}.conv.{part}": weights.take(f"{conv}.{part}") for part in ("weight", "bias")}
    mapped[f"{ours}.act.weight"] = weights.take(f"{act}.weight")
    for theirs, part in (("gamma", "weight"), ("beta", "bias")):
        affine = weights.take(f"{norm}.{theirs}")  # [1, heads, per head, 1, bins], or [1, channels, 1, bins]
        per_head, bins = affine.shape[-3], affine.shape[-1]
        mapped[f"{ours}.{part}"] = affine.reshape(-1, 1, per_head, bins)
    return mapped
