from __future__ import annotations

import pytest
import torch

from tests.interop.public import read, relative_error
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.interop import load_wesep, realtse_bsrnn, wesep_bsrnn
from wesep_py.network.extraction_network import build_network

WESEP = ["concat_multi", "additive_single", "multiply_single", "FiLM_multi"]
REAL_TSE = [
    "tfmap_causal",
    "tfmap_noncausal",
    "spkemb_causal",
    "tfmap_context_causal",
    "usef_causal",
    "usef_noncausal",
    "listen_causal",
    "listen_noncausal",
]
FIXTURES = [f"wesep_bsrnn_{name}" for name in WESEP] + [f"realtse_bsrnn_{name}" for name in REAL_TSE]
TOLERANCE = 1e-4
ALONE = {"joint_training": False, "use_spk_transform": False}


@pytest.mark.parametrize("name", FIXTURES)
def test_computes_what_the_public_network_computes(shared_parity, name):
    config, weights, inputs, outputs = read(shared_parity, name)
    with torch.no_grad():
        out = load_wesep(config, weights)(*inputs)
    assert len(outputs) == 1 and out.shape[:-1] == outputs[0].shape[:-1]
    assert 0 <= out.shape[-1] - outputs[0].shape[-1] < 128  # real-TSE's inverse STFT forgets what follows the last hop
    assert relative_error(out, outputs[0]) < TOLERANCE


def test_a_tensor_that_finds_no_place_is_named(shared_parity):
    config, weights, _, _ = read(shared_parity, "wesep_bsrnn_multiply_single")
    with pytest.raises(CheckpointError, match=r"find no place: surplus\.weight"):
        load_wesep(config, weights | {"surplus.weight": torch.ones(1)})


def test_a_missing_tensor_is_named(shared_parity):
    config, weights, _, _ = read(shared_parity, "realtse_bsrnn_tfmap_causal")
    del weights["sep_model.separator.separation.0.band_rnn.proj.bias"]
    with pytest.raises(CheckpointError, match=r"separation\.0\.band_rnn\.proj\.bias"):
        load_wesep(config, weights)


def test_weights_of_another_size_are_refused(shared_parity):
    config, weights, _, _ = read(shared_parity, "wesep_bsrnn_multiply_single")
    config["args"]["feature_dim"] = 24
    with pytest.raises(CheckpointError, match="do not fit the arguments"):
        load_wesep(config, weights)


def test_a_cue_with_an_encoder_of_its_own_is_refused(shared_parity):
    config, weights, _, _ = read(shared_parity, "realtse_bsrnn_spkemb_causal")
    weights["spk_ft.spkemb.encoder.spk_model.linear.bias"] = torch.ones(24)
    with pytest.raises(CheckpointError, match="encoder of its own"):
        load_wesep(config, weights)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": "BSRN", "args": {}}, "no network is called 'BSRN'; did you mean 'BSRNN'"),
        ({"model": "BSRNN", "args": {"spk_fuse_type": "film", **ALONE}}, "no fusion is called 'film'; (allowed: FiLM"),
        ({"model": "BSRNN", "args": {"spk_emb_dim": 192, **ALONE, "use_spk_transform": True}}, "use_spk_transform"),
        ({"model": "BSRNN", "args": {"feature_dims": 8}}, "feature_dims: cannot be translated; did you mean 'feature_"),
        ({"model": "BSRNN", "args": {"spk_feat": True, "spk_model": "X"}}, "encoder: 'X'"),
        ({"model": "TSE_BSRNN_SPK", "args": {"separator": {"nspk": 2}, "speaker": {}}}, "nspk: is 2"),
        (
            {"model": "TSE_BSRNN_SPK", "args": {"separator": {}, "speaker": {"features": {"tf": {"enabled": True}}}}},
            "no cue is called 'tf'",
        ),
    ],
)
def test_what_cannot_be_translated_is_one_line(config, message):
    with pytest.raises(ConfigError) as caught:
        load_wesep(config, {})
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "args",
    [
        {"feature_dim": 8, "num_repeat": 1},
        {"feature_dim": 8, "num_repeat": 3, "multi_fuse": False, "spk_emb_dim": 5},
        {"feature_dim": 8, "num_repeat": 2, "sr": 24000, "win": 768, "stride": 192, "spk_fuse_type": "FiLM"},
    ],
)
def test_a_translated_configuration_builds(args):
    model = wesep_bsrnn.translate({**ALONE, **args})
    network = build_network(model)
    assert network.backbone.num_fusion_points == args["num_repeat"]
    assert network.backbone.stride == args.get("stride", 128)
    assert len(network.cues[0].fusion.layers) == (args["num_repeat"] if args.get("multi_fuse", True) else 1)
    embedding = torch.randn(1, args.get("spk_emb_dim", 256))
    assert network.extract(torch.randn(1, 3000), {"0.embedding": embedding}).waveforms[0].shape == (1, 3000)


def test_wesep_has_one_band_for_all_that_the_list_leaves():
    """Its 33 widths are the standard 31 and the remainder, however wide: 257 − 249 bins at 16 kHz."""
    at_16k = build_network(wesep_bsrnn.translate({**ALONE, "feature_dim": 8, "num_repeat": 1}))
    assert at_16k.backbone.num_bands == 32 and at_16k.backbone.groups[-1].width == 8
    at_48k = build_network(
        wesep_bsrnn.translate({**ALONE, "feature_dim": 8, "num_repeat": 1, "sr": 48000, "win": 1536, "stride": 384})
    )
    assert at_48k.backbone.num_bands == 32 and at_48k.backbone.groups[-1].width == 769 - 249


def test_several_real_tse_cues_at_once():
    features = {
        "listen": {"enabled": True, "glue": 512},
        "tfmap": {"enabled": True},
        "spkemb": {"enabled": False},
        "usef": {"enabled": True, "approx_qk_dim": 514, "n_head": 2, "t_ksize": 3},
    }
    args = {"separator": {"feature_dim": 8, "num_repeat": 1}, "speaker": {"features": features}}
    model = realtse_bsrnn.translate(args)
    assert [cue["name"] for cue in model["cues"]] == ["usef", "tf_map", "listen_first"]
    out = build_network(model)(torch.randn(1, 3000), torch.randn(1, 4000))
    assert out.waveforms[0].shape == (1, 3000)
