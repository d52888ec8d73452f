"""Filterbanks as bases: equal to asteroid's, inverses, learning, streams; the default basis stays as it was."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones import ConvTasNet
from wesep_py.network.backbones.filterbanks import (
    BasisConfig,
    FilterbankDecoder,
    FilterbankEncoder,
    hilbert,
    multiphase_gammatone,
)
from wesep_py.network.extraction_network import build_network
from wesep_py.network.streaming_network import StreamingNetwork

asteroid_filterbanks = pytest.importorskip("asteroid_filterbanks")
KINDS = ["free", "analytic_free", "param_sinc", "multiphase_gammatone", "stft"]
TCN = {
    "kernels_ms": [4],
    "hop_ms": 2,
    "num_filters": 64,
    "bottleneck": 6,
    "hidden": 8,
    "blocks_per_stack": 2,
    "num_stacks": 1,
}


def encoder(kind: str, learned: bool = True, size: int = 64, hop: int = 32, num_filters: int = 64) -> FilterbankEncoder:
    torch.manual_seed(0)
    return FilterbankEncoder(BasisConfig(kind, learned), num_filters, size, hop, 16000)


@pytest.mark.parametrize(("kind", "theirs"), [("free", "FreeFB"), ("param_sinc", "ParamSincFB"), ("stft", "STFTFB")])
def test_filters_and_features_are_those_of_asteroid(kind, theirs):
    ours, size = encoder(kind), 63 if kind == "param_sinc" else 64
    torch.manual_seed(0)
    reference = asteroid_filterbanks.Encoder(getattr(asteroid_filterbanks, theirs)(64, size, 32, sample_rate=16000.0))
    torch.testing.assert_close(ours.filters()[..., :size], reference.filters())
    waveform = torch.randn(2, 640)
    expected = reference(waveform[:, None])
    got = ours(waveform, 19)
    torch.testing.assert_close(
        got, expected[..., :19].relu() if kind == "free" else expected[..., :19], atol=1e-5, rtol=1e-4
    )


def test_gammatones_are_those_of_asteroid_where_numpy_still_allows_them(monkeypatch):
    """Regression: asteroid_filterbanks 0.4.0 uses `np.float` and `np.math`, which NumPy 2 has not."""
    monkeypatch.setattr(np, "float", float, raising=False)
    monkeypatch.setattr(np, "math", math, raising=False)
    module = sys.modules["asteroid_filterbanks.multiphase_gammatone_fb"]
    for num_filters, size in ((128, 16), (64, 40), (20, 32)):
        expected = module.generate_mpgtf(16000, size / 16000, num_filters)
        np.testing.assert_allclose(multiphase_gammatone(num_filters, size, 16000), expected, atol=1e-9)


def test_analytic_filters_have_no_negative_frequencies():
    """Regression: asteroid_filterbanks 0.4.0 reverses the filters in time instead, with torch 1.8 and later."""
    real, imaginary = encoder("analytic_free").filters()[:, 0].chunk(2)
    spectrum = torch.fft.fft(torch.complex(real, imaginary)).abs()
    assert spectrum[:, 33:].max() < 1e-5 * spectrum.max()
    torch.testing.assert_close(
        hilbert(hilbert(real - real.mean(-1, True))), -(real - real.mean(-1, True)), atol=0.2, rtol=0
    )


@pytest.mark.parametrize("kind", ["free", "analytic_free", "stft"])
def test_the_inverse_of_fixed_filters_returns_the_waveform(kind):
    encode = encoder(kind, learned=False, num_filters=128)
    decode = FilterbankDecoder(BasisConfig(kind, False), 128, 16000, encode)
    assert not [p for p in (*encode.parameters(), *decode.parameters()) if p.requires_grad]
    waveform = torch.randn(2, 32 * 20)
    encoded = torch.nn.functional.conv1d(waveform[:, None], encode.filters(), stride=32)
    torch.testing.assert_close(decode(encoded)[:, 64:-64], waveform[:, 64:-64], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_each_basis_trains_streams_and_is_loaded(kind, learned):
    torch.manual_seed(0)
    backbone = {"name": "conv_tasnet", **TCN, "basis": {"kind": kind, "learned": learned}, "causal": True}
    config = {"backbone": backbone, "normalise": "none", "cues": [{"name": "embedding", "embedding_dim": 4}]}
    network = build_network(config)
    prepared = {"0.embedding": torch.randn(1, 4)}
    network.extract(torch.randn(1, 2000), prepared).waveforms[0].square().mean().backward()
    of_basis = {n: p for n, p in network.named_parameters() if n.startswith(("backbone.bases", "backbone.decoders"))}
    assert all(p.grad is not None and p.grad.any() for p in of_basis.values() if p.requires_grad)
    assert any(p.requires_grad for p in of_basis.values()) == learned
    again = build_network(config)
    again.load_state_dict(network.state_dict())
    mixture, step = torch.randn(1, 3000), StreamingNetwork(network.eval())
    with torch.no_grad():
        whole = network.extract(mixture, prepared).waveforms[0]
        torch.testing.assert_close(again.eval().extract(mixture, prepared).waveforms[0], whole, rtol=0, atol=0)
        state, parts = step.initial_state(1), []
        for block in mixture.split(450, dim=1):
            output = step(block, state, prepared)
            state, parts = output.state, [*parts, output.waveform]
    streamed = torch.cat(parts, dim=1)
    tolerance = 1e-5 * max(1.0, float(whole.abs().max()))
    torch.testing.assert_close(streamed, whole[:, : streamed.shape[1]], atol=tolerance, rtol=1e-4)


def test_several_windows_may_have_a_filterbank_each():
    network = ConvTasNet(**{**TCN, "kernels_ms": (2.5, 10, 20), "hop_ms": 1.25, "basis": BasisConfig("param_sinc")})
    analysis = network.analyse(torch.randn(2, 1000))
    latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    assert [tuple(each.shape) for each in network.synthesise(latent, analysis, 1000)] == [(2, 1000)] * 3


def test_the_default_basis_is_unchanged():
    network = ConvTasNet(**TCN)
    names = {name for name in network.state_dict() if name.startswith(("bases", "decoders"))}
    assert names == {"bases.0.filters.weight", "decoders.0.filters.weight"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"basis": {"kind": "stft"}, "num_filters": 32}, "an STFT of 64 samples needs at least as many"),
        ({"basis": {"kind": "free"}, "num_filters": 33}, "needs an even number"),
        ({"basis": {"kind": "free", "synthesis": "inverse"}}, "is for filters that are not trained"),
        ({"basis": {"kind": "free"}, "basis_bias": True}, "no further layers and no bias"),
        ({"basis": {"kind": "mel"}}, "kind"),
    ],
)
def test_impossible_bases_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_network(
            {"backbone": {"name": "conv_tasnet", **TCN, **changes}, "cues": [{"name": "embedding", "embedding_dim": 4}]}
        )


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "asteroid_filterbanks", None)
    with pytest.raises(ConfigError, match=r"pip install 'wesep-py\[filterbanks\]'"):
        encoder("free")
