"""BSRNN: lengths, latency, normalisation and streaming state."""

from __future__ import annotations

import pytest
import torch

from wesep_py.network.backbones import BSRNN


def small(**arguments) -> BSRNN:
    torch.manual_seed(0)
    return BSRNN(**{"feature_dim": 8, "num_blocks": 2, **arguments}).eval()


def run(network: BSRNN, waveform: torch.Tensor) -> torch.Tensor:
    analysis = network.analyse(waveform)
    latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    return network.synthesise(latent, analysis, waveform.shape[1])[0]


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize("causal", [False, True])
def test_the_estimate_has_the_length_of_the_mixture_at_any_rate(sample_rate, causal):
    network = small(sample_rate=sample_rate, causal=causal)
    for length in (1, network.stride - 1, network.stride, 1777):
        out = run(network, torch.randn(2, length))
        assert out.shape == (2, length)
        assert torch.isfinite(out).all()


def test_the_number_of_parameters_is_the_published_one():
    """21.4 M parameters in the paper's table, fusion and mask included; the network alone here."""
    count = sum(p.numel() for p in BSRNN().parameters())
    assert 20e6 < count < 22e6


def test_the_estimate_starts_near_the_mixture():
    waveform = torch.randn(2, 8000)
    error = run(small(), waveform) - waveform
    assert error.norm() / waveform.norm() < 0.2


def test_every_fusion_point_is_called_once_in_order():
    network, points = small(num_blocks=3), []

    def condition(point, latent):
        assert latent.shape[network.fusion_axis] == network.latent_dim
        points.append(point)
        return latent

    network.encode(network.analyse(torch.randn(1, 4000)).features, condition)
    assert points == list(range(network.num_fusion_points))


def test_the_look_ahead_of_a_causal_network_is_its_latency():
    """If every sample from n on changes, the first output that changes is n − latency in the worst phase of the hop."""
    network = small(causal=True).double()
    torch.manual_seed(1)
    waveform = torch.randn(1, 6000, dtype=torch.float64)
    before, look_ahead = run(network, waveform), []
    for phase in range(0, network.stride):
        changed, at = waveform.clone(), 3000 + phase
        changed[:, at:] = torch.randn(1, 6000 - at, dtype=torch.float64)
        differs = run(network, changed)[0] != before[0]
        look_ahead.append(at - int(differs.nonzero()[0]))
    assert max(look_ahead) == network.latency
    assert min(look_ahead) == network.latency - network.stride + 1


def test_normalising_over_the_bands_of_a_frame_is_causal():
    """Normalising over all bands of a frame, before the layers across bands, adds no look-ahead."""
    network = small(causal=True, norm_across="group", norm_eps=1e-5).double()
    assert [network.blocks[0].along_time.norm.over_length, network.blocks[0].across_bands.norm.over_length] == [0, 1]
    torch.manual_seed(1)
    waveform = torch.randn(1, 4000, dtype=torch.float64)
    before, look_ahead = run(network, waveform), []
    for phase in range(0, network.stride):
        changed, at = waveform.clone(), 2000 + phase
        changed[:, at:] = torch.randn(1, 4000 - at, dtype=torch.float64)
        look_ahead.append(at - int((run(network, changed)[0] != before[0]).nonzero()[0]))
    assert max(look_ahead) == network.latency


def test_norm_eps_limits_the_gain_of_silence():
    """A constant of 0.01 in one feature, norm before the layer: x / sqrt(x² / dim + eps), so eps decides."""
    network = small(norm="frame", norm_eps=1.0)
    norm, x = network.blocks[0].along_time.norm, torch.zeros(1, 1, 8)
    x[..., 0] = 0.01
    centred = x - x.mean()
    torch.testing.assert_close(norm(x), centred / (centred.square().mean() + 1.0).sqrt())


def test_pad_mode_changes_the_first_and_last_frames_only():
    waveform = torch.randn(1, 4000)
    zeros, mirrored = (small(pad_mode=mode).analyse(waveform).spectrum for mode in ("constant", "reflect"))
    differs = (zeros - mirrored).abs().amax(dim=(0, 1)) > 1e-4
    assert differs.nonzero().flatten().tolist() == [0, 1, 30, 31]


def test_a_network_that_is_not_causal_sees_the_whole_recording():
    network = small()
    waveform = torch.randn(1, 6000)
    changed = waveform.clone()
    changed[:, 5000:] = 0
    assert network.latency is None
    assert ((run(network, waveform) - run(network, changed)).abs()[0, :1000] > 0).any()


def test_causal_encoding_of_blocks_equals_that_of_the_whole():
    network = small(causal=True)
    features = network.analyse(torch.randn(2, 8000)).features
    whole, _ = network.encode(features, lambda point, latent: latent)
    latents, state = [], None
    for block in features.split([1, 20, features.shape[-1] - 21], dim=-1):
        latent, state = network.encode(block, lambda point, latent: latent, state)
        latents.append(latent)
    torch.testing.assert_close(torch.cat(latents, dim=2), whole, atol=1e-5, rtol=1e-5)


def test_the_estimate_scales_with_the_mixture():
    network, waveform = small(), torch.randn(1, 4000)
    torch.testing.assert_close(run(network, waveform * 0.01) * 100, run(network, waveform), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hop_ms": 20}, "hop_ms"),
        ({"causal": True, "norm": "group"}, "averages over time"),
        ({"input_power": 2.0}, "input_power"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"num_blocks": 0}, "1 or more"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
