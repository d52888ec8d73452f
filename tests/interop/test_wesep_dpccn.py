from __future__ import annotations

import pytest
import torch

import wesep_py.network.backbones.dpccn
from tests.interop.public import read, relative_error
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.interop import wesep_dpccn
from wesep_py.network.extraction_network import build_network

ARGS = {"win": 512, "stride": 128, "spk_emb_dim": 8, "joint_training": False, "tcn_blocks": 2, "tcn_layers": 2}


def public_weights(args) -> dict[str, torch.Tensor]:
    """Random weights of the public layout, without the fusion: sizes read off its published module tree."""
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


FUSIONS = {
    "concat": {"linear.weight": (257, 265), "linear.bias": (257,)},
    "additive": {"linear.weight": (257, 8), "linear.bias": (257,)},
    "multiply": {"linear.weight": (257, 8), "linear.bias": (257,)},
    "FiLM": {f"{part}_fcs.0.{k}": s for part in ("gamma", "beta") for k, s in (("weight", (257, 8)), ("bias", (257,)))},
}


def test_computes_what_the_public_network_computes(shared_parity):
    config, weights, (mixture, embedding), (expected,) = read(shared_parity, "wesep_dpccn_multiply")
    args = config["args"]
    network = build_network(wesep_dpccn.translate(args)).eval()
    network.load_state_dict(wesep_dpccn.rename(weights, args))
    with torch.no_grad():
        out = network.extract(mixture, {"0.embedding": embedding}).waveforms[0]
    assert out.shape == expected.shape
    assert relative_error(out, expected) < 1e-5


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_fills_every_parameter(fusion):
    args = {**ARGS, "spk_fuse_type": fusion}
    fused = {f"spk_fuse.fc.{name}": torch.randn(shape) for name, shape in FUSIONS[fusion].items()}
    network = build_network(wesep_dpccn.translate(args)).eval()
    network.load_state_dict(wesep_dpccn.rename(public_weights(args) | fused, args))
    out = network.extract(torch.randn(1, 3000), {"0.embedding": torch.randn(1, 8)}).waveforms[0]
    assert out.shape == (1, 3000)
    assert torch.isfinite(out).all()


def test_what_is_missing_or_left_over_is_named():
    weights = public_weights(ARGS) | {"spk_fuse.fc.linear.weight": torch.zeros(257, 8)}
    with pytest.raises(CheckpointError, match=r"spk_fuse\.fc\.linear\.bias"):
        wesep_dpccn.rename(weights, ARGS)
    weights |= {"spk_fuse.fc.linear.bias": torch.zeros(257), "pred_linear.weight": torch.zeros(2, 8)}
    with pytest.raises(CheckpointError, match=r"pred_linear\.weight"):
        wesep_dpccn.rename(weights, ARGS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"strid": 128}, "strid: cannot be translated; did you mean 'stride'"),
        ({"use_spk_transform": True, "joint_training": False, "spk_emb_dim": 192}, "use_spk_transform"),
        ({"spk_feat": True, "spk_model": "X"}, "encoder: 'X'"),
        ({"feat_type": "other", "spk_model": "ResNet34"}, "feat_type"),
        ({"feature_dim": 129}, "feature_dim: 129 cannot be translated; only 257 is"),
        ({"causal": True}, "causal"),
        ({"spk_fuse_type": "product", "joint_training": False}, "spk_fuse_type"),
    ],
)
def test_what_cannot_be_translated_is_said(args, message):
    with pytest.raises(ConfigError, match=message):
        wesep_dpccn.translate(args)


def test_the_translation_is_a_configuration_of_the_registered_backbone():
    """Every key of it is an argument of the backbone, at another rate too."""
    model = wesep_dpccn.translate({**ARGS, "sr": 8000, "win": 256, "stride": 64, "multi_task": False})
    network = build_network(model)
    assert isinstance(network.backbone, wesep_py.network.backbones.dpccn.DPCCN)
    assert (network.backbone.stft.window_length, network.backbone.stride, network.sample_rate) == (256, 64, 8000)
