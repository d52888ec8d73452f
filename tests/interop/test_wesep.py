"""Every fixture of WeSep and real-TSE through the one door, `load_wesep`."""

from __future__ import annotations

import json

import pytest
import torch

from wesep_py.errors import ConfigError
from wesep_py.interop import load_wesep
from wesep_py.interop.wesep import ARCHITECTURES

FIXTURES = [
    "wesep_bsrnn_FiLM_multi",
    "wesep_bsrnn_joint_fbank",
    "wesep_bsrnn_joint_wave",
    "wesep_convtasnet_Deep",
    "wesep_convtasnet_None",
    "wesep_dpccn_multiply",
    "wesep_spexplus_concatConv_multi",
    "wesep_tfgridnet_concat",
    "wesep_tfgridnet_multiply",
    "realtse_bsrnn_tfmap_context_causal",
]


@pytest.mark.parametrize("name", FIXTURES)
def test_the_public_signature_and_return(shared_parity, name):
    from safetensors import safe_open

    with safe_open(shared_parity / f"{name}.safetensors", framework="pt") as fixture:
        tensors = {key: fixture.get_tensor(key) for key in fixture.keys()}  # noqa: SIM118
        config = json.loads(fixture.metadata()["config"])
    weights = {key.removeprefix("weight/"): tensor for key, tensor in tensors.items() if key.startswith("weight/")}
    expected = [tensors[key] for key in sorted(tensors) if key.startswith("output/")]
    with torch.no_grad():
        out = load_wesep(config, weights)(tensors["input/0"], tensors["input/1"])
    assert isinstance(out, tuple) == (len(expected) > 1)
    outputs = out if isinstance(out, tuple) else (out,)
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape[:-1] == theirs.shape[:-1]
        error = ours[..., : theirs.shape[-1]] - theirs
        assert error.norm() / theirs.norm() < 1e-4


def test_an_unknown_network_names_those_there_are():
    with pytest.raises(ConfigError) as caught:
        load_wesep({"model": "DPCNN", "args": {}}, {})
    assert "did you mean 'DPCCN'" in str(caught.value)
    assert all(name in str(caught.value) for name in ARCHITECTURES)
