"""Cues for which the backbone is the speaker encoder: what they keep, gradients, padding, both modes, combination."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.errors import ConfigError
from wesep_py.inference import Extractor, Voice
from wesep_py.metrics import si_sdr
from wesep_py.network.cues.own_cues import FrameAttention
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network, load_network
from wesep_py.network.streaming_network import StreamingNetwork

BANDS = {"hop_ms": 16, "bands": [[250, 4], [1000, 7]], "feature_dim": 8, "num_blocks": 3}
TCN = {"num_filters": 12, "bottleneck": 6, "hidden": 8, "blocks_per_stack": 2, "num_stacks": 2}
GRID = {"window_ms": 16, "hop_ms": 8, "feature_dim": 4, "num_blocks": 2, "hidden": 4, "num_heads": 2, "query_size": 128}
DPCCN = {"hop_ms": 16, "channels": 4, "dense_channels": [4], "deep_channels": [4, 6], "dense_layers": 2}
BACKBONES: dict[str, dict[str, Any]] = {
    "bsrnn": {"name": "bsrnn", **BANDS},
    "bsrnn live": {"name": "bsrnn", **BANDS, "live": True, "norm": "frame"},
    "bsrnn causal": {"name": "bsrnn", **BANDS, "causal": True},
    "tf_gridnet": {"name": "tf_gridnet", **GRID},
    "tf_gridnet bins": {"name": "tf_gridnet", **GRID, "fuse_along": "bins"},
    "tf_gridnet causal": {"name": "tf_gridnet", **GRID, "causal": True},
    "conv_tasnet": {"name": "conv_tasnet", "kernels_ms": [4], "hop_ms": 2, **TCN},
    "conv_tasnet inside": {"name": "conv_tasnet", "kernels_ms": [4], "hop_ms": 2, **TCN, "fusion_place": "inside"},
    "conv_tasnet causal": {"name": "conv_tasnet", "kernels_ms": [4], "hop_ms": 2, **TCN, "causal": True},
    "dpccn": {"name": "dpccn", **DPCCN, "tcn_repeats": 1, "tcn_blocks": 2, "pool_channels": 2},
}
STATES, FRAMES = {"name": "own_states"}, {"name": "own_frames", "dim": 8, "num_heads": 2}
RECURRENT = [name for name in BACKBONES if name.startswith(("bsrnn", "tf_gridnet"))]
COMBINATIONS = [(name, FRAMES) for name in BACKBONES] + [(name, STATES) for name in RECURRENT]
STREAMS = [(name, cue) for name, cue in COMBINATIONS if name.endswith(("live", "causal"))]


def build(backbone: str, *cues: dict[str, Any], started: bool = True, **model) -> TargetSpeakerExtractor:
    torch.manual_seed(0)
    causal = backbone.endswith("causal")
    network = build_network(
        {"backbone": BACKBONES[backbone], "cues": list(cues), "normalise": "none" if causal else "rms", **model}
    )
    if started:  # the layers start at zero, where the enrollment has no influence
        for name, parameter in network.cues.named_parameters():
            if "output" in name or "fusion" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize(("backbone", "cue"), COMBINATIONS)
def test_an_untrained_cue_does_not_change_the_estimate_and_a_started_one_does(backbone, cue):
    for started in (False, True):
        network, mixture = build(backbone, cue, started=started), torch.randn(2, 3000)
        with torch.no_grad():
            first, second = (network(mixture, scale * torch.randn(2, 6000).cumsum(1)).waveforms[0] for scale in (1, 3))
        assert torch.allclose(first, second, atol=1e-5) != started


@pytest.mark.parametrize(("backbone", "cue"), COMBINATIONS)
def test_every_parameter_of_the_cue_has_a_gradient(backbone, cue):
    network = build(backbone, cue).train()
    for mode in [network, network.live()] if network.backbone.live else [network]:
        network.zero_grad()
        mode(torch.randn(2, 3000), torch.randn(2, 6000), torch.tensor([6000, 4000])).waveforms[
            0
        ].square().sum().backward()
        lacking = [name for name, p in network.cues.named_parameters() if p.grad is None or not p.grad.any()]
        # A key's bias shifts all scores of a query alike, which a softmax does not see.
        assert [name for name in lacking if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("length", [1, 100, 5000])
@pytest.mark.parametrize(("backbone", "cue"), COMBINATIONS)
def test_padding_of_an_enrollment_is_ignored(backbone, cue, length):
    network, mixture = build(backbone, cue), torch.randn(2, 2000)
    enrollments = torch.randn(2, 8000)
    enrollments[0, length:] = 0
    with torch.no_grad():
        padded = network(mixture, enrollments, torch.tensor([length, 8000])).waveforms[0]
        alone = network(mixture[:1], enrollments[:1, :length]).waveforms[0]
        other = network(mixture[1:], enrollments[1:]).waveforms[0]
    torch.testing.assert_close(padded, torch.cat([alone, other]), atol=2e-4, rtol=1e-3)


def test_states_are_mean_and_deviation_after_each_block():
    network, enrollment = build("bsrnn", STATES), torch.randn(1, 8000)
    latents = []
    features = network.backbone.analyse(network.preprocess(enrollment)[0]).features
    last, _ = network.backbone.encode(features, lambda point, latent: latents.append(latent) or latent)
    states = network.prepare(enrollment)["0.states"]
    assert states.shape == (1, 3, network.backbone.num_bands, 1, 16)
    for block, latent in enumerate([*latents[1:], last]):
        torch.testing.assert_close(states[:, block, :, 0, :8], latent.mean(dim=2), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(states[:, block, :, 0, 8:], latent.std(dim=2, correction=0), atol=1e-4, rtol=1e-3)


def test_each_states_layer_serves_the_block_that_made_the_state():
    """FiLM of point 1 alone: with a scale and shift of zero, the latent there is (1 + 0) h + 0, else it changes."""
    network = build("bsrnn", {**STATES, "points": [1]}, started=False)
    enrollment, seen = torch.randn(1, 8000), {}
    prepared = network.prepare(enrollment)
    assert prepared["0.states"].shape[1] == 1
    torch.nn.init.constant_(network.cues[0].fusion.layers[0].shift.bias, 5.0)
    latent = torch.randn(1, network.backbone.num_bands, 7, 8)
    for point in range(3):
        seen[point] = network.cues[0].steer_latent(point, latent, {"states": prepared["0.states"]})
    assert torch.equal(seen[0], latent) and torch.equal(seen[2], latent)
    torch.testing.assert_close(seen[1], latent + 5)


def test_frame_attention_equals_its_formula():
    """Softmax over enrollment frames of query · key / √d, for each head and band, without torch's attention."""
    torch.manual_seed(0)
    layer = FrameAttention(latent_dim=6, dim=4, num_heads=2)
    torch.nn.init.normal_(layer.output.weight)
    latent, enrolled, mask = torch.randn(1, 3, 5, 6), torch.randn(1, 3, 7, 6), torch.tensor([[True] * 5 + [False] * 2])
    out = layer(latent, *layer.enrolled(enrolled), mask)
    for band in range(3):
        h, e = (torch.nn.functional.layer_norm(x[0, band], [6]) for x in (latent, enrolled))
        query, key, value = layer.query(h), layer.key(e[:5]), layer.value(e[:5])
        heads = [
            (query[:, at] @ key[:, at].T / 2**0.5).softmax(dim=1) @ value[:, at] for at in (slice(0, 2), slice(2, 4))
        ]
        torch.testing.assert_close(out[0, band], layer.output(torch.cat(heads, dim=1)), atol=1e-5, rtol=1e-4)


def test_frames_are_those_of_the_enrollment_at_the_same_point():
    network, enrollment = build("tf_gridnet", {**FRAMES, "points": [1]}), torch.randn(1, 8000)
    latents = []
    features = network.backbone.analyse(network.preprocess(enrollment)[0]).features
    network.backbone.encode(features, lambda point, latent: latents.append(latent) or latent)
    keys, _ = network.cues[0].attention[0].enrolled(latents[1].transpose(1, 2))
    torch.testing.assert_close(network.prepare(enrollment)["0.keys"][:, 0], keys, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cue", [STATES, FRAMES])
def test_both_modes_of_a_network_prepare_the_same_voice(cue):
    network, enrollment = build("bsrnn live", cue), torch.randn(2, 8000)
    lengths = torch.tensor([8000, 5000])
    with torch.no_grad():
        offline, live = (each.prepare(enrollment, lengths) for each in (network, network.live()))
    assert offline.keys() == live.keys()
    for key in offline:
        torch.testing.assert_close(offline[key], live[key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("backbone", "cue"), STREAMS)
def test_causal_networks_do_not_look_ahead_and_stream(backbone, cue):
    network = build(backbone, cue)
    live = network.live()
    mixture, at = 0.1 * torch.randn(1, 4000), 2500
    changed = torch.cat([mixture[:, :at], torch.randn(1, 1500)], dim=1)
    with torch.no_grad():
        prepared = network.prepare(torch.randn(1, 8000))
        whole, other = (live.extract(waveform, prepared).waveforms[0] for waveform in (mixture, changed))
        torch.testing.assert_close(whole[:, : at - live.latency], other[:, : at - live.latency], atol=1e-6, rtol=1e-5)
        step = StreamingNetwork(network)
        state, outputs = step.initial_state(1), []
        for block in mixture.split([1, 500, 33, 2000, 1466], dim=1):
            output = step(block, state, prepared)
            state = output.state
            outputs.append(output.waveform)
    estimate = torch.cat(outputs, dim=1)[:, step.num_leading :]
    torch.testing.assert_close(estimate, whole[:, : estimate.shape[1]], atol=1e-5, rtol=0)


def test_several_enrollments_are_averaged_or_joined():
    network = build("bsrnn", STATES, FRAMES)
    first, second = network.prepare(torch.randn(1, 16000)), network.prepare(torch.randn(1, 9000))
    joined = network.combine([first, second], [3.0, 1.0])
    torch.testing.assert_close(joined["0.states"], 0.75 * first["0.states"] + 0.25 * second["0.states"])
    num_frames = first["1.keys"].shape[3] + second["1.keys"].shape[3]
    assert joined["1.keys"].shape[3] == joined["1.values"].shape[3] == joined["1.mask"].shape[1] == num_frames
    mixture = torch.randn(1, 4000)
    with torch.no_grad():
        twice = network.extract(mixture, network.combine([first, first])).waveforms[0]
        once = network.extract(mixture, first).waveforms[0]
    torch.testing.assert_close(twice, once, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cue", [STATES, FRAMES])
def test_a_model_and_a_voice_print_keep_what_is_prepared(cue, tmp_path):
    network = build("bsrnn live", cue)
    folder = checkpoint.save(tmp_path / "model", network.config, network.state_dict(), {})
    extractor = Extractor(load_network(folder))
    mixture, enrollment = 0.1 * torch.randn(8000).numpy(), 0.1 * torch.randn(16000).numpy()
    voice = extractor.enroll((enrollment, 16000))
    voice.save(tmp_path / "alice.voice")
    stored = Voice.load(tmp_path / "alice.voice")
    first, second = (extractor.extract((mixture, 16000), each).waveform for each in (voice, stored))
    assert (first == second).all() and first.std() > 1e-4
    assert extractor.stream(stored).process(mixture).std() > 1e-4


def test_channels_of_other_cues_are_zero_over_the_enrollment():
    network = build("bsrnn", {"name": "tf_map"}, STATES)
    with torch.no_grad():
        assert network(torch.randn(1, 3000), torch.randn(1, 6000)).waveforms[0].isfinite().all()
    with pytest.raises(ConfigError, match="another replaces these"):
        build("bsrnn", {"name": "usef"}, STATES)
    build("bsrnn", {"name": "usef", "keep_features": True}, STATES)


@pytest.mark.parametrize("backbone", ["conv_tasnet", "dpccn"])
def test_states_of_a_backbone_without_recurrent_blocks_are_refused(backbone):
    with pytest.raises(ConfigError, match="those of recurrent blocks"):
        build(backbone, STATES)


@pytest.mark.parametrize(
    ("cue", "message"),
    [
        ({**FRAMES, "dim": 7}, "multiple of num_heads"),
        ({**FRAMES, "points": [3]}, "indices from 0 to 2"),
        ({**STATES, "points": []}, "indices from 0 to 2"),
    ],
)
def test_invalid_arguments_are_refused(cue, message):
    with pytest.raises(ConfigError, match=message):
        build("bsrnn", cue)


@pytest.mark.processor
@pytest.mark.parametrize("cue", [STATES, FRAMES])
def test_the_voice_that_is_extracted_is_learned_without_labels(cue):
    """One mixture of two tones that come and go, two enrollments: the network learns which of them is meant."""
    network = build("bsrnn", cue, started=False).train()
    time_s = torch.arange(8000) / 16000
    voices = torch.stack(
        [
            torch.sin(2 * torch.pi * hz * time_s) * (1 + torch.sin(2 * torch.pi * rate * time_s))
            for hz, rate in ((300, 7), (1700, 5))
        ]
    )
    mixture, optimiser = voices.sum(dim=0, keepdim=True).expand(2, -1), torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(25):
        estimate = network(mixture, voices.flip(1)).waveforms[0]
        optimiser.zero_grad()
        (-si_sdr(estimate, voices)).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
    with torch.no_grad():
        estimate = network.eval()(mixture, voices.flip(1)).waveforms[0]
    assert (si_sdr(estimate, voices) > si_sdr(estimate, voices.flip(0)) + 5).all()
