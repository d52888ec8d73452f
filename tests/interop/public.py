"""Fixtures of public networks, and random weights of the layout that public networks have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from wesep_py.interop.wespeaker_networks import translate_network
from wesep_py.network.speaker import SpeakerNetwork, speaker_networks


class Fixture(NamedTuple):
    """A public network's configuration, its weights, its inputs and its outputs."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: list[Tensor]
    outputs: list[Tensor]


def read(folder: Path, name: str) -> Fixture:
    """Return the fixture of a name without its ending."""
    with safe_open(folder / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    of_kind = {kind: [tensors[key] for key in sorted(tensors) if key.startswith(kind)] for kind in ("input", "output")}
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    return Fixture(config, weights, of_kind["input"], of_kind["output"])


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Return ‖ours − theirs‖ / ‖theirs‖ over the samples that both have."""
    assert ours.shape[:-1] == theirs.shape[:-1]
    return float((ours[..., : theirs.shape[-1]] - theirs).norm() / theirs.norm())


DPCCN_ARGS = {"win": 512, "stride": 128, "spk_emb_dim": 8, "joint_training": False, "tcn_blocks": 2, "tcn_layers": 2}
TF_GRIDNET_ARGS = {
    "n_layers": 1,
    "lstm_hidden_units": 4,
    "attn_n_head": 2,
    "emb_dim": 6,
    "spk_emb_dim": 8,
    "joint_training": False,
}


def dpccn_weights(args) -> dict[str, torch.Tensor]:
    """Return random weights of the public layout, without the fusion; sizes are from its published module tree."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"conv2d": (16, 2, 3, 3), "avg_proj": (32, 64, 1, 1)}
    shapes |= {f"avg_pool.{i}.1": (8, 32, 1, 1) for i in range(4)}
    widths = [16, 32, 32, 32, 32, 64, 128, 384]

    def dense(name: str, inside: int, growth: int, out: int) -> None:
        for i in range(5):
            shapes[f"{name}.conv{i + 1}.conv2d"] = (out if i == 4 else growth, inside + i * growth, 3, 3)

    dense("encoder.0", 16, 16, 16)
    for level in range(1, 8):
        above, width = widths[level - 1], widths[level]
        down, up = f"encoder.{level}", f"decoder.{7 - level}"
        shapes[f"{down}.0.conv2d" if level <= 4 else f"{down}.conv2d"] = (width, above, 3, 3)
        shapes[f"{up}.1.convtrans2d" if level <= 4 else f"{up}.convtrans2d"] = (2 * width, above, 3, 3)
        if level <= 4:
            dense(f"{down}.1", width, width, width)
            dense(f"{up}.0", 2 * width, width, 2 * width)
    dense("decoder.7", 32, 16, 32)
    for repeat in range(args["tcn_layers"]):
        for block in range(args["tcn_blocks"]):
            shapes[f"tcn_layers.{repeat}.{block}.dconv1"] = (384, 1, 3)
            shapes[f"tcn_layers.{repeat}.{block}.dconv2"] = (384, 384, 1)
    weights = {f"{name}.weight": torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    bias = {f"{n}.bias": torch.randn(s[1] if "trans" in n else s[0]) * 0.05 for n, s in shapes.items()}
    return weights | bias | {"deconv2d.weight": torch.randn(32, 2, 3, 3) * 0.05, "deconv2d.bias": torch.randn(2) * 0.05}


def recurrent_layer_weights(kernel: int, hop: int, dim: int, hidden: int) -> dict[str, torch.Tensor]:
    """Return random weights of one recurrent layer of TF-GridNet's public layout."""
    rnn = torch.nn.LSTM(dim * kernel, hidden, bidirectional=True)
    last = (
        torch.nn.Linear(2 * hidden, dim * kernel)
        if kernel == hop
        else torch.nn.ConvTranspose1d(2 * hidden, dim, kernel, hop)
    )
    norm = {"norm.weight": torch.randn(dim), "norm.bias": torch.randn(dim)}
    rest = {
        **{f"rnn.{k}": v for k, v in rnn.state_dict().items()},
        **{f"linear.{k}": v for k, v in last.state_dict().items()},
    }
    return {f"intra_{name}": tensor for name, tensor in (norm | rest).items()}


def tf_gridnet_weights() -> dict[str, torch.Tensor]:
    """Return random weights of the public layout for `TF_GRIDNET_ARGS` at 65 bins, without the fusion."""
    torch.manual_seed(0)
    dim, bins, heads, size = 6, 65, 2, 8
    weights = {"conv.0.weight": torch.randn(dim, 2, 3, 3), "conv.0.bias": torch.randn(dim)}
    weights |= {"conv.1.weight": torch.randn(dim), "conv.1.bias": torch.randn(dim)}
    weights |= {"deconv.weight": torch.randn(dim, 2, 3, 3), "deconv.bias": torch.randn(2)}
    layer = recurrent_layer_weights(4, 1, dim, 4)
    weights |= {f"blocks.0.{name}": tensor for name, tensor in layer.items()}
    weights |= {f"blocks.0.{name.replace('intra', 'inter')}": tensor for name, tensor in layer.items()}
    for letter, channels in (("Q", size), ("K", size), ("V", dim // heads)):
        weights[f"blocks.0.attn_conv_{letter}.weight"] = torch.randn(heads * channels, dim, 1, 1)
        weights[f"blocks.0.attn_conv_{letter}.bias"] = torch.randn(heads * channels)
        weights[f"blocks.0.attn_norm_{letter}.act.weight"] = torch.randn(heads)
        for part in ("gamma", "beta"):
            weights[f"blocks.0.attn_norm_{letter}.{part}"] = torch.randn(1, heads, channels, 1, bins)
    weights |= {"blocks.0.attn_concat_proj.0.weight": torch.randn(dim, dim, 1, 1)}
    weights |= {
        "blocks.0.attn_concat_proj.0.bias": torch.randn(dim),
        "blocks.0.attn_concat_proj.1.weight": torch.ones(1),
    }
    for part in ("gamma", "beta"):
        weights[f"blocks.0.attn_concat_proj.2.{part}"] = torch.randn(1, dim, 1, bins)
    return weights


XVECTOR = {"model": "XVEC", "args": {"feat_dim": 20, "hid_dim": 8, "stats_dim": 12, "embed_dim": 6}}
XVECTOR_LAYERS = (("convs", "conv_1d"), ("norms", "bn"))


def public_xvector() -> tuple[SpeakerNetwork, dict[str, torch.Tensor]]:
    """Return a small network of ours, and its weights under their public names."""
    torch.manual_seed(0)
    network = speaker_networks.build(
        translate_network(XVECTOR["model"], XVECTOR["args"]), "network", num_mel_bins=20
    ).eval()
    names = {"linear.": "seg_1.", "second.1.": "seg_bn_1.", "second.2.": "seg_2."}
    names |= {f"{ours}.{i}.": f"frame_{i + 1}.{theirs}." for i in range(5) for ours, theirs in XVECTOR_LAYERS}
    public: dict[str, torch.Tensor] = {}
    for key, value in network.state_dict().items():
        ours = next(start for start in names if key.startswith(start))
        public[names[ours] + key.removeprefix(ours)] = value
    return network, public
