"""The presence head: its inputs, gradients, streaming state and configuration."""

from __future__ import annotations

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.config import construct
from wesep_py.common.errors import ConfigError
from wesep_py.network.cues import SignalFeatures
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network, load_network
from wesep_py.network.presence_head import PresenceConfig
from wesep_py.training.losses import PresenceLoss

BSRNN = {"name": "bsrnn", "hop_ms": 16, "bands": [[250, 4], [1000, 7]], "feature_dim": 8, "num_blocks": 1}
CUES = [
    {"name": "tf_map", "temperatures": [1, 20], "power": 0.5},
    {"name": "band_attention", "dim": 6, "hidden": 5, "attention_dim": 4},
]
ALL = {"hidden": 8, "inputs": ["latent", "similarity", "energy", "voice"], "smoothing": "lstm"}
STREAMING = {"hidden": 8, "inputs": ["latent", "similarity"], "smoothing": "lstm"}


def build(presence: dict | None = ALL, causal: bool = False, cues: list | None = None) -> TargetSpeakerExtractor:
    torch.manual_seed(0)
    backbone = {**BSRNN, "causal": causal}
    normalise = "none" if causal else "rms"
    return build_network(
        {"backbone": backbone, "cues": cues or CUES, "presence": presence, "normalise": normalise, "highpass_hz": 0}
    ).eval()


def tone(hz: float, samples: int = 16000) -> torch.Tensor:
    """Return a buzz with eleven harmonics."""
    t = torch.arange(samples) / 16000
    return sum(torch.sin(2 * torch.pi * hz * k * t) / k for k in range(1, 12))[None]


def test_a_head_saved_before_inputs_existed_loads(tmp_path):
    network = build(presence={"hidden": 4})
    names = [name for name in network.state_dict() if name.startswith("presence.")]
    assert names == [f"presence.layers.{i}.{kind}" for i in (0, 1, 3) for kind in ("weight", "bias")]
    config = {**network.config, "presence": {"hidden": 4}}
    checkpoint.save(tmp_path / "old", config, network.state_dict())
    latent = torch.randn(2, 5, 8)
    norm, project, _, last = network.presence.layers
    expected = last(torch.nn.functional.gelu(project(norm(latent)))).squeeze(-1)
    torch.testing.assert_close(load_network(tmp_path / "old").presence(latent), expected)


@pytest.mark.parametrize(
    "inputs", [["latent"], ["similarity"], ["energy"], ["voice"], ["mixture"], ["energy", "latent"]]
)
@pytest.mark.parametrize("smoothing", ["none", "lstm"])
def test_every_input_alone_gives_every_parameter_a_gradient(inputs, smoothing):
    network = build(presence={"hidden": 8, "inputs": inputs, "smoothing": smoothing}).train()
    out = network(torch.randn(2, 5000), torch.randn(2, 9000), torch.tensor([9000, 6000]))
    assert out.presence_logits.shape == (2, 5000 // 256 + 1)
    PresenceLoss()(out, torch.zeros(2, 5000), {"activity": torch.ones(2, 10)}).backward()
    without = [name for name, p in network.presence.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("samples", [1, 255, 256, 1000, 40_001])
def test_logits_have_one_value_per_frame_at_any_length(samples):
    out = build()(torch.randn(1, samples), torch.randn(1, 3000))
    assert out.presence_logits.shape == (1, samples // 256 + 1)
    assert out.presence_logits.isfinite().all()


def test_silence_gives_finite_logits_and_gradients():
    network = build(presence={**ALL, "detach": "none"}).train()
    out = network(torch.zeros(1, 4000), torch.zeros(1, 4000))
    (out.presence_logits.sum() + out.waveforms[0].sum()).backward()
    assert out.presence_logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_padding_of_the_enrollment_is_ignored():
    network, mixture, enrollment = build(), torch.randn(1, 4000), torch.randn(1, 8000)
    padded = torch.cat([enrollment, torch.zeros(1, 5000)], dim=1)
    out = network(mixture, padded, torch.tensor([8000])).presence_logits
    torch.testing.assert_close(out, network(mixture, enrollment).presence_logits, atol=1e-4, rtol=1e-3)


def test_levels_do_not_change_the_logits():
    network, mixture, enrollment = build(), torch.randn(1, 4000), torch.randn(1, 8000)
    loud = network(mixture, enrollment).presence_logits
    torch.testing.assert_close(network(0.01 * mixture, 3 * enrollment).presence_logits, loud, atol=1e-3, rtol=1e-3)


def evidence(inputs: list[str], mixture, enrollment, estimate, **options) -> torch.Tensor:
    network = build(presence={"hidden": 8, "inputs": inputs, **options})
    prepared = network.prepare(enrollment)
    by_cue = [{key[2:]: value for key, value in prepared.items() if key[0] == str(i)} for i in range(2)]
    signal = SignalFeatures(estimate, torch.tensor([estimate.shape[1]]), network.backbone, None)
    return network.presence.gather_evidence(network.backbone.analyse(mixture), list(network.cues), by_cue, signal)[0]


def test_similarity_is_the_highest_cosine_with_an_enrolled_frame():
    mixture, enrollment = torch.randn(1, 2000), torch.randn(1, 3000)
    network = build()
    power = [
        network.backbone.analyse(x / x.square().mean().sqrt()).spectrum.abs()[0] ** 0.5 for x in (mixture, enrollment)
    ]
    expected = [
        max(torch.cosine_similarity(frame, other, dim=0).item() for other in power[1].T) for frame in power[0].T
    ]
    similarity = evidence(["similarity"], mixture, enrollment, mixture)
    torch.testing.assert_close(similarity[:, 0], torch.tensor(expected), atol=1e-4, rtol=1e-4)
    assert (evidence(["similarity"], enrollment, enrollment, mixture) > 0.999).all()


def test_energy_is_relative_to_the_mixture_in_10_db():
    mixture = torch.randn(1, 4000)
    energy = evidence(["energy"], mixture, mixture, 0.1 * mixture)
    torch.testing.assert_close(energy, torch.full_like(energy, -2.0), atol=0.01, rtol=0.01)  # in units of 10 dB
    assert evidence(["energy"], mixture, mixture, 0 * mixture).max() < -3.9


def test_a_voice_is_more_similar_to_itself_than_to_another():
    low, high = tone(110), tone(230)
    same, other = (evidence(["voice"], low + high, low, estimate) for estimate in (low, high))
    assert same.shape == (16000 // 256 + 1, 12)  # bands
    middle = slice(20, -20)  # at the ends the cue's network has no context, or sees padding
    assert same[middle].mean() > 0.95
    assert same[middle].mean() > other[middle].mean() + 0.05


def test_voice_similarity_depends_on_the_window_only():
    mixture, enrollment = torch.randn(1, 32000), torch.randn(1, 8000)
    other = torch.cat([mixture[:, :24000], torch.randn(1, 8000)], dim=1)
    before, after = (evidence(["voice"], mixture, enrollment, x) for x in (mixture, other))
    changed = (before - after).abs().amax(dim=1) > 1e-5
    first = int(changed.nonzero()[0])
    assert 24000 / 256 - 0.5 * 16000 / 256 - 4 - 2 <= first <= 24000 / 256  # compared every four frames


def test_frames_of_a_step_share_one_comparison():
    mixture, enrollment = torch.randn(1, 9000), torch.randn(1, 8000)
    similarity = evidence(["voice"], mixture, enrollment, mixture, window_s=0.1)  # 36 frames of 16 ms
    assert len(similarity) == 36
    steps = similarity.unflatten(0, (-1, 4))
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))
    assert (steps[1:, 0] - steps[:-1, 0]).abs().amax(dim=1).min() > 1e-4


def test_several_windows_are_concatenated():
    mixture, enrollment = torch.randn(1, 32000), torch.randn(1, 8000)
    short, long, both = (
        evidence(["voice"], mixture, enrollment, mixture, window_s=window_s) for window_s in (0.5, 2, [0.5, 2])
    )
    torch.testing.assert_close(both, torch.cat([short, long], dim=1))
    assert long.std(dim=0).mean() < short.std(dim=0).mean()


def test_mixture_and_voice_are_computed_alike():
    mixture, estimate, enrollment = (torch.randn(1, samples) for samples in (9000, 9000, 8000))
    both = evidence(["voice", "mixture"], mixture, enrollment, estimate)
    of_estimate, of_mixture = both.chunk(2, dim=1)
    torch.testing.assert_close(of_estimate, evidence(["voice"], mixture, enrollment, estimate))
    torch.testing.assert_close(of_mixture, evidence(["voice"], mixture, enrollment, mixture))
    assert (of_estimate - of_mixture).abs().max() > 0.01


@pytest.mark.parametrize(
    ("detach", "estimate", "band_cue", "latent"),
    [("none", True, True, True), ("estimate", False, True, True), ("inputs", False, False, False)],
)
def test_detach_stops_the_gradient(detach, estimate, band_cue, latent):
    def has_gradient(inputs: list[str], part: str) -> bool:
        network = build(presence={"hidden": 8, "inputs": inputs, "detach": detach}).train()
        network(torch.randn(1, 4000), torch.randn(1, 4000)).presence_logits.square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in network.presence.layers[3].parameters())
        return any(p.grad is not None and p.grad.any() for n, p in network.named_parameters() if n.startswith(part))

    assert has_gradient(["energy"], "backbone.masks") == estimate
    assert has_gradient(["voice"], "cues.1.blocks") == band_cue
    assert has_gradient(["latent"], "backbone.blocks") == latent


def test_a_causal_head_does_not_look_ahead():
    network, prepared = build(STREAMING, causal=True), None
    prepared = network.prepare(torch.randn(1, 6000))
    mixture = torch.randn(1, 8000)
    changed = torch.cat([mixture[:, :5000], torch.randn(1, 3000)], dim=1)
    before, after = (network.extract(x, prepared).presence_logits[0] for x in (mixture, changed))
    differs = (before - after).abs() > 1e-6
    # Frame t depends on the samples before t·hop + window/2.
    assert int(differs.nonzero()[0]) == (5000 - 256) // 256 + 1
    whole = build({**STREAMING})
    prepared = whole.prepare(torch.randn(1, 6000))
    before, after = (whole.extract(x, prepared).presence_logits[0] for x in (mixture, changed))
    assert ((before - after).abs() > 1e-6)[:10].any()


def test_causal_logits_of_blocks_equal_those_of_the_whole():
    network = build(STREAMING, causal=True)
    prepared = network.prepare(torch.randn(1, 6000))
    mixture = torch.randn(1, 8000)
    analysis = network.backbone.analyse(mixture)
    whole = network.extract(mixture, prepared).presence_logits
    blocks, state, detected = [], None, None
    for start, stop in ((0, 10), (10, 11), (11, analysis.num_frames)):
        block = analysis.frames(start, stop)
        latent, state = network.encode(block, prepared, state)
        logits, detected = network.detect(latent, block, prepared, state=detected)
        blocks.append(logits)
    torch.testing.assert_close(torch.cat(blocks, dim=1), whole, atol=1e-5, rtol=1e-4)


def test_without_a_head_detect_returns_none():
    network = build(presence=None)
    assert network.detect(torch.zeros(1), None, {}) == (None, None)


@pytest.mark.parametrize(
    ("presence", "causal", "cues", "message"),
    [
        ({"inputs": ["similarity"]}, False, CUES[1:], "'similarity' needs the cue 'tf_map'"),
        ({"inputs": ["voice"]}, False, CUES[:1], "'voice' needs the cue 'band_attention'"),
        ({"inputs": ["latent", "energy"]}, True, CUES, "too late for a causal backbone"),
        ({"inputs": ["mixture"]}, True, CUES, "too late for a causal backbone"),
        ({"inputs": []}, False, CUES, "one or more are needed"),
        ({"inputs": ["latent", "latent"]}, False, CUES, "each once"),
        ({"inputs": ["latnt"]}, False, CUES, "inputs"),
        ({"hidden": 0}, False, CUES, "hidden: is 0"),
        ({"hidden": 5, "smoothing": "lstm"}, False, CUES, "even number"),
        ({"window_s": 0.0}, False, CUES, "window_s: is 0.0; 0.05 to 60 seconds"),
        ({"window_s": []}, False, CUES, "window_s"),
        ({"window_s": [1, 61]}, False, CUES, "window_s"),
        ({"inputs": ["mixture"]}, False, CUES[:1], "'mixture' needs the cue 'band_attention'"),
    ],
)
def test_a_wrong_configuration_is_reported_in_one_line(presence, causal, cues, message):
    with pytest.raises(ConfigError) as caught:
        build(presence, causal, cues)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_hidden_may_be_odd_without_smoothing():
    assert construct(PresenceConfig, {"hidden": 5}, "presence").hidden == 5


def test_missing_evidence_is_reported():
    with pytest.raises(ValueError, match="detect"):
        build().presence(torch.randn(1, 4, 8))
