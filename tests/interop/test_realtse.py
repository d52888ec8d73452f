"""Real-TSE's BSRNN: several cues, and tensors that do not fit. Its fixtures are compared in `test_wesep.py`."""

from __future__ import annotations

import pytest
import torch

from tests.interop.public import read
from wesep_py.common.errors import CheckpointError
from wesep_py.interop import load_wesep
from wesep_py.interop.realtse import translate_realtse
from wesep_py.network.extraction_network import build_network


def test_several_cues_at_once_are_sorted_and_run():
    features = {
        "listen": {"enabled": True, "glue": 512},
        "tfmap": {"enabled": True},
        "spkemb": {"enabled": False},
        "usef": {"enabled": True, "approx_qk_dim": 514, "n_head": 2, "t_ksize": 3},
    }
    args = {"separator": {"feature_dim": 8, "num_repeat": 1}, "speaker": {"features": features}}
    model = translate_realtse(args)
    assert [cue["name"] for cue in model["cues"]] == ["usef", "tf_map", "listen_first"]
    out = build_network(model)(torch.randn(1, 3000), torch.randn(1, 4000))
    assert out.waveforms[0].shape == (1, 3000)


def test_missing_tensor_is_named(shared_parity):
    config, weights, _, _ = read(shared_parity, "realtse_bsrnn_tfmap_causal")
    del weights["sep_model.separator.separation.0.band_rnn.proj.bias"]
    with pytest.raises(CheckpointError, match=r"separation\.0\.band_rnn\.proj\.bias"):
        load_wesep(config, weights)


def test_cue_with_an_encoder_of_its_own_is_refused(shared_parity):
    config, weights, _, _ = read(shared_parity, "realtse_bsrnn_spkemb_causal")
    weights["spk_ft.spkemb.encoder.spk_model.linear.bias"] = torch.ones(24)
    with pytest.raises(CheckpointError, match="encoder of its own"):
        load_wesep(config, weights)
