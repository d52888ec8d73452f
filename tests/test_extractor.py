from __future__ import annotations

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.errors import CheckpointError, ConfigError
from wesep_py.extractor import build_network, load_network

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
def test_one_typed_result_at_any_rate(config, sample_rate):
    network = build(config, sample_rate=sample_rate)
    out = network(torch.randn(2, 3001), torch.randn(2, sample_rate))
    assert out.waveforms[0].shape == (2, 3001)
    assert out.presence_logits.shape == (2, 3001 // network.backbone.stride + 1)
    assert out.speaker_logits is None


@pytest.mark.parametrize("fusion", ["concat", "add", "multiply", "film"])
@pytest.mark.parametrize("points", ["first", "all", [1]])
def test_every_fusion_trains_every_parameter(fusion, points):
    network = build(cues=[{"name": "embedding", "fusion": fusion, "points": points}], presence=None).train()
    for module in network.modules():
        if hasattr(module, "scale") and isinstance(module.scale, torch.nn.Linear):
            torch.nn.init.normal_(module.scale.weight)  # FiLM starts at zero, where nothing reaches the encoder
    network(torch.randn(2, 4000), torch.randn(2, 16000)).waveforms[0].square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before a normalisation over the same axis, or a softmax over time, has no gradient by its nature.
    assert all(name.endswith("bias") for name in without), without


def test_the_enrollment_matters():
    network = build(cues=[{"name": "tf_map"}], speaker=None)
    mixture = torch.randn(1, 4000)
    one, other = (network(mixture, torch.randn(1, 16000)).waveforms[0] for _ in range(2))
    assert (one - other).norm() / one.norm() > 1e-5


@pytest.mark.parametrize("normalise", ["rms", "std"])
def test_a_normalised_model_gives_back_the_level(normalise):
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


def test_padding_of_an_enrollment_is_masked():
    network, mixture, enrollment = build(cues=SMALL["cues"][:1]), torch.randn(1, 4000), torch.randn(1, 16000)
    padded = torch.cat([enrollment, torch.zeros(1, 5000)], dim=1)
    out = network(mixture, padded, torch.tensor([16000])).waveforms[0]
    torch.testing.assert_close(out, network(mixture, enrollment).waveforms[0], atol=1e-4, rtol=1e-3)


def test_an_enrollment_is_prepared_once_and_several_are_combined():
    network, mixture = build(), torch.randn(1, 4000)
    one, two = network.prepare(torch.randn(1, 16000)), network.prepare(torch.randn(1, 9000))
    both = network.combine([one, two])
    assert set(both) == set(one)
    assert network.extract(mixture, both).waveforms[0].shape == mixture.shape
    torch.testing.assert_close(
        network.extract(mixture, network.combine([one])).waveforms[0],
        network.extract(mixture, one).waveforms[0],
    )


def test_a_causal_model_goes_on_from_its_state():
    network = build(CAUSAL)
    prepared = network.prepare(torch.randn(1, 16000))
    analysis = network.backbone.analyse(torch.randn(1, 8000))
    whole, _ = network.encode(analysis, prepared)
    parts, state = [], None
    for start, stop in ((0, 10), (10, 11), (11, analysis.num_frames)):
        part = type(analysis)(analysis.features[..., start:stop], analysis.spectrum[..., start:stop])
        latent, state = network.encode(part, prepared, state)
        parts.append(latent)
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-5, rtol=1e-4)


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
def test_a_wrong_configuration_is_one_line(changes, message):
    with pytest.raises(ConfigError) as caught:
        build(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_saved_network_computes_the_same(tmp_path):
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
