"""The extraction network: configuration, levels, high-pass, streaming state and checkpoints."""

from __future__ import annotations

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.network.extraction_network import build_network, load_network

SMALL = {
    "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 2},
    "speaker": {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8}},
    "cues": [
        {"name": "embedding", "fusion": "film"},
        {"name": "tf_map", "temperatures": [1, 20], "power": 0.5},
    ],
    "presence": {"hidden": 4},
}
CAUSAL = {**SMALL, "backbone": {**SMALL["backbone"], "causal": True}, "normalise": "none"}


def build(config=SMALL, **changes):
    torch.manual_seed(0)
    return build_network({**config, **changes}).eval()


@pytest.mark.parametrize("config", [SMALL, CAUSAL], ids=["whole", "causal"])
@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
def test_output_has_the_same_fields_and_shapes_at_any_sample_rate(config, sample_rate):
    network = build(config, sample_rate=sample_rate)
    out = network(torch.randn(2, 3001), torch.randn(2, sample_rate))
    assert out.waveforms[0].shape == (2, 3001)
    assert out.presence_logits.shape == (2, 3001 // network.backbone.stride + 1)
    assert out.speaker_logits is None


@pytest.mark.parametrize("fusion", ["concat", "add", "multiply", "film"])
@pytest.mark.parametrize("points", ["first", "all", [1]])
def test_every_fusion_gives_every_parameter_a_gradient(fusion, points):
    network = build(cues=[{"name": "embedding", "fusion": fusion, "points": points}], presence=None).train()
    for module in network.modules():
        if hasattr(module, "scale") and isinstance(module.scale, torch.nn.Linear):
            torch.nn.init.normal_(module.scale.weight)  # FiLM starts at zero, where nothing reaches the encoder
    network(torch.randn(2, 4000), torch.randn(2, 16000)).waveforms[0].square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before a normalisation over the same axis, or a softmax over time, has no gradient by its nature.
    assert all(name.endswith("bias") for name in without), without


def test_another_enrollment_changes_the_estimate():
    network = build(cues=[{"name": "tf_map"}], speaker=None)
    mixture = torch.randn(1, 4000)
    first, second = (network(mixture, torch.randn(1, 16000)).waveforms[0] for _ in range(2))
    assert (first - second).norm() / first.norm() > 1e-5


@pytest.mark.parametrize("normalise", ["rms", "std"])
def test_the_estimate_has_the_level_of_the_mixture(normalise):
    network = build(normalise=normalise)
    mixture, enrollment = torch.randn(1, 4000), torch.randn(1, 16000)
    loud, soft = (
        network(mixture, enrollment).waveforms[0],
        network(mixture * 0.01, enrollment * 3).waveforms[0],
    )
    torch.testing.assert_close(soft * 100, loud, atol=1e-3, rtol=1e-3)


def test_silence_gives_silence():
    out = build()(torch.zeros(1, 4000), torch.zeros(1, 16000)).waveforms[0]
    assert (out == 0).all()


def test_padding_of_an_enrollment_is_ignored():
    network, mixture, enrollment = build(cues=SMALL["cues"][:1]), torch.randn(1, 4000), torch.randn(1, 16000)
    padded = torch.cat([enrollment, torch.zeros(1, 5000)], dim=1)
    out = network(mixture, padded, torch.tensor([16000])).waveforms[0]
    torch.testing.assert_close(out, network(mixture, enrollment).waveforms[0], atol=1e-4, rtol=1e-3)


def test_prepared_enrollments_can_be_combined():
    network, mixture = build(), torch.randn(1, 4000)
    first, second = network.prepare(torch.randn(1, 16000)), network.prepare(torch.randn(1, 9000))
    combined = network.combine([first, second])
    assert set(combined) == set(first)
    assert network.extract(mixture, combined).waveforms[0].shape == mixture.shape
    torch.testing.assert_close(
        network.extract(mixture, network.combine([first])).waveforms[0],
        network.extract(mixture, first).waveforms[0],
    )


def test_causal_encoding_of_blocks_equals_that_of_the_whole():
    network = build(CAUSAL)
    prepared = network.prepare(torch.randn(1, 16000))
    analysis = network.backbone.analyse(torch.randn(1, 8000))
    whole, _ = network.encode(analysis, prepared)
    latents, state = [], None
    for start, stop in ((0, 10), (10, 11), (11, analysis.num_frames)):
        latent, state = network.encode(analysis.frames(start, stop), prepared, state)
        latents.append(latent)
    torch.testing.assert_close(torch.cat(latents, dim=2), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": {"name": "bsrn"}}, "no backbone is called 'bsrn'; did you mean 'bsrnn'"),
        ({"backbone": {"name": "bsrnn", "num_block": 1}}, "model.backbone.num_block: unknown key"),
        ({"backbone": {"name": "bsrnn", "causal": True}}, "model.normalise"),
        ({"speaker": None}, "needs a speaker encoder"),
        ({"cues": []}, "at least one cue"),
        ({"cues": [{"name": "embedding", "points": [9]}]}, "indices from 0 to 1"),
        ({"sample_rate": 100}, "8000 Hz or more"),
        ({"presense": {}}, "model.presense: unknown key; did you mean 'presence'"),
    ],
)
def test_a_wrong_configuration_is_reported_in_one_line(changes, message):
    with pytest.raises(ConfigError) as caught:
        build(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_loaded_network_equals_the_saved_one(tmp_path):
    network = build()
    checkpoint.save(tmp_path / "model", network.config, network.state_dict(), {"step": 1})
    again = load_network(tmp_path / "model")
    mixture, enrollment = torch.randn(1, 4000), torch.randn(1, 16000)
    assert torch.equal(again(mixture, enrollment).waveforms[0], network(mixture, enrollment).waveforms[0])
    assert again.config == network.config


def test_weights_of_another_configuration_are_refused(tmp_path):
    other = build(backbone={"name": "bsrnn", "feature_dim": 16, "num_blocks": 2})
    checkpoint.save(tmp_path / "model", build().config, other.state_dict())
    with pytest.raises(CheckpointError, match="do not fit"):
        load_network(tmp_path / "model")


def _noise_above_60_hz(samples: int, seed: int) -> torch.Tensor:
    """Return noise above 60 Hz, `[1, samples]`, at -26 dB."""
    from wesep_py.features import HighPass

    noise = torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))
    return 0.05 * HighPass(16000, 60.0)(noise)


def _constant(size: float, samples: int) -> torch.Tensor:
    return torch.full((1, samples), size)


def _rumble(size: float, samples: int, hz: float = 20.0) -> torch.Tensor:
    return size * torch.sin(2 * torch.pi * hz * torch.arange(samples)[None] / 16000)


def _change_db(changed: torch.Tensor, before: torch.Tensor) -> float:
    return 20 * float(torch.log10((changed - before).norm() / before.norm()).detach())


@pytest.mark.parametrize("size", [0.01, 0.1])
@pytest.mark.parametrize("where", ["mixture", "enrollment"])
@pytest.mark.parametrize("what", [_constant, _rumble])
def test_a_constant_and_a_rumble_do_not_change_the_estimate(size, where, what):
    network, mixture, enrollment = build(), _noise_above_60_hz(16000, 1), _noise_above_60_hz(20000, 2)
    before, changed = network(mixture, enrollment), {"mixture": mixture, "enrollment": enrollment}
    changed[where] = changed[where] + what(size, changed[where].shape[1])
    after = network(**changed)
    # A rumble that begins or ends within a period leaves a trace of about 25 ms there.
    inner = slice(1600, -1600)
    assert _change_db(after.waveforms[0][:, inner], before.waveforms[0][:, inner]) < (-60 if what is _constant else -20)
    unfiltered = build(highpass_hz=0)
    results = (unfiltered.prepare(enrollment)["1.frames"], unfiltered.prepare(changed["enrollment"])["1.frames"])
    if where == "mixture":
        results = (unfiltered(mixture, enrollment).waveforms[0], unfiltered(**changed).waveforms[0])
    assert _change_db(results[1], results[0]) > -20
    if what is _constant:
        assert (after.presence_logits - before.presence_logits).abs().max() < 1e-4
        # The constant stays in the residual, mixture minus estimate.
        assert abs(float(after.waveforms[0].mean().detach())) < 0.01 * size


@pytest.mark.parametrize("size", [0.01, 0.1])
@pytest.mark.parametrize("where", ["mixture", "enrollment"])
def test_a_constant_does_not_change_a_causal_estimate(size, where):
    network, mixture, enrollment = build(CAUSAL), _noise_above_60_hz(16000, 1), _noise_above_60_hz(20000, 2)
    before, changed = network(mixture, enrollment), {"mixture": mixture, "enrollment": enrollment}
    changed[where] = changed[where] + size
    assert _change_db(network(**changed).waveforms[0], before.waveforms[0]) < -60


def test_the_state_of_a_causal_network_holds_its_high_pass():
    network = build(CAUSAL)
    prepared, mixture = network.prepare(torch.randn(1, 16000)), torch.randn(1, 3000) + 0.2
    _, state = network.preprocess.causal_high_pass(mixture)
    first = network.extract(mixture, prepared)
    assert all(
        torch.equal(saved, expected) for saved, expected in zip(first.state.front_end.high_pass, state, strict=True)
    )
    second = network.extract(torch.full((1, 3000), 0.2), prepared, first.state)
    filtered, _ = network.preprocess.causal_high_pass(torch.full((1, 3000), 0.2), state)
    assert second.waveforms[0].abs().max() < 10 * filtered.abs().max() < 1.0


@pytest.mark.parametrize("normalise", ["rms", "std"])
@pytest.mark.parametrize("gain_db", [-34, 26])
def test_the_level_of_the_inputs_does_not_change_the_estimate(normalise, gain_db):
    network, mixture, enrollment = build(normalise=normalise), _noise_above_60_hz(8000, 1), _noise_above_60_hz(9000, 2)
    gain, before = 10 ** (gain_db / 20), network(mixture, enrollment).waveforms[0]
    for changed in (network(gain * mixture, enrollment), network(mixture, gain * enrollment)):
        after = changed.waveforms[0]
        assert _change_db(after / after.norm(), before / before.norm()) < -80


@pytest.mark.parametrize("highpass_hz", [0, 40])
@pytest.mark.parametrize("normalise", ["none", "rms", "std"])
def test_samples_of_any_size_stay_finite(normalise, highpass_hz):
    network = build(normalise=normalise, highpass_hz=highpass_hz)
    mixture, enrollment = _noise_above_60_hz(4000, 1), _noise_above_60_hz(5000, 2)
    expected = network(mixture, enrollment).waveforms[0]
    for size in (1e38, 1e30, 1e-30, 1e-44, 0.0):
        for waveforms in (
            network(size * mixture, enrollment).waveforms[0],
            network(mixture, size * enrollment).waveforms[0],
            network(torch.full((1, 4000), size), enrollment).waveforms[0],
        ):
            assert torch.isfinite(waveforms).all(), size
    if normalise != "none":
        huge = network(1e30 * mixture, enrollment).waveforms[0] / 1e30
        assert _change_db(huge, expected) < -80


@pytest.mark.parametrize("value", [0, 17, 2.0, True])
def test_shifts_out_of_range_are_refused(value):
    with pytest.raises(ConfigError, match="shifts: is"):
        build(shifts=value)


def test_shifts_beyond_the_stride_are_refused():
    with pytest.raises(ConfigError, match=r"model.shifts: is 5; at most the backbone's stride, 4, is allowed"):
        build(backbone={"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "hop_ms": 0.25}, shifts=5)


@pytest.mark.parametrize("highpass_hz", [0, 40])
def test_samples_of_any_size_stay_finite_in_a_causal_network(highpass_hz):
    network, mixture, enrollment = (
        build(CAUSAL, highpass_hz=highpass_hz),
        _noise_above_60_hz(4000, 1),
        _noise_above_60_hz(5000, 2),
    )
    for size in (1e38, 1e30, 1e-44, 0.0):
        assert torch.isfinite(network(size * mixture, size * enrollment).waveforms[0]).all(), size


def test_a_constant_mixture_gives_a_silent_estimate():
    assert not build()(torch.full((1, 4000), 0.5), torch.randn(1, 16000)).waveforms[0].abs().max() > 1e-6


@pytest.mark.parametrize("value", [-1, 201])
def test_a_highpass_hz_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match=r"highpass_hz: is .*; 0 .nothing is removed. to 200 Hz is allowed"):
        build(highpass_hz=value)


@pytest.mark.parametrize(("provenance", "hz"), [({}, 40.0), ({"imported_from": {"toolkit": "WeSep"}}, 0.0)])
def test_old_checkpoints_get_a_high_pass_unless_imported(tmp_path, provenance, hz):
    network = build()
    config = {key: value for key, value in network.config.items() if key != "highpass_hz"}
    checkpoint.save(tmp_path / "old", config, network.state_dict(), provenance)
    assert load_network(tmp_path / "old").highpass_hz == hz
