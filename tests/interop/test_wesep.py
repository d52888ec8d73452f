"""Every fixture of WeSep and real-TSE through the one door, `load_wesep`."""

from __future__ import annotations

import pytest
import torch

from tests.interop.public import read, relative_error
from wesep_py.common.errors import ConfigError
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
    config, weights, inputs, expected = read(shared_parity, name)
    with torch.no_grad():
        out = load_wesep(config, weights)(*inputs)
    assert isinstance(out, tuple) == (len(expected) > 1)
    outputs = out if isinstance(out, tuple) else (out,)
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert relative_error(ours, theirs) < 1e-4


def test_an_unknown_network_names_those_there_are():
    with pytest.raises(ConfigError) as caught:
        load_wesep({"model": "DPCNN", "args": {}}, {})
    assert "did you mean 'DPCCN'" in str(caught.value)
    assert all(name in str(caught.value) for name in ARCHITECTURES)
