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
    """A buzz whose formants move with its pitch."""
    t = torch.arange(samples) / 16000
    return sum(torch.sin(2 * torch.pi * hz * k * t) / k for k in range(1, 12))[None]


def test_a_head_as_it_was_before_it_had_inputs_loads(tmp_path):
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
def test_every_input_alone_learns(inputs, smoothing):
    network = build(presence={"hidden": 8, "inputs": inputs, "smoothing": smoothing}).train()
    out = network(torch.randn(2, 5000), torch.randn(2, 9000), torch.tensor([9000, 6000]))
    assert out.presence_logits.shape == (2, 5000 // 256 + 1)
    PresenceLoss()(out, torch.zeros(2, 5000), {"activity": torch.ones(2, 10)}).backward()
    without = [name for name, p in network.presence.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("samples", [1, 255, 256, 1000, 40_001])
def test_any_length(samples):
    out = build()(torch.randn(1, samples), torch.randn(1, 3000))
    assert out.presence_logits.shape == (1, samples // 256 + 1)
    assert out.presence_logits.isfinite().all()


def test_silence_is_finite_in_both_directions():
    network = build(presence={**ALL, "detach": "none"}).train()
    out = network(torch.zeros(1, 4000), torch.zeros(1, 4000))
    (out.presence_logits.sum() + out.waveforms[0].sum()).backward()
    assert out.presence_logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_padding_of_the_enrollment_does_not_count():
    network, mixture, enrollment = build(), torch.randn(1, 4000), torch.randn(1, 8000)
    padded = torch.cat([enrollment, torch.zeros(1, 5000)], dim=1)
    out = network(mixture, padded, torch.tensor([8000])).presence_logits
    torch.testing.assert_close(out, network(mixture, enrollment).presence_logits, atol=1e-4, rtol=1e-3)


def test_the_level_of_the_recording_does_not_count():
    network, mixture, enrollment = build(), torch.randn(1, 4000), torch.randn(1, 8000)
    loud = network(mixture, enrollment).presence_logits
    torch.testing.assert_close(network(0.01 * mixture, 3 * enrollment).presence_logits, loud, atol=1e-3, rtol=1e-3)


def observed(inputs: list[str], mixture, enrollment, estimate, **options) -> torch.Tensor:
    network = build(presence={"hidden": 8, "inputs": inputs, **options})
    prepared = network.prepare(enrollment)
    own = [{key[2:]: value for key, value in prepared.items() if key[0] == str(i)} for i in range(2)]
    made = SignalFeatures(estimate, torch.tensor([estimate.shape[1]]), network.backbone, None)
    return network.presence.gather_evidence(network.backbone.analyse(mixture), list(network.cues), own, made)[0]


def test_similarity_is_the_highest_cosine_with_an_enrolled_frame():
    mixture, enrollment = torch.randn(1, 2000), torch.randn(1, 3000)
    network = build()
    power = [
        network.backbone.analyse(x / x.square().mean().sqrt()).spectrum.abs()[0] ** 0.5 for x in (mixture, enrollment)
    ]
    expected = [
        max(torch.cosine_similarity(frame, other, dim=0).item() for other in power[1].T) for frame in power[0].T
    ]
    found = observed(["similarity"], mixture, enrollment, mixture)
    torch.testing.assert_close(found[:, 0], torch.tensor(expected), atol=1e-4, rtol=1e-4)
    assert (observed(["similarity"], enrollment, enrollment, mixture) > 0.999).all()


def test_energy_is_that_of_the_estimate_re_mixture():
    mixture = torch.randn(1, 4000)
    found = observed(["energy"], mixture, mixture, 0.1 * mixture)
    torch.testing.assert_close(found, torch.full_like(found, -2.0), atol=0.01, rtol=0.01)  # in units of 10 dB
    assert observed(["energy"], mixture, mixture, 0 * mixture).max() < -3.9


def test_a_voice_is_like_itself_and_less_like_another():
    low, high = tone(110), tone(230)
    own, other = (observed(["voice"], low + high, low, estimate) for estimate in (low, high))
    assert own.shape == (16000 // 256 + 1, 12)  # bands
    middle = slice(20, -20)  # elsewhere the network that listens is still starting, or hears the end
    assert own[middle].mean() > 0.95
    assert own[middle].mean() > other[middle].mean() + 0.05


def test_a_voice_is_heard_around_the_frame_only():
    mixture, enrollment = torch.randn(1, 32000), torch.randn(1, 8000)
    other = torch.cat([mixture[:, :24000], torch.randn(1, 8000)], dim=1)
    one, two = (observed(["voice"], mixture, enrollment, x) for x in (mixture, other))
    changed = (one - two).abs().amax(dim=1) > 1e-5
    first = int(changed.nonzero()[0])
    assert 24000 / 256 - 0.5 * 16000 / 256 - 4 - 2 <= first <= 24000 / 256  # compared every four frames


def test_frames_of_a_step_share_a_comparison():
    mixture, enrollment = torch.randn(1, 9000), torch.randn(1, 8000)
    found = observed(["voice"], mixture, enrollment, mixture, window_s=0.1)  # 36 frames of 16 ms
    assert len(found) == 36
    steps = found.unflatten(0, (-1, 4))
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))
    assert (steps[1:, 0] - steps[:-1, 0]).abs().amax(dim=1).min() > 1e-4


def test_several_windows_stand_side_by_side():
    mixture, enrollment = torch.randn(1, 32000), torch.randn(1, 8000)
    short, long, both = (
        observed(["voice"], mixture, enrollment, mixture, window_s=window_s) for window_s in (0.5, 2, [0.5, 2])
    )
    torch.testing.assert_close(both, torch.cat([short, long], dim=1))
    assert long.std(dim=0).mean() < short.std(dim=0).mean()


def test_the_mixture_is_heard_as_the_estimate_is():
    mixture, estimate, enrollment = (torch.randn(1, samples) for samples in (9000, 9000, 8000))
    found = observed(["voice", "mixture"], mixture, enrollment, estimate)
    own, heard = found.chunk(2, dim=1)
    torch.testing.assert_close(own, observed(["voice"], mixture, enrollment, estimate))
    torch.testing.assert_close(heard, observed(["voice"], mixture, enrollment, mixture))
    assert (own - heard).abs().max() > 0.01


@pytest.mark.parametrize(
    ("detach", "estimate", "listener", "latent"),
    [("none", True, True, True), ("estimate", False, True, True), ("inputs", False, False, False)],
)
def test_how_far_the_gradient_goes(detach, estimate, listener, latent):
    def moved(inputs: list[str], part: str) -> bool:
        network = build(presence={"hidden": 8, "inputs": inputs, "detach": detach}).train()
        network(torch.randn(1, 4000), torch.randn(1, 4000)).presence_logits.square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in network.presence.layers[3].parameters())
        return any(p.grad is not None and p.grad.any() for n, p in network.named_parameters() if n.startswith(part))

    assert moved(["energy"], "backbone.masks") == estimate
    assert moved(["voice"], "cues.1.blocks") == listener
    assert moved(["latent"], "backbone.blocks") == latent


def test_a_causal_head_hears_nothing_of_what_comes():
    network, prepared = build(STREAMING, causal=True), None
    prepared = network.prepare(torch.randn(1, 6000))
    mixture = torch.randn(1, 8000)
    changed = torch.cat([mixture[:, :5000], torch.randn(1, 3000)], dim=1)
    one, two = (network.extract(x, prepared).presence_logits[0] for x in (mixture, changed))
    differs = (one - two).abs() > 1e-6
    # Frame t hears the samples before t·hop + window/2.
    assert int(differs.nonzero()[0]) == (5000 - 256) // 256 + 1
    whole = build({**STREAMING})
    prepared = whole.prepare(torch.randn(1, 6000))
    one, two = (whole.extract(x, prepared).presence_logits[0] for x in (mixture, changed))
    assert ((one - two).abs() > 1e-6)[:10].any()


def test_a_causal_head_goes_on_from_its_state():
    network = build(STREAMING, causal=True)
    prepared = network.prepare(torch.randn(1, 6000))
    mixture = torch.randn(1, 8000)
    analysis = network.backbone.analyse(mixture)
    whole = network.extract(mixture, prepared).presence_logits
    parts, state, detected = [], None, None
    for start, stop in ((0, 10), (10, 11), (11, analysis.num_frames)):
        part = type(analysis)(analysis.features[..., start:stop], analysis.spectrum[..., start:stop])
        latent, state = network.encode(part, prepared, state)
        logits, detected = network.detect(latent, part, prepared, state=detected)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-4)


def test_without_a_head_nothing_is_detected():
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
def test_a_wrong_configuration_is_one_line(presence, causal, cues, message):
    with pytest.raises(ConfigError) as caught:
        build(presence, causal, cues)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_odd_hidden_layer_is_allowed_where_nothing_is_smoothed():
    assert construct(PresenceConfig, {"hidden": 5}, "presence").hidden == 5


def test_evidence_that_is_missing_is_named():
    with pytest.raises(ValueError, match="detect"):
        build().presence(torch.randn(1, 4, 8))
