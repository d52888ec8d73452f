"""The live mode of a network: shared weights, no look-ahead, the same enrollments, training from older weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from tests.inference.networks import BSRNN
from wesep_py import checkpoint
from wesep_py.common.errors import ConfigError
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network, load_network
from wesep_py.training.state import load_initial_weights
from wesep_py.training.training_config import InitConfig

LIVE = {"backbone": {**BSRNN, "live": True, "norm": "frame"}, "cues": [{"name": "tf_map"}, {"name": "band_attention"}]}


def live_network(**changes) -> TargetSpeakerExtractor:
    torch.manual_seed(0)
    return build_network({**LIVE, "live_presence": {"smoothing": "lstm"}, "presence": {}, **changes}).eval()


def test_the_live_network_has_no_parameters_of_its_own():
    network = live_network()
    assert {id(parameter) for parameter in network.live().parameters()} < {id(p) for p in network.parameters()}
    assert not any(name.startswith("_live") for name in network.state_dict())


def test_a_step_of_the_live_mode_trains_its_layers_and_not_the_backward_direction():
    network = live_network().train()
    mixture, enrollment = torch.randn(2, 4000), torch.randn(2, 8000)
    network.live()(mixture, enrollment).waveforms[0].square().sum().backward()
    along_time = network.backbone.blocks[0].along_time
    assert along_time.live_linear.weight.grad is not None and along_time.rnn.weight_ih_l0.grad is not None
    assert along_time.rnn.weight_ih_l0_reverse.grad is None and along_time.linear.weight.grad is None


def test_the_live_mode_does_not_depend_on_later_samples_beyond_its_latency():
    network = live_network(normalise="rms").double()
    live = network.live().double()
    prepared = network.prepare(torch.randn(1, 8000, dtype=torch.float64))
    mixture = 0.1 * torch.randn(1, 6000, dtype=torch.float64)
    with torch.inference_mode():
        before, look_ahead = live.extract(mixture, prepared).waveforms[0], []
        for start in range(3000, 3000 + live.backbone.stride):
            changed = mixture.clone()
            changed[:, start:] = 10 * torch.randn(6000 - start, dtype=torch.float64)
            difference = (live.extract(changed, prepared).waveforms[0] - before).abs()[0]
            look_ahead.append(start - int((difference > 1e-13).nonzero()[0]))
    assert max(look_ahead) == live.latency
    assert network.latency is None


def test_the_offline_mode_is_that_of_a_network_without_live_mode():
    network = live_network()
    plain = build_network({**LIVE, "backbone": {**BSRNN, "norm": "frame"}, "presence": {}}).eval()
    weights = {name: tensor for name, tensor in network.state_dict().items() if "live_" not in name}
    plain.load_state_dict(weights)
    mixture, enrollment = torch.randn(1, 4000), torch.randn(1, 8000)
    with torch.inference_mode():
        assert torch.equal(network(mixture, enrollment).waveforms[0], plain(mixture, enrollment).waveforms[0])


def test_both_modes_prepare_the_same_enrollment():
    network = live_network(normalise="rms")
    enrollment = 0.01 * torch.randn(1, 8000)
    offline, live = network.prepare(enrollment), network.live().prepare(enrollment)
    assert offline.keys() == live.keys() and all(torch.equal(offline[key], live[key]) for key in offline)


def test_the_level_of_the_recording_does_not_change_the_live_voice():
    live = live_network(normalise="rms").live()
    mixture, enrollment = 0.1 * torch.randn(1, 8000), torch.randn(1, 8000)
    with torch.inference_mode():
        loud = live(mixture, enrollment).waveforms[0]
        quiet = live(0.01 * mixture, enrollment).waveforms[0]
    torch.testing.assert_close(100 * quiet, loud, atol=1e-4, rtol=1e-3)


def test_a_copy_shares_parameters_within_itself():
    network = live_network()
    duplicate = copy.deepcopy(network)
    owned = {id(parameter) for parameter in duplicate.parameters()}
    assert {id(parameter) for parameter in duplicate.live().parameters()} < owned
    assert not owned & {id(parameter) for parameter in network.parameters()}


def test_a_checkpoint_keeps_both_modes(tmp_path: Path):
    network = live_network()
    checkpoint.save(tmp_path / "model", network.config, network.state_dict(), {}, "card")
    loaded = load_network(tmp_path / "model")
    mixture, enrollment = torch.randn(1, 4000), torch.randn(1, 8000)
    with torch.inference_mode():
        for one, other in ((network, loaded), (network.live(), loaded.live())):
            torch.testing.assert_close(one(mixture, enrollment).waveforms[0], other(mixture, enrollment).waveforms[0])


def test_weights_without_live_layers_start_them_from_the_forward_direction(tmp_path: Path):
    torch.manual_seed(1)
    plain = build_network({**LIVE, "backbone": {**BSRNN, "norm": "frame"}})
    checkpoint.save(tmp_path / "model", plain.config, plain.state_dict(), {}, "card")
    network = live_network()
    initial = load_initial_weights(network, InitConfig(str(tmp_path / "model")))
    assert "computed from them: backbone.blocks.0.along_time.live_linear.weight, " in str(initial)
    layer = network.backbone.blocks[0].along_time
    torch.testing.assert_close(layer.live_linear.weight, layer.linear.weight[:, : layer.rnn.hidden_size])
    torch.testing.assert_close(layer.linear.weight, plain.backbone.blocks[0].along_time.linear.weight)


def test_a_causal_network_is_its_own_live_network_and_others_have_none():
    causal = build_network({"backbone": {**BSRNN, "causal": True}, "cues": [{"name": "tf_map"}], "normalise": "none"})
    assert causal.live() is causal
    with pytest.raises(ConfigError, match=r"works on whole recordings only: its backbone 'bsrnn' looks ahead"):
        build_network({"backbone": BSRNN, "cues": [{"name": "tf_map"}]}).live()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": {**BSRNN, "live": True}}, "live: is true with norm 'group'"),
        ({"backbone": {**BSRNN, "live": True, "causal": True}}, "needs norm 'frame' and causal false"),
        ({"backbone": BSRNN, "live_presence": {}}, "model.live_presence: the backbone has no live mode"),
        ({"cues": [{"name": "usef"}]}, "in the live mode; a norm over time cannot be shared"),
        ({"cues": [{"name": "usef", "norm": "frame", "causal": False}]}, "a cue looks ahead"),
        ({"live_presence": {"inputs": ["energy"]}}, "comes too late for a causal backbone"),
        ({"normalise": "tracked"}, "is 'tracked', which is for a causal backbone"),
    ],
)
def test_configurations_without_a_live_mode_are_refused(changes: dict, message: str):
    with pytest.raises(ConfigError) as error:
        build_network({**LIVE, **changes}).live()
    assert message in str(error.value)
