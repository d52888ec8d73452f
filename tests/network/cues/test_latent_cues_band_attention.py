"""The band attention cue: attention step by step, gradients, padding, causality and combination."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.cues.latent_cues import BandAttention
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network

BSRNN = {"name": "bsrnn", "hop_ms": 16, "bands": [[250, 4], [1000, 7]], "feature_dim": 8, "num_blocks": 3}
CUE = {"name": "band_attention", "dim": 6, "hidden": 5, "attention_dim": 8}


def build(causal: bool = False, started: bool = True, **cue) -> TargetSpeakerExtractor:
    torch.manual_seed(0)
    network = build_network(
        {"backbone": {**BSRNN, "causal": causal}, "cues": [{**CUE, **cue}], "normalise": "none" if causal else "rms"}
    )
    if started:  # the output layers start at zero, where the enrollment has no influence
        for name, parameter in network.cues.named_parameters():
            if "output" in name or "film" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def test_attention_equals_its_formula():
    """Softmax over enrollment frames of query · key / √d, for each head and band, without torch's attention."""
    torch.manual_seed(0)
    layer = BandAttention(latent_dim=8, enrolled_dim=6, dim=4, num_heads=2)
    torch.nn.init.normal_(layer.output.weight)
    latent, enrolled = torch.randn(1, 3, 5, 8), torch.randn(1, 3, 7, 6)
    mask = torch.tensor([[True] * 5 + [False] * 2])
    out = layer(latent, enrolled, mask)
    for band in range(3):
        h, e = (
            torch.nn.functional.layer_norm(latent[0, band], [8]),
            torch.nn.functional.layer_norm(enrolled[0, band], [6]),
        )
        query, key, value = layer.query(h), layer.key(e[:5]), layer.value(e[:5])
        heads = [
            (query[:, at] @ key[:, at].T / 2**0.5).softmax(dim=1) @ value[:, at] for at in (slice(0, 2), slice(2, 4))
        ]
        torch.testing.assert_close(out[0, band], layer.output(torch.cat(heads, dim=1)), atol=1e-5, rtol=1e-4)


def test_an_untrained_cue_does_not_change_the_estimate():
    network, mixture = build(started=False), torch.randn(2, 4000)
    first, second = (network(mixture, torch.randn(2, 8000)).waveforms[0] for _ in range(2))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("points", ["first", "all", [0, 2]])
def test_every_parameter_has_a_gradient(points):
    network = build(points=points).train()
    network(torch.randn(2, 4000), torch.randn(2, 8000), torch.tensor([8000, 5000])).waveforms[
        0
    ].square().sum().backward()
    without = [name for name, p in network.cues.named_parameters() if p.grad is None or not p.grad.any()]
    # A key's bias shifts all scores of a query alike, which a softmax does not see.
    assert [name for name in without if not name.endswith("key.bias")] == []
    assert len(network.cues[0].attention) == {"first": 1, "all": 3}.get(str(points), 2)


def test_voice_is_mean_and_standard_deviation_of_each_band():
    network, enrollment = build(), torch.randn(1, 8000)
    prepared = network.prepare(enrollment)
    frames, voice = prepared["0.frames"][0], prepared["0.voice"][0]
    torch.testing.assert_close(voice[:, 0, :6], frames.mean(dim=1))
    torch.testing.assert_close(voice[:, 0, 6:], frames.std(dim=1, correction=0), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("length", [1, 100, 16000])
def test_padding_of_an_enrollment_is_ignored(length):
    network, mixture, enrollment = build(), torch.randn(1, 4000), torch.randn(1, length)
    padded = torch.cat([enrollment, torch.zeros(1, 5000)], dim=1)
    out = network(mixture, padded, torch.tensor([length])).waveforms[0]
    torch.testing.assert_close(out, network(mixture, enrollment).waveforms[0], atol=1e-4, rtol=1e-3)


def test_several_enrollments_are_joined_and_averaged():
    network, mixture = build(), torch.randn(1, 4000)
    first, second = network.prepare(torch.randn(1, 16000)), network.prepare(torch.randn(1, 9000))
    joined = network.combine([first, second], [3.0, 1.0])
    num_frames = first["0.frames"].shape[2] + second["0.frames"].shape[2]
    assert joined["0.frames"].shape[2] == joined["0.mask"].shape[1] == num_frames
    torch.testing.assert_close(joined["0.voice"], 0.75 * first["0.voice"] + 0.25 * second["0.voice"])
    twice = network.extract(mixture, network.combine([first, first])).waveforms[0]
    torch.testing.assert_close(twice, network.extract(mixture, first).waveforms[0], atol=1e-5, rtol=1e-4)


def test_a_causal_network_stays_causal():
    network = build(causal=True, points="all")
    mixture, prepared = torch.randn(1, 6000), network.prepare(torch.randn(1, 16000))
    changed = torch.cat([mixture[:, :4000], torch.randn(1, 2000)], dim=1)
    same = 4000 - network.latency
    before, after = (network.extract(waveform, prepared).waveforms[0][:, :same] for waveform in (mixture, changed))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["dpccn", "conv_tasnet", "tf_gridnet"])
def test_a_backbone_without_bands_is_refused(backbone):
    with pytest.raises(ConfigError, match="compares bands"):
        build_network({"backbone": {"name": backbone}, "cues": [CUE]})


@pytest.mark.parametrize(
    ("cue", "message"),
    [
        ({"attention_dim": 5}, "multiple of num_heads"),
        ({"hidden": 0}, "must be 1 or more"),
        ({"points": [3]}, "indices from 0 to 2"),
        ({"film_points": []}, "indices from 0 to 2"),
    ],
)
def test_invalid_arguments_are_refused(cue, message):
    with pytest.raises(ConfigError, match=message):
        build(**cue)
