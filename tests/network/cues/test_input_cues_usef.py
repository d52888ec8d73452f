"""The USEF cue: attention step by step, features, padding, causality and streaming state."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones import BSRNN
from wesep_py.network.cues.input_cues import SpectrumNorm, USEFCue
from wesep_py.network.extraction_network import build_network

CUE = {"name": "usef", "channels": 4, "num_heads": 2, "query_dim": 300}


def build(causal: bool = False, sample_rate: int = 16000, cues=None, **cue):
    torch.manual_seed(0)
    model = {
        "sample_rate": sample_rate,
        "normalise": "none",
        "highpass_hz": 0,
        "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "causal": causal},
        "cues": cues or [{**CUE, **cue}],
    }
    return build_network(model).eval()


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize("causal", [False, True])
def test_the_estimate_has_the_length_of_the_mixture_at_any_rate(sample_rate, causal):
    network = build(causal, sample_rate)
    for length in (1, 127, 2001):
        out = network(torch.randn(2, length), torch.randn(2, 3000)).waveforms[0]
        assert out.shape == (2, length) and torch.isfinite(out).all()


def test_attention_equals_its_formula():
    network = build(norm="none")
    cue, backbone = network.cues[0], network.backbone
    enrollment = torch.randn(1, 2000)
    prepared = {key.removeprefix("0."): value for key, value in network.prepare(enrollment).items()}
    analysis = backbone.analyse(torch.randn(1, 1500))
    features = cue.steer_features(analysis, analysis.features, prepared)
    mixture_conv = torch.nn.functional.conv2d(analysis.features, cue.conv.weight, cue.conv.bias, padding=1)
    enrolled_conv = torch.nn.functional.conv2d(
        backbone.analyse(enrollment).features, cue.conv.weight, cue.conv.bias, padding=1
    )
    torch.testing.assert_close(features[:, :4], mixture_conv, atol=1e-5, rtol=1e-4)
    query, key, value = cue.query(mixture_conv)[0], cue.key(enrolled_conv)[0], cue.value(enrolled_conv)[0]
    assert query.shape == (2, analysis.num_frames, 2, 257)  # heads, frames, ⌈300 / 257⌉ channels, bins
    joined = []
    for head in range(2):
        scores = torch.einsum("tcf,scf->ts", query[head], key[head]) / (2 * 257) ** 0.5
        joined.append(torch.einsum("ts,scf->ctf", scores.softmax(dim=1), value[head]))
    merged = torch.cat(joined).transpose(1, 2)[None]  # [1, channels, bins, frames]
    out = torch.nn.functional.conv2d(merged, cue.output.conv.weight, cue.output.conv.bias)[0]
    out = torch.where(out > 0, out, out * cue.output.act.weight)
    out = (out - out.mean(dim=(0, 1))) / (out.var(dim=(0, 1), correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(features[0, 4:], out, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("keep_features", "channels"), [(False, 8), (True, 10)])
def test_features_are_replaced_or_kept(keep_features, channels):
    network = build(keep_features=keep_features)
    assert network.backbone.split[0].linear.weight.shape[1] == channels * network.backbone.groups[0].width
    cues = [{"name": "tf_map"}, {**CUE, "keep_features": keep_features}]
    assert build(cues=cues)(torch.randn(1, 1000), torch.randn(1, 2000)).waveforms[0].shape == (1, 1000)


def test_two_cues_cannot_both_replace_the_features():
    with pytest.raises(ConfigError, match="one at most"):
        build(cues=[CUE, CUE])


@pytest.mark.parametrize("norm", ["none", "frame", "group"])
def test_padding_of_the_enrollment_is_ignored(norm):
    network = build(norm=norm)
    enrollment, mixture = torch.randn(1, 2048), torch.randn(1, 1500)
    padded = torch.cat([enrollment, torch.zeros(1, 3000)], dim=1)
    out = network(mixture, padded, torch.tensor([2048])).waveforms[0]
    torch.testing.assert_close(out, network(mixture, enrollment).waveforms[0], atol=1e-5, rtol=1e-4)


def test_spectrum_norm_ignores_padding():
    norm, features = SpectrumNorm(2, 5, over_time=True), torch.randn(1, 2, 5, 9) * 3 + 1
    mask = torch.arange(9)[None] < 6
    out = norm(features, mask)[..., :6]
    torch.testing.assert_close(out.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(correction=0), torch.tensor(1.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(out, torch.nn.functional.group_norm(features[..., :6], 1), atol=1e-4, rtol=1e-4)


def test_the_look_ahead_of_a_causal_network_is_its_latency():
    network = build(causal=True).double()
    torch.manual_seed(1)
    mixture, prepared = torch.randn(1, 3000, dtype=torch.float64), network.prepare(torch.randn(1, 2000).double())
    before, look_ahead = network.extract(mixture, prepared).waveforms[0], []
    for phase in range(0, network.backbone.stride):
        changed, at = mixture.clone(), 1500 + phase
        changed[:, at:] = torch.randn(1, 3000 - at, dtype=torch.float64)
        differs = network.extract(changed, prepared).waveforms[0][0] != before[0]
        look_ahead.append(at - int(differs.nonzero()[0]))
    assert max(look_ahead) == network.latency == network.backbone.latency


@pytest.mark.parametrize("parts", [[1, 20, 11], [2, 1, 1, 28], [32]])
def test_causal_encoding_of_blocks_equals_that_of_the_whole(parts):
    network = build(causal=True)
    prepared = network.prepare(torch.randn(1, 2000))
    analysis = network.backbone.analyse(torch.randn(1, 4000))
    whole, _ = network.encode(analysis, prepared)
    latents, state, start = [], None, 0
    for count in parts:
        latent, state = network.encode(analysis.frames(start, start + count), prepared, state)
        latents.append(latent)
        start += count
    torch.testing.assert_close(torch.cat(latents, dim=2), whole, atol=1e-5, rtol=1e-4)


def test_a_centred_convolution_makes_a_causal_backbone_non_causal():
    """The public causal network's convolution looks one frame ahead, so it cannot stream and has no finite latency."""
    network = build(causal=True, cues=[{**CUE, "causal": False}])
    assert network.latency is None
    assert network(torch.randn(1, 2000), torch.randn(1, 2000)).state is None


def test_two_enrollments_are_joined_in_time():
    network, mixture = build(), torch.randn(1, 1500)
    first = network.prepare(torch.randn(1, 2000))
    joined = network.combine([first, network.prepare(torch.randn(1, 3000))])
    assert joined["0.keys"].shape[2] == joined["0.values"].shape[2] == joined["0.mask"].shape[1] == 16 + 24
    twice = network.extract(mixture, network.combine([first, first])).waveforms[0]
    torch.testing.assert_close(twice, network.extract(mixture, first).waveforms[0], atol=1e-5, rtol=1e-4)


def test_every_parameter_has_a_gradient_and_silence_is_finite():
    network = build().train()
    network(torch.randn(2, 2000), torch.randn(2, 2000)).waveforms[0].square().sum().backward()
    for name, parameter in network.cues[0].named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    silent = network(torch.zeros(1, 2000), torch.zeros(1, 2000)).waveforms[0]
    assert torch.isfinite(silent).all()


@pytest.mark.parametrize(
    ("arguments", "message"), [({"channels": 9}, "multiple of num_heads"), ({"kernel": 2}, "odd number")]
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        USEFCue(**arguments)


def test_a_causal_backbone_refuses_statistics_over_time():
    with pytest.raises(ValueError, match="averages over time"):
        USEFCue(norm="group").attach(BSRNN(feature_dim=8, num_blocks=1, causal=True), None)
