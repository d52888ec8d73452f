"""All fixtures of WeSep and real-TSE through `load_wesep`, and its errors."""

from __future__ import annotations

import pytest
import torch

from tests.interop.public import read, relative_error
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.interop import load_wesep
from wesep_py.interop.wesep import ARCHITECTURES

FIXTURES = [
    "realtse_bsrnn_listen_causal",
    "realtse_bsrnn_listen_noncausal",
    "realtse_bsrnn_spkemb_causal",
    "realtse_bsrnn_tfmap_causal",
    "realtse_bsrnn_tfmap_context_causal",
    "realtse_bsrnn_tfmap_noncausal",
    "realtse_bsrnn_usef_causal",
    "realtse_bsrnn_usef_noncausal",
    "wesep_bsrnn_FiLM_multi",
    "wesep_bsrnn_additive_single",
    "wesep_bsrnn_concat_multi",
    "wesep_bsrnn_joint_fbank",
    "wesep_bsrnn_joint_wave",
    "wesep_bsrnn_multiply_single",
    "wesep_convtasnet_Deep",
    "wesep_convtasnet_None",
    "wesep_dpccn_multiply",
    "wesep_spexplus_concatConv_multi",
    "wesep_tfgridnet_concat",
    "wesep_tfgridnet_multiply",
]
ALONE = {"joint_training": False, "use_spk_transform": False}


@pytest.mark.parametrize("name", FIXTURES)
def test_loaded_network_computes_what_the_public_one_computes(shared_parity, name):
    """Number and form of the outputs too; real-TSE's inverse STFT leaves out what follows the last hop."""
    config, weights, inputs, expected = read(shared_parity, name)
    with torch.no_grad():
        out = load_wesep(config, weights)(*inputs)
    assert isinstance(out, tuple) == (len(expected) > 1)
    outputs = out if isinstance(out, tuple) else (out,)
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape[:-1] == theirs.shape[:-1]
        assert 0 <= ours.shape[-1] - theirs.shape[-1] < 128
        assert relative_error(ours, theirs) < 1e-4


def test_unknown_network_error_lists_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        load_wesep({"model": "DPCNN", "args": {}}, {})
    assert "did you mean 'DPCCN'" in str(caught.value)
    assert all(name in str(caught.value) for name in ARCHITECTURES)


def test_tensor_without_counterpart_is_named(shared_parity):
    config, weights, _, _ = read(shared_parity, "wesep_bsrnn_multiply_single")
    with pytest.raises(CheckpointError, match=r"without a counterpart here: surplus\.weight"):
        load_wesep(config, weights | {"surplus.weight": torch.ones(1)})


def test_weights_of_another_size_are_refused(shared_parity):
    config, weights, _, _ = read(shared_parity, "wesep_bsrnn_multiply_single")
    config["args"]["feature_dim"] = 24
    with pytest.raises(CheckpointError, match="do not fit the arguments"):
        load_wesep(config, weights)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": "BSRN", "args": {}}, "no network is called 'BSRN'; did you mean 'BSRNN'"),
        (
            {"model": "BSRNN", "args": {"spk_fuse_type": "film", **ALONE}},
            "no fusion is called 'film'; (allowed: FiLM",
        ),
        (
            {"model": "BSRNN", "args": {"spk_emb_dim": 192, **ALONE, "use_spk_transform": True}},
            "use_spk_transform",
        ),
        ({"model": "BSRNN", "args": {"feature_dims": 8}}, "feature_dims: cannot be translated; did you mean 'feature_"),
        ({"model": "BSRNN", "args": {"spk_feat": True, "spk_model": "X"}}, "encoder: 'X'"),
        ({"model": "TSE_BSRNN_SPK", "args": {"separator": {"nspk": 2}, "speaker": {}}}, "nspk: is 2"),
        (
            {"model": "TSE_BSRNN_SPK", "args": {"separator": {}, "speaker": {"features": {"tf": {"enabled": True}}}}},
            "no cue is called 'tf'",
        ),
    ],
)
def test_untranslatable_configuration_is_an_error_of_one_line(config, message):
    with pytest.raises(ConfigError) as caught:
        load_wesep(config, {})
    assert message in str(caught.value) and "\n" not in str(caught.value)
