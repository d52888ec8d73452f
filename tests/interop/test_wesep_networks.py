"""WeSep's BSRNN, DPCCN and TF-GridNet: translated arguments build, and every tensor of the public layout is used."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.interop.public import (
    DPCCN_ARGS,
    TF_GRIDNET_ARGS,
    dpccn_weights,
    read,
    recurrent_layer_weights,
    relative_error,
    tf_gridnet_weights,
)
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.interop.public_checkpoints import PublicWeights
from wesep_py.interop.wesep_networks import BSRNN, DPCCN, TF_GRIDNET, tf_gridnet_recurrent_weights
from wesep_py.network.backbones import dpccn, tf_gridnet
from wesep_py.network.extraction_network import build_network

WITHOUT_ENCODER = {"joint_training": False, "use_spk_transform": False}


# BSRNN


@pytest.mark.parametrize(
    "args",
    [
        {"feature_dim": 8, "num_repeat": 1},
        {"feature_dim": 8, "num_repeat": 3, "multi_fuse": False, "spk_emb_dim": 5},
        {"feature_dim": 8, "num_repeat": 2, "sr": 24000, "win": 768, "stride": 192, "spk_fuse_type": "FiLM"},
    ],
)
def test_translated_bsrnn_builds_and_runs(args):
    model = BSRNN.translate({**WITHOUT_ENCODER, **args})
    network = build_network(model)
    assert network.backbone.num_fusion_points == args["num_repeat"]
    assert network.backbone.stride == args.get("stride", 128)
    assert len(network.cues[0].fusion.layers) == (args["num_repeat"] if args.get("multi_fuse", True) else 1)
    embedding = torch.randn(1, args.get("spk_emb_dim", 256))
    assert network.extract(torch.randn(1, 3000), {"0.embedding": embedding}).waveforms[0].shape == (1, 3000)


def test_the_last_band_takes_all_bins_up_to_nyquist():
    """WeSep's band list: the standard bands, then all bins that are left, 257 − 249 of them at 16 kHz."""
    at_16k = build_network(BSRNN.translate({**WITHOUT_ENCODER, "feature_dim": 8, "num_repeat": 1}))
    assert at_16k.backbone.num_bands == 32 and at_16k.backbone.groups[-1].width == 8
    at_48k = build_network(
        BSRNN.translate({**WITHOUT_ENCODER, "feature_dim": 8, "num_repeat": 1, "sr": 48000, "win": 1536, "stride": 384})
    )
    assert at_48k.backbone.num_bands == 32 and at_48k.backbone.groups[-1].width == 769 - 249


# DPCCN


FUSION_SHAPES = {
    "concat": {"linear.weight": (257, 265), "linear.bias": (257,)},
    "additive": {"linear.weight": (257, 8), "linear.bias": (257,)},
    "multiply": {"linear.weight": (257, 8), "linear.bias": (257,)},
    "FiLM": {f"{part}_fcs.0.{k}": s for part in ("gamma", "beta") for k, s in (("weight", (257, 8)), ("bias", (257,)))},
}


def test_dpccn_computes_what_the_public_network_computes(shared_parity):
    config, weights, (mixture, embedding), (expected,) = read(shared_parity, "wesep_dpccn_multiply")
    args = config["args"]
    network = build_network(DPCCN.translate(args)).eval()
    network.load_state_dict(DPCCN.rename(weights, args))
    with torch.no_grad():
        out = network.extract(mixture, {"0.embedding": embedding}).waveforms[0]
    assert out.shape == expected.shape
    assert relative_error(out, expected) < 1e-5


@pytest.mark.parametrize("fusion", FUSION_SHAPES)
def test_dpccn_parameters_are_all_filled_for_each_fusion(fusion):
    args = {**DPCCN_ARGS, "spk_fuse_type": fusion}
    fused = {f"spk_fuse.fc.{name}": torch.randn(shape) for name, shape in FUSION_SHAPES[fusion].items()}
    network = build_network(DPCCN.translate(args)).eval()
    network.load_state_dict(DPCCN.rename(dpccn_weights(args) | fused, args))
    out = network.extract(torch.randn(1, 3000), {"0.embedding": torch.randn(1, 8)}).waveforms[0]
    assert out.shape == (1, 3000)
    assert torch.isfinite(out).all()


def test_missing_and_surplus_tensors_of_dpccn_are_named():
    weights = dpccn_weights(DPCCN_ARGS) | {"spk_fuse.fc.linear.weight": torch.zeros(257, 8)}
    with pytest.raises(CheckpointError, match=r"spk_fuse\.fc\.linear\.bias"):
        DPCCN.rename(weights, DPCCN_ARGS)
    weights |= {"spk_fuse.fc.linear.bias": torch.zeros(257), "pred_linear.weight": torch.zeros(2, 8)}
    with pytest.raises(CheckpointError, match=r"pred_linear\.weight"):
        DPCCN.rename(weights, DPCCN_ARGS)


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
def test_untranslatable_arguments_of_dpccn_are_named(args, message):
    with pytest.raises(ConfigError, match=message):
        DPCCN.translate(args)


def test_translated_dpccn_builds_at_another_sample_rate():
    """Every key of the translation is an argument of the backbone."""
    model = DPCCN.translate({**DPCCN_ARGS, "sr": 8000, "win": 256, "stride": 64, "multi_task": False})
    network = build_network(model)
    assert isinstance(network.backbone, dpccn.DPCCN)
    assert (network.backbone.stft.window_length, network.backbone.stride, network.sample_rate) == (256, 64, 8000)


# TF-GridNet


@pytest.mark.parametrize("name", ["wesep_tfgridnet_concat", "wesep_tfgridnet_multiply"])
def test_tf_gridnet_computes_what_the_public_network_computes(shared_parity, name):
    config, weights, (mixture, embedding), (expected,) = read(shared_parity, name)
    args = config["args"]
    network = build_network(TF_GRIDNET.translate(args)).eval()
    network.load_state_dict(TF_GRIDNET.rename(weights, args))
    with torch.no_grad():
        out = network.extract(mixture, {"0.embedding": embedding}).waveforms[0]
    assert out.shape == expected.shape
    assert relative_error(out, expected) < 1e-4


@pytest.mark.parametrize(("kernel", "hop"), [(1, 1), (3, 3), (4, 1), (4, 2)])
def test_recurrent_layer_computes_what_the_public_one_computes(kernel, hop):
    """Slow reference: where steps do not overlap, the public layer reshapes; where they do, it unfolds."""
    torch.manual_seed(0)
    dim, hidden, x = 3, 5, torch.randn(2, 12, 3)
    args = {"emb_ks": kernel, "emb_hs": hop, "emb_dim": dim}
    public = recurrent_layer_weights(kernel, hop, dim, hidden)
    layer = tf_gridnet.WindowedRNN(dim, hidden, kernel, hop, causal=False)
    mapped = tf_gridnet_recurrent_weights(PublicWeights(public), "intra", "ours", args)
    layer.load_state_dict({name.removeprefix("ours."): tensor for name, tensor in mapped.items()})

    rnn = torch.nn.LSTM(dim * kernel, hidden, batch_first=True, bidirectional=True)
    rnn.load_state_dict({k.removeprefix("intra_rnn."): v for k, v in public.items() if "rnn" in k})
    normed = F.layer_norm(x, (dim,), public["intra_norm.weight"], public["intra_norm.bias"], 1e-5)
    weight, bias = public["intra_linear.weight"], public["intra_linear.bias"]
    if kernel == hop:
        out, _ = rnn(normed.reshape(2, -1, kernel * dim))
        expected = x + F.linear(out, weight, bias).view(2, -1, dim)
    else:
        unfolded = F.unfold(normed.transpose(1, 2)[..., None], (kernel, 1), stride=(hop, 1))
        out, _ = rnn(unfolded.transpose(1, 2))
        expected = x + F.conv_transpose1d(out.transpose(1, 2), weight, bias, stride=hop).transpose(1, 2)
    torch.testing.assert_close(layer(x)[0], expected)


def test_film_fills_all_parameters_and_a_surplus_tensor_is_named():
    args = {**TF_GRIDNET_ARGS, "spk_fuse_type": "FiLM"}
    shapes = {"weight": (65, 8), "bias": (65,)}
    fused = {f"spk_fuse.fc.{p}_fcs.0.{k}": torch.randn(s) for p in ("gamma", "beta") for k, s in shapes.items()}
    weights = tf_gridnet_weights() | fused
    network = build_network(TF_GRIDNET.translate(args)).eval()
    network.load_state_dict(TF_GRIDNET.rename(weights, args))
    out = network.extract(torch.randn(1, 3000), {"0.embedding": torch.randn(1, 8)}).waveforms[0]
    assert out.shape == (1, 3000)
    assert isinstance(network.backbone, tf_gridnet.TFGridNet)
    with pytest.raises(CheckpointError, match=r"spk_transform\.weight"):
        TF_GRIDNET.rename(weights | {"spk_transform.weight": torch.zeros(1)}, args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"n_srcs": 2}, "n_srcs: 2 cannot be translated"),
        ({"activation": "relu"}, "activation"),
        ({"emb_dims": 48}, "did you mean 'emb_dim'"),
        ({"spk_feat": True, "spk_model": "X"}, "encoder: 'X'"),
        ({"spk_fuse_type": "product", "joint_training": False}, "spk_fuse_type"),
    ],
)
def test_untranslatable_arguments_of_tf_gridnet_are_named(args, message):
    with pytest.raises(ConfigError, match=message):
        TF_GRIDNET.translate(args)
