"""TD-SpeakerBeam of ESPnet (espnet2, task `enh_tse`), from its configuration and its weights.

    mixture ─► conv, ReLU ─► norm, 1×1 ─► blocks ─► Σ skip connections ─► activation, 1×1 ─► mask · ─► transposed conv
                                            │ block i_adapt_layer
    enrollment ─► the same conv, ReLU ─► norm, 1×1 ─► one stack ─► activation, 1×1 ─► mean over time: the embedding

The first half of the embedding steers what the block adds to the residual path, the second half its skip connection;
without skip connections (`skip_dim: null`) there is one part, and the last block's output makes the mask. With
`use_spk_emb` the embedding is a linear layer of one that is computed elsewhere.

| ESPnet | here |
| --- | --- |
| `encoder_conf` `channel`, `kernel_size`, `stride` | `num_filters`, `kernels_ms`, `hop_ms`, with `drop_last` |
| `layer`, `stack` | `blocks_per_stack`, `num_stacks`; the encoder's `num_blocks` |
| `bottleneck_dim`, `hidden_dim`, `kernel`, `causal` | `bottleneck`, `hidden`, `kernel`, `causal` |
| `skip_dim` | `skip`, with `skip_sum: network` |
| `norm_type` gLN, cLN, BN, GN | `norm` global, frame, batch, global |
| `pre_nonlinear`, `nonlinear` | `latent_activation`, `mask_activation` |
| `i_adapt_layer` | `fusion_blocks`, with `fusion_place: output` |
| `adapt_layer_type` mul, muladd, concat | fusion `scale`, `affine`, `concat` |
| the same with `use_spk_emb`; `spk_emb_dim` | fusion `multiply`, `film`, `concat`; `embedding_dim` |

Facts from espnet2/enh of https://github.com/espnet/espnet (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError, InputError, nearest, shorten
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.interop.espnet_config import EXTRACTOR, PARTS, RATE_OPTION, espnet_sample_rate, parse_espnet_config
from wesep_py.interop.public_checkpoints import (
    DEFAULT_SAMPLE_RATE,
    PublicWeights,
    UntranslatableError,
    fill_network,
    translating,
    unwrap_weights,
)
from wesep_py.interop.wesep_enrollment import PublicExtractor, PublicSignature
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network

EPS = torch.finfo(torch.float32).eps
"""Added to the variance by gLN and cLN, also by the norm of the features."""
GROUP_NORM_EPS = 1e-8
NORMS = {"gLN": "global", "cLN": "frame", "BN": "batch", "GN": "global"}
ACTIVATIONS = ("relu", "sigmoid", "tanh", "linear")
FUSIONS = {"mul": "scale", "muladd": "affine", "concat": "concat"}
"""`adapt_layer_type` → our fusion of an embedding of the network's own."""
OUTER_FUSIONS = {"mul": "multiply", "muladd": "film", "concat": "concat"}
"""The same for an embedding that is computed elsewhere: fusions with a layer, which takes in the public one."""
CONV_ARGUMENTS = ("channel", "kernel_size", "stride")
EXTRACTOR_DEFAULTS: dict[str, Any] = {
    "layer": 8,
    "stack": 3,
    "bottleneck_dim": 128,
    "hidden_dim": 512,
    "skip_dim": 128,
    "kernel": 3,
    "causal": False,
    "norm_type": "gLN",
    "pre_nonlinear": "prelu",
    "nonlinear": "relu",
    "i_adapt_layer": 7,
    "adapt_layer_type": "mul",
    "adapt_enroll_dim": 128,
    "use_spk_emb": False,
    "spk_emb_dim": 256,
}
TCN, AUXILIARY = "extractor.tcn.", "extractor.auxiliary_net."


def load_espnet(
    config: Mapping[str, Any], state_dict: Mapping[str, Any], sample_rate: int | None = None
) -> EspnetAdapter:
    """Return a network of ours that computes what ESPnet's does, in evaluation mode.

    Args:
        config: the content of ESPnet's `config.yaml`, or only its keys `encoder`, `extractor`, `decoder` and their
            `…_conf`.
        state_dict: the weights under their public names, or the content of the `.pth` file.
        sample_rate: Hz; `None`: what the configuration says, or 16 kHz. Nothing that is computed depends on it.

    Raises:
        ConfigError: a key or an argument that cannot be translated.
        CheckpointError: weights that are missing, have no counterpart, or are of another size.
    """
    with translating():
        public = parse_espnet_config(config, sample_rate or espnet_sample_rate(config) or DEFAULT_SAMPLE_RATE)
    if public.problems:
        raise UntranslatableError(public.problems)
    if public.model != EXTRACTOR:
        raise ConfigError(
            f"extractor: no extractor is called {shorten(public.model, 60)!r}; only {EXTRACTOR!r} is known"
        )
    weights = unwrap_weights(state_dict) if state_dict else {}
    check_numbers(public.args)
    with translating():
        model = translate_td_speakerbeam(public.args, None, weights)
    network = build_within(lambda: build_network(model, initialise=False), weights)
    fill_network(network, rename_td_speakerbeam(weights, public.args), public.model)
    projection = None
    if public.args["extractor_conf"].get("use_spk_emb", False):
        projection = (weights[f"{AUXILIARY}weight"].squeeze(-1), weights[f"{AUXILIARY}bias"])
    return EspnetAdapter(network, projection).eval()


class EspnetAdapter(nn.Module):
    """A network of ours behind the inputs and outputs of ESPnet's.

    Args:
        network: ours.
        projection: weight and bias of the layer that ESPnet's network applies to an embedding from elsewhere; `None`
            for a network that takes a recording.

    Attributes:
        network: the same; `network.config` is its configuration here.
    """

    def __init__(self, network: TargetSpeakerExtractor, projection: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.network, self.projection = network, projection

    def forward(self, mixture: Tensor, enrollment: Tensor) -> tuple[Tensor, Tensor]:
        """Return the estimate `[batch, samples]` and the embedding `[batch, dim]` that steers the network.

        Args:
            mixture: `[batch, samples]`.
            enrollment: `[batch, samples]`; an embedding, `[batch, spk_emb_dim]` or `[batch, 1, spk_emb_dim]`, for a
                network with `use_spk_emb`.

        Raises:
            InputError: an embedding of another size.
        """
        if self.projection is None:
            prepared = self.network.prepare(enrollment)
            embedding = prepared["0.embedding"]
        else:
            weight, bias = self.projection
            given = enrollment[:, 0] if enrollment.dim() == 3 else enrollment
            if given.shape[-1] != weight.shape[1]:
                raise InputError(f"the embedding has {given.shape[-1]} numbers; this model takes {weight.shape[1]}")
            prepared, embedding = {"0.embedding": given}, nn.functional.linear(given, weight, bias)
        return self.network.extract(mixture, prepared).waveforms[0], embedding


def translate_td_speakerbeam(
    args: Mapping[str, Any], encoder: None = None, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Return the `ModelConfig` mapping for the arguments of an ESPnet model.

    Args:
        args: those of `parse_espnet_config`.
        encoder: not used.
        state_dict: the public weights; where `pre_nonlinear` is not given, they say whether there is a PReLU.

    Raises:
        UntranslatableError: what cannot be translated, a line for each.
    """
    conf = _extractor_arguments(args, state_dict or {})
    if problems := [*_part_problems(args), *_extractor_problems(args, conf)]:
        raise UntranslatableError(problems)
    basis, rate, skip = args["encoder_conf"], args[RATE_OPTION], conf["skip_dim"] is not None
    sizes = {
        "bottleneck": conf["bottleneck_dim"],
        "hidden": conf["hidden_dim"],
        "kernel": conf["kernel"],
        "norm": NORMS[conf["norm_type"]],
        "skip": skip,
        "conv_bias": False,
        "norm_eps": GROUP_NORM_EPS if conf["norm_type"] == "GN" else EPS,
        "input_norm_eps": EPS,
    }
    backbone = {
        "name": "conv_tasnet",
        "kernels_ms": [basis["kernel_size"] * 1000 / rate],
        "hop_ms": basis["stride"] * 1000 / rate,
        "num_filters": basis["channel"],
        **sizes,
        "blocks_per_stack": conf["layer"],
        "num_stacks": conf["stack"],
        "fusion_blocks": [conf["i_adapt_layer"]],
        "fusion_place": "output",
        "skip_sum": "network",
        "latent_activation": conf["pre_nonlinear"],
        "mask_activation": conf["nonlinear"],
        "drop_last": True,
        "causal": conf["causal"],
    }
    cue: dict[str, Any] = {"name": "embedding", "points": "all"}
    speaker = None
    if conf["use_spk_emb"]:
        cue |= {"fusion": OUTER_FUSIONS[conf["adapt_layer_type"]], "embedding_dim": conf["spk_emb_dim"]}
    else:
        cue |= {"fusion": FUSIONS[conf["adapt_layer_type"]], "split": skip}
        network = {
            "name": "tcn",
            **sizes,
            "num_blocks": conf["layer"],
            "activation": conf["pre_nonlinear"],
            "embedding_dim": conf["adapt_enroll_dim"] * (2 if skip else 1),
        }
        speaker = {"front_end": "backbone", "network": network}
    return {
        "sample_rate": rate,
        "normalise": "none",
        "level": "fitted" if args["level_free"] else "kept",
        "highpass_hz": 0.0,
        "backbone": backbone,
        "speaker": speaker,
        "cues": [cue],
    }


def rename_td_speakerbeam(
    state_dict: Mapping[str, Tensor], args: Mapping[str, Any], encoder: None = None
) -> dict[str, Tensor]:
    """Return public weights under the names of the network that `translate_td_speakerbeam` describes.

    Raises:
        CheckpointError: a tensor is missing, or has no counterpart.
    """
    conf, weights = _extractor_arguments(args, state_dict), PublicWeights(state_dict)
    renamed = {
        "backbone.bases.0.filters.weight": weights.take("encoder.conv1d.weight"),
        "backbone.decoders.0.filters.weight": weights.take("decoder.convtrans1d.weight"),
    }
    for name, value in _network_weights(weights, f"{TCN}network.", conf, conf["stack"], conf["causal"]):
        # The last layers of the network are those of the mask.
        ours = {"activation": "latent_activation", "output": "mask.0"}.get(name.partition(".")[0])
        renamed[f"backbone.{name if ours is None else name.replace(name.partition('.')[0], ours, 1)}"] = value
    if conf["use_spk_emb"]:
        renamed |= _outer_embedding_weights(weights, conf)
    else:
        for name, value in _network_weights(weights, f"{AUXILIARY}network.", conf, 1, False):
            renamed[f"encoder.network.{name}"] = value.squeeze(-1) if name == "output.weight" else value
        if conf["adapt_layer_type"] == "concat":
            for part in range(_num_parts(conf)):
                layer = weights.take_linear(f"{TCN}adapt_layer.transform.{part}", f"cues.0.fusion.layers.{part}.linear")
                for name, value in layer.items():
                    # Their columns are [h | e], ours [e | h]; the layer has as many rows as h has channels.
                    renamed[name] = value.roll(-len(value), dims=1) if name.endswith("weight") else value
    weights.check_all_taken()
    return {name: value.float() if value.is_floating_point() else value for name, value in renamed.items()}


TD_SPEAKERBEAM = PublicExtractor(
    translate_td_speakerbeam,
    rename_td_speakerbeam,
    lambda args: PublicSignature("waveform", returns_embedding=True),
)


def _num_parts(conf: Mapping[str, Any]) -> int:
    """Return the number of parts of the embedding: two with skip connections."""
    return 1 if conf["skip_dim"] is None else 2


def _extractor_arguments(args: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the extractor's arguments with ESPnet's defaults.

    Networks from before `pre_nonlinear` existed have none; then the layer of the mask comes right after the blocks.
    """
    conf = {**EXTRACTOR_DEFAULTS, **args["extractor_conf"]}
    after_blocks = state_dict.get(f"{TCN}network.3.weight")
    if "pre_nonlinear" not in args["extractor_conf"] and after_blocks is not None and after_blocks.dim() == 3:
        conf["pre_nonlinear"] = "linear"
    return conf


def _part_problems(args: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each part, and each argument of encoder and decoder, that cannot be translated."""
    for part in PARTS:
        known = EXTRACTOR if part == "extractor" else "conv"
        if args[part] != known:
            more = " (the magnitudes of a Fourier transform as features)" if args[part] == "stft" else ""
            yield f"{part}: {shorten(repr(args[part]), 40)}{more} cannot be translated; only {known!r} can"
    for part in ("encoder", "decoder"):
        if args[part] != "conv":
            continue
        conf = args[f"{part}_conf"]
        yield from (f"{part}_conf.{shorten(k, 60)}: cannot be translated" for k in conf if k not in CONV_ARGUMENTS)
        for key in CONV_ARGUMENTS:
            if key not in conf:
                yield f"{part}_conf.{key}: is missing; ESPnet needs it"
            elif not isinstance(conf[key], int) or conf[key] < 1:
                yield f"{part}_conf.{key}: is {shorten(repr(conf[key]), 40)}; a whole number of 1 or more is needed"
            elif part == "decoder" and args["encoder"] == "conv" and conf[key] != args["encoder_conf"].get(key):
                yield f"decoder_conf.{key}: is {conf[key]}; it must be that of encoder_conf"


def _extractor_problems(args: Mapping[str, Any], conf: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each argument of the extractor that cannot be translated, or that cannot run in ESPnet."""
    if args["extractor"] != EXTRACTOR:
        return
    where = "extractor_conf."
    for key in conf:
        if key not in EXTRACTOR_DEFAULTS:
            yield f"{where}{shorten(key, 60)}: cannot be translated; {nearest(shorten(key, 60), EXTRACTOR_DEFAULTS)}"
    for key, allowed in (
        ("norm_type", NORMS),
        ("pre_nonlinear", ("prelu", *ACTIVATIONS)),
        ("nonlinear", ACTIVATIONS),
        ("adapt_layer_type", FUSIONS),
    ):
        if conf[key] not in allowed:
            yield f"{where}{key}: is {shorten(repr(conf[key]), 40)}; {', '.join(map(repr, allowed))} can be translated"
    bottleneck, skip_dim, blocks = conf["bottleneck_dim"], conf["skip_dim"], conf["layer"] * conf["stack"]
    if skip_dim not in (None, bottleneck):
        yield f"{where}skip_dim: is {skip_dim}; ESPnet runs with null or bottleneck_dim ({bottleneck})"
    needed = 2 * bottleneck if conf["adapt_layer_type"] == "muladd" else bottleneck
    if conf["adapt_enroll_dim"] != needed:
        yield (
            f"{where}adapt_enroll_dim: is {conf['adapt_enroll_dim']}; with adapt_layer_type "
            f"{conf['adapt_layer_type']!r} and bottleneck_dim {bottleneck}, ESPnet runs with {needed}"
        )
    if not 0 <= conf["i_adapt_layer"] < blocks:
        yield (
            f"{where}i_adapt_layer: is {conf['i_adapt_layer']}; there are {blocks} blocks, counted from 0, so the "
            "network ignores the enrollment"
        )
    if conf["causal"] and NORMS.get(conf["norm_type"]) == "global":
        yield (
            f"{where}norm_type: {conf['norm_type']!r} averages over time, which a causal network cannot; 'cLN' or 'BN' "
            "can be translated"
        )
    if conf["kernel"] % 2 == 0 or (conf["causal"] and conf["kernel"] == 1):
        yield f"{where}kernel: is {conf['kernel']}; ESPnet runs with odd kernels, from 3 if causal"
    if conf["use_spk_emb"] and args["share_encoder"]:
        yield "model_conf.share_encoder: true cannot run in ESPnet with extractor_conf.use_spk_emb; false can"
    elif not conf["use_spk_emb"] and not args["share_encoder"]:
        yield "model_conf.share_encoder: false runs in ESPnet only with extractor_conf.use_spk_emb (embeddings)"


def _network_weights(
    weights: PublicWeights, prefix: str, conf: Mapping[str, Any], stacks: int, causal: bool
) -> Iterator[tuple[str, Tensor]]:
    """Take the weights of a temporal convolutional network; yield our name and the tensor of each.

    The public network is a list: norm, 1×1, stacks of blocks, activation (but not for `linear`), 1×1. The second half
    of a block is a list in the list: depthwise convolution, a cut if causal, PReLU, norm, 1×1.
    """
    yield from _norm_weights(weights, f"{prefix}0.", "input.0.", "cLN")
    yield "input.1.weight", weights.take(f"{prefix}1.weight")
    shift = 1 if causal else 0
    for block in range(stacks * conf["layer"]):
        stack, layer = divmod(block, conf["layer"])
        theirs, ours = f"{prefix}2.{stack}.{layer}.net.", f"blocks.{block}."
        half = f"{theirs}3.net."
        yield f"{ours}expand.weight", weights.take(f"{theirs}0.weight")
        yield f"{ours}activation1.weight", weights.take(f"{theirs}1.weight")
        yield from _norm_weights(weights, f"{theirs}2.", f"{ours}norm1.", conf["norm_type"])
        yield f"{ours}depthwise.weight", weights.take(f"{half}0.weight")
        yield f"{ours}activation2.weight", weights.take(f"{half}{1 + shift}.weight")
        yield from _norm_weights(weights, f"{half}{2 + shift}.", f"{ours}norm2.", conf["norm_type"])
        yield f"{ours}project.weight", weights.take(f"{half}{3 + shift}.weight")
        if conf["skip_dim"] is not None:
            yield f"{ours}skip.weight", weights.take(f"{theirs}3.skip_conv.weight")
    if conf["pre_nonlinear"] == "prelu":
        yield "activation.weight", weights.take(f"{prefix}3.weight")
    yield "output.weight", weights.take(f"{prefix}{3 if conf['pre_nonlinear'] == 'linear' else 4}.weight")


def _norm_weights(weights: PublicWeights, theirs: str, ours: str, kind: str) -> Iterator[tuple[str, Tensor]]:
    """Take the weights of a norm: gLN and cLN have γ and β of `[1, channels, 1]`, the others torch's names."""
    if kind in ("gLN", "cLN"):
        yield f"{ours}weight", weights.take(f"{theirs}gamma").flatten()
        yield f"{ours}bias", weights.take(f"{theirs}beta").flatten()
        return
    for name in ("weight", "bias", *(("running_mean", "running_var") if kind == "BN" else ())):
        yield f"{ours}{name}", weights.take(f"{theirs}{name}")
    if kind == "BN" and f"{theirs}num_batches_tracked" in weights:
        yield f"{ours}num_batches_tracked", weights.take(f"{theirs}num_batches_tracked")


def _outer_embedding_weights(weights: PublicWeights, conf: Mapping[str, Any]) -> dict[str, Tensor]:
    """Take the layer of an embedding x from elsewhere, e = A x + a, and return our fusion layers, which take it in.

    mul      h ⊙ e              = h ⊙ (A x + a)
    muladd   e_γ ⊙ h + e_β      = (1 + A_γ x + (a_γ − 1)) ⊙ h + A_β x + a_β
    concat   W_h h + W_e e + b  = W_h h + W_e A x + (W_e a + b)
    """
    layer = weights.take_linear(AUXILIARY.rstrip("."), "x")
    parts = zip(*(layer[f"x.{kind}"].double().chunk(_num_parts(conf)) for kind in ("weight", "bias")), strict=True)
    renamed: dict[str, Tensor] = {}
    for i, (weight, bias) in enumerate(parts):
        ours = f"cues.0.fusion.layers.{i}."
        if conf["adapt_layer_type"] == "mul":
            renamed |= {f"{ours}linear.weight": weight, f"{ours}linear.bias": bias}
        elif conf["adapt_layer_type"] == "muladd":
            (scale, shift), (scale_bias, shift_bias) = weight.chunk(2), bias.chunk(2)
            renamed |= {f"{ours}scale.weight": scale, f"{ours}scale.bias": scale_bias - 1}
            renamed |= {f"{ours}shift.weight": shift, f"{ours}shift.bias": shift_bias}
        else:
            adapt = weights.take_linear(f"{TCN}adapt_layer.transform.{i}", "x")
            of_h, of_e = adapt["x.weight"].double().chunk(2, dim=1)
            renamed[f"{ours}linear.weight"] = torch.cat([of_e @ weight, of_h], dim=1)
            renamed[f"{ours}linear.bias"] = of_e @ bias + adapt["x.bias"].double()
    return renamed
