"""Every shipped YAML of the cues that have no embedding alone: builds, steps, saves and loads."""

from __future__ import annotations

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.network.extraction_network import build_network, load_network

NAMES = ["bsrnn_tfmap", "bsrnn_multilevel", "usef_bsrnn", "bsrnn_listen_first"]


def model(name: str):
    return load_yaml(conf_folder() / "model" / f"{name}.yaml")["model"]


@pytest.mark.parametrize("name", NAMES)
def test_the_small_twin_steps_saves_and_loads(name, tmp_path):
    torch.manual_seed(0)
    network = build_network(model(f"{name}_small")).train()
    mixture, enrollment = torch.randn(2, 2000), torch.randn(2, 6000)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    network(mixture, enrollment).waveforms[0].square().mean().backward()
    optimiser.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    checkpoint.save(tmp_path / "model", network.config, network.state_dict(), {"step": 1})
    again, network = load_network(tmp_path / "model"), network.eval()
    with torch.no_grad():
        one, other = (each(mixture, enrollment).waveforms[0] for each in (network, again))
    assert one.shape == mixture.shape and torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_the_published_size_builds(name):
    network = build_network(model(name))
    assert network.backbone.latent_dim == 128 and network.backbone.num_fusion_points == 6
    small = build_network(model(f"{name}_small"))
    assert [type(cue) for cue in small.cues] == [type(cue) for cue in network.cues]
