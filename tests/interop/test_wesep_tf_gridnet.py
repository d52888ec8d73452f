from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import wesep_py.network.backbones.tf_gridnet
from tests.interop.public import read, relative_error
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.interop import wesep_tf_gridnet
from wesep_py.interop.public_checkpoints import PublicWeights
from wesep_py.network.backbones.tf_gridnet import WindowedRNN
from wesep_py.network.extraction_network import build_network

ARGS = {
    "n_layers": 1,
    "lstm_hidden_units": 4,
    "attn_n_head": 2,
    "emb_dim": 6,
    "spk_emb_dim": 8,
    "joint_training": False,
}


def public_recurrent_layer(kernel: int, hop: int, dim: int, hidden: int) -> dict[str, torch.Tensor]:
    """Random weights of one recurrent layer of the public layout."""
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


@pytest.mark.parametrize("name", ["wesep_tfgridnet_concat", "wesep_tfgridnet_multiply"])
def test_computes_what_the_public_network_computes(shared_parity, name):
    config, weights, (mixture, embedding), (expected,) = read(shared_parity, name)
    args = config["args"]
    network = build_network(wesep_tf_gridnet.translate(args)).eval()
    network.load_state_dict(wesep_tf_gridnet.rename(weights, args))
    with torch.no_grad():
        out = network.extract(mixture, {"0.embedding": embedding}).waveforms[0]
    assert out.shape == expected.shape
    assert relative_error(out, expected) < 1e-4


@pytest.mark.parametrize(("kernel", "hop"), [(1, 1), (3, 3), (4, 1), (4, 2)])
def test_a_recurrent_layer_computes_what_the_public_one_does(kernel, hop):
    """Slow reference: where steps do not overlap, the public layer reshapes; where they do, it unfolds."""
    torch.manual_seed(0)
    dim, hidden, x = 3, 5, torch.randn(2, 12, 3)
    args = {"emb_ks": kernel, "emb_hs": hop, "emb_dim": dim}
    public = public_recurrent_layer(kernel, hop, dim, hidden)
    layer = WindowedRNN(dim, hidden, kernel, hop, causal=False)
    mapped = wesep_tf_gridnet.recurrent_weights(PublicWeights(public), "intra", "ours", args)
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


def public_weights() -> dict[str, torch.Tensor]:
    """Random weights of the whole public layout for `ARGS` at 65 bins, without the fusion."""
    torch.manual_seed(0)
    dim, bins, heads, size = 6, 65, 2, 8
    weights = {"conv.0.weight": torch.randn(dim, 2, 3, 3), "conv.0.bias": torch.randn(dim)}
    weights |= {"conv.1.weight": torch.randn(dim), "conv.1.bias": torch.randn(dim)}
    weights |= {"deconv.weight": torch.randn(dim, 2, 3, 3), "deconv.bias": torch.randn(2)}
    layer = public_recurrent_layer(4, 1, dim, 4)
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


def test_film_fills_every_parameter_and_what_is_left_over_is_named():
    args = {**ARGS, "spk_fuse_type": "FiLM"}
    shapes = {"weight": (65, 8), "bias": (65,)}
    fused = {f"spk_fuse.fc.{p}_fcs.0.{k}": torch.randn(s) for p in ("gamma", "beta") for k, s in shapes.items()}
    weights = public_weights() | fused
    network = build_network(wesep_tf_gridnet.translate(args)).eval()
    network.load_state_dict(wesep_tf_gridnet.rename(weights, args))
    out = network.extract(torch.randn(1, 3000), {"0.embedding": torch.randn(1, 8)}).waveforms[0]
    assert out.shape == (1, 3000)
    assert isinstance(network.backbone, wesep_py.network.backbones.tf_gridnet.TFGridNet)
    with pytest.raises(CheckpointError, match=r"spk_transform\.weight"):
        wesep_tf_gridnet.rename(weights | {"spk_transform.weight": torch.zeros(1)}, args)


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
def test_what_cannot_be_translated_is_said(args, message):
    with pytest.raises(ConfigError, match=message):
        wesep_tf_gridnet.translate(args)
