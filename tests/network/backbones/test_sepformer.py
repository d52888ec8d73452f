"""SepFormer: chunks, both transformers against torch's, lengths, half precision, and refused arguments."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones.sepformer import (
    ChunkTransformer,
    SepFormer,
    TransformerLayer,
    cut_chunks,
    join_chunks,
    position_encoding,
)
from wesep_py.network.extraction_network import build_network

SIZES = {"num_filters": 12, "feature_dim": 8, "num_heads": 2, "hidden": 16, "chunk": 20, "chunk_hop": 10}
LAYERS = {"num_repeats": 2, "intra_layers": 1, "inter_layers": 2}


@pytest.fixture
def network() -> SepFormer:
    torch.manual_seed(0)
    return SepFormer(kernel_ms=4, hop_ms=2, **SIZES, **LAYERS).eval()


@pytest.mark.parametrize(("chunk", "hop"), [(4, 2), (4, 4), (5, 2), (4, 1), (6, 3)])
@pytest.mark.parametrize("frames", [1, 3, 4, 5, 17])
def test_cut_chunks_join_to_what_they_were(frames, chunk, hop):
    x = torch.randn(2, 3, frames)
    chunks = cut_chunks(x, chunk, hop)
    for index in range(chunks.shape[2]):
        present = x[:, :, index * hop : index * hop + chunk]
        torch.testing.assert_close(chunks[:, :, index, : present.shape[2]], present)
        assert not chunks[:, :, index, present.shape[2] :].any()
    torch.testing.assert_close(join_chunks(chunks, frames, hop), x)


def test_a_layer_is_torchs_transformer_layer_normalised_before():
    torch.manual_seed(0)
    layer = TransformerLayer(8, 2, 16, 0.0)
    torchs = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=True, layer_norm_eps=1e-6)
    torchs.self_attn.in_proj_weight.data, torchs.self_attn.in_proj_bias.data = (
        layer.projections.weight.data,
        layer.projections.bias.data,
    )
    torchs.self_attn.out_proj.load_state_dict(layer.output.state_dict())
    torchs.linear1.load_state_dict(layer.linear[0].state_dict())
    torchs.linear2.load_state_dict(layer.linear[2].state_dict())
    x = torch.randn(3, 7, 8)
    torch.testing.assert_close(layer(x), torchs(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("across", [False, True])
def test_frames_attend_within_their_chunk_or_across_chunks(across):
    """Without overlap: a changed frame changes its own chunk, or its own place in every chunk. The norm is left out."""
    torch.manual_seed(0)
    block = ChunkTransformer(1, 8, 2, 16, 0.0, chunk=5, chunk_hop=5, across=across).eval()
    block.norm = nn.Identity()
    x = torch.randn(1, 8, 20)
    changed = x.clone()
    changed[:, :, 7] += torch.randn(8)  # place 2 of chunk 1
    moved = (block(changed) - block(x)).abs().amax(dim=1)[0] > 1e-6
    expected = [2, 7, 12, 17] if across else [5, 6, 7, 8, 9]
    assert moved.nonzero().flatten().tolist() == expected


def test_the_order_of_frames_matters():
    block = ChunkTransformer(1, 8, 2, 16, 0.0, chunk=10, chunk_hop=10, across=False).eval()
    x = torch.randn(1, 8, 10)
    assert not torch.allclose(block(x.flip(2)).flip(2), block(x), atol=1e-3)
    encoding = position_encoding(300, 8, x)
    assert encoding.shape == (300, 8) and torch.cdist(encoding, encoding).fill_diagonal_(1).min() > 0.01


def test_an_embedding_is_fused_before_each_transformer(network):
    features, points = network.analyse(torch.randn(2, 3000)).features, []
    latent, state = network.encode(features, lambda point, latent: points.append(latent.shape) or latent)
    assert points == [(2, 8, features.shape[-1])] * 4 == [latent.shape] * 4
    assert network.num_fusion_points == 4 and state is None and len(network.blocks) == 4
    assert [block.across for block in network.blocks] == [False, True, False, True]


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 2000])
def test_any_length_returns(network, length):
    analysis = network.analyse(torch.randn(2, length))
    assert analysis.num_frames == int(network.num_frames(torch.tensor(length)))
    latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    (estimate,) = network.synthesise(latent, analysis, length)
    assert estimate.shape == (2, length) and estimate.isfinite().all()


@pytest.mark.processor
def test_half_precision_changes_little(network):
    waveform = torch.randn(2, 3000)

    def run() -> torch.Tensor:
        analysis = network.analyse(waveform)
        latent, _ = network.encode(analysis.features, lambda point, latent: latent)
        return network.synthesise(latent, analysis, 3000)[0]

    with torch.no_grad():
        full = run()
        with torch.autocast("cpu", torch.bfloat16):
            half = run()
    assert half.dtype == torch.float32
    assert (half - full).norm() / full.norm() < 0.05


def test_dropout_is_for_training_only():
    torch.manual_seed(0)
    network = SepFormer(kernel_ms=4, hop_ms=2, **SIZES, **LAYERS, dropout=0.5)
    features = network.analyse(torch.randn(1, 2000)).features
    first, second = (network.encode(features, lambda point, latent: latent)[0] for _ in range(2))
    assert not torch.allclose(first, second)
    network.eval()
    first, second = (network.encode(features, lambda point, latent: latent)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hop_ms": 5, "kernel_ms": 4}, "hop_ms: is 5"),
        ({"feature_dim": 9}, "feature_dim: is 9"),
        ({"chunk_hop": 21}, "chunk_hop: is 21"),
        ({"dropout": 1}, "dropout: is 1"),
        ({"num_repeats": 0}, "need 1 or more"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_network({"backbone": {"name": "sepformer", **SIZES, **arguments}, "cues": [{"name": "tf_map"}]})
