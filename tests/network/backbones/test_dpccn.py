"""DPCCN: lengths, latency, levels, pooling and streaming state."""

from __future__ import annotations

import pytest
import torch

from wesep_py.network.backbones.dpccn import DPCCN, BinStep, ConvHistory, PyramidPooling, normalise


def small(**arguments) -> DPCCN:
    torch.manual_seed(0)
    defaults = {
        "channels": 4, "dense_channels": (4, 4), "deep_channels": (6, 8), "dense_layers": 2,
        "tcn_repeats": 1, "tcn_blocks": 2, "pool_channels": 2,
    }  # fmt: skip
    return DPCCN(**{**defaults, **arguments}).eval()


def run(network: DPCCN, waveform: torch.Tensor) -> torch.Tensor:
    analysis = network.analyse(waveform)
    latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    return network.synthesise(latent, analysis, waveform.shape[1])[0]


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pad_bins", [False, True])
def test_the_estimate_has_the_length_of_the_mixture_at_any_rate(sample_rate, causal, pad_bins):
    network = small(
        sample_rate=sample_rate, causal=causal, pad_bins=pad_bins, dense_channels=(4,) * 4, deep_channels=(4, 6, 8)
    )
    for length in (1, network.stride - 1, network.stride, 1777):
        out = run(network, torch.randn(2, length))
        assert out.shape == (2, length)
        assert torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("padded", "expected"), [(False, [128, 63, 31, 15, 7, 3, 1]), (True, [129, 65, 33, 17, 9, 5, 3])]
)
def test_seven_levels_halve_257_bins_and_restore_them(padded, expected):
    bins, halved = 257, []
    for _ in expected:
        step = BinStep.halving(bins, padded)
        halved.append(step.bins)
        back = torch.nn.ConvTranspose1d(1, 1, step.kernel, 2, step.padding, step.output_padding)
        assert back(torch.zeros(1, 1, step.bins)).shape[2] == bins
        bins = step.bins
    assert halved == expected


def test_the_number_of_parameters_is_the_published_one():
    """6.4 M parameters in the paper, its fusion layers included; the network alone here."""
    count = sum(p.numel() for p in DPCCN().parameters())
    assert 6.2e6 < count < 6.5e6


@pytest.mark.parametrize("fuse_along", ["channels", "bins"])
def test_the_embedding_is_fused_once(fuse_along):
    network, points = small(fuse_along=fuse_along), []

    def condition(point, latent):
        assert latent.shape[network.fusion_axis] == network.latent_dim
        points.append(point)
        return latent

    analysis = network.analyse(torch.randn(1, 4000))
    latent, state = network.encode(analysis.features, condition)
    assert points == [0]
    assert state is None
    assert network.summarise(latent).shape == (1, analysis.num_frames, network.latent_dim)


def test_the_fused_latent_reaches_the_skip_connection():
    """The last dense block sees the fused output of the first: if that is zero, half of its input is zero."""
    network, inputs = small(), []
    network.last.layers[0].register_forward_hook(lambda module, args, out: inputs.append(args[0]))
    network.encode(network.analyse(torch.randn(1, 4000)).features, lambda point, latent: latent * 0)
    assert (inputs[0][:, :4] == 0).all()
    assert inputs[0].shape[1] == 8


def test_the_look_ahead_of_a_causal_network_is_its_latency():
    """If every sample from n on changes, the first output that changes is n − latency in the worst phase of the hop."""
    network = small(causal=True).double()
    torch.manual_seed(1)
    waveform = torch.randn(1, 3000, dtype=torch.float64)
    before, look_ahead = run(network, waveform), []
    for phase in range(0, network.stride):
        changed, at = waveform.clone(), 1500 + phase
        changed[:, at:] = torch.randn(1, 3000 - at, dtype=torch.float64)
        differs = run(network, changed)[0] != before[0]
        look_ahead.append(at - int(differs.nonzero()[0]))
    assert max(look_ahead) == network.latency
    assert min(look_ahead) == network.latency - network.stride + 1


def test_a_network_that_is_not_causal_sees_the_whole_recording():
    network = small()
    waveform = torch.randn(1, 8000)
    changed = waveform.clone()
    changed[:, 7500:] = 0
    assert network.latency is None
    assert ((run(network, waveform) - run(network, changed)).abs()[0, :500] > 0).any()


@pytest.mark.parametrize("pad_bins", [False, True])
def test_causal_encoding_of_blocks_equals_that_of_the_whole(pad_bins):
    network = small(causal=True, pad_bins=pad_bins)
    features = network.analyse(torch.randn(2, 8000)).features
    whole, _ = network.encode(features, lambda point, latent: latent)
    latents, state = [], None
    for block in features.split([1, 1, 20, features.shape[-1] - 22], dim=-1):
        latent, state = network.encode(block, lambda point, latent: latent, state)
        latents.append(latent)
    torch.testing.assert_close(torch.cat(latents, dim=2), whole, atol=1e-5, rtol=1e-5)


def test_conv_history_prepends_the_frames_before():
    x = torch.arange(5.0).view(1, 1, 5)
    first = ConvHistory(causal=True)
    assert first.prepend(x[:, :, :2], 3).flatten().tolist() == [0, 0, 0, 0, 1]
    second = ConvHistory(causal=True, past=first.new)
    assert second.prepend(x[:, :, 2:], 3).flatten().tolist() == [0, 0, 1, 2, 3, 4]


def test_normalisation_is_over_the_recording_or_within_a_frame():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 40, 5) * 4 + 2
    torch.testing.assert_close(normalise(x, True).mean(dim=(2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalise(x, True), torch.nn.functional.instance_norm(x))
    within = normalise(x, False)
    torch.testing.assert_close(within.mean(dim=(1, 3)), torch.zeros(2, 40), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalise(x[:, :, 7:8], False), within[:, :, 7:8])


@pytest.mark.parametrize("over_time", [False, True])
def test_pyramid_pooling_of_a_constant_is_the_constant(over_time):
    pooling = PyramidPooling(2, (4, 8, 32), 1, over_time)
    torch.nn.init.ones_(pooling.project.weight)
    torch.nn.init.zeros_(pooling.project.bias)
    for reduce in pooling.reduce:
        torch.nn.init.ones_(reduce.weight)
        torch.nn.init.zeros_(reduce.bias)
    out = pooling(torch.full((1, 2, 11, 21), 0.5))
    torch.testing.assert_close(out, torch.full((1, 2, 11, 21), 1.0 + 3 * 1.0))


def test_a_causal_network_takes_the_level_from_the_mixture():
    """The estimate is a mask, near one before training, and silence stays silent."""
    network, waveform = small(causal=True), torch.randn(1, 4000)
    out = run(network, waveform)
    assert (run(network, waveform * 0.1) * 10 - out).norm() / out.norm() < 0.1
    assert (out - waveform).norm() / waveform.norm() < 0.3
    assert (run(network, torch.zeros(1, 4000)) == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hop_ms": 20}, "hop_ms"),
        ({"causal": True, "norm": "instance"}, "averages over time"),
        ({"deep_channels": ()}, "deep_channels"),
        ({"tcn_blocks": 0}, "1 or more"),
        ({"pool_sizes": (4, 0)}, "1 or more"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
