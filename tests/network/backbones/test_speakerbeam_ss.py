"""SpeakerBeam-SS: its state-space layer in both forms, against SciPy, streams cut anywhere, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.network.backbones import SpeakerBeamSS
from wesep_py.network.backbones.speakerbeam_ss import S4D
from wesep_py.network.extraction_network import build_network

SIZES = {"num_filters": 12, "bottleneck": 6, "hidden": 8, "num_blocks": 2, "num_states": 8, "feedforward": 10}


def build(**changes) -> SpeakerBeamSS:
    torch.manual_seed(0)
    return SpeakerBeamSS(**{**SIZES, **changes}).eval()


def same(point: int, latent: torch.Tensor) -> torch.Tensor:
    return latent


@pytest.mark.parametrize("num_frames", [1, 50, 700])
def test_convolution_and_recurrence_agree(num_frames: int):
    torch.manual_seed(0)
    layer, u = S4D(6, 32), torch.randn(2, 6, num_frames)
    with torch.no_grad():
        convolved, state = layer(u)
        recurred, last = layer(u, torch.zeros(2, 6, 16, 2))
        first, middle = layer(u[..., : num_frames // 2]) if num_frames > 1 else (u[..., :0], None)
        second, _ = layer(u[..., num_frames // 2 :], middle)
    torch.testing.assert_close(recurred, convolved, atol=1e-5, rtol=0)
    torch.testing.assert_close(last, state, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat([first, second], dim=2), convolved, atol=1e-5, rtol=0)


def test_the_layer_is_the_linear_system_of_its_matrices():
    """SciPy's zero-order hold and simulation of the continuous system, in float64."""
    signal = pytest.importorskip("scipy.signal")
    torch.manual_seed(0)
    layer, u = S4D(1, 4), torch.randn(1, 1, 200)
    decay, frequency = layer.log_decay.detach()[0].exp().numpy(), layer.frequency.detach()[0].numpy()
    c, step = torch.view_as_complex(layer.output.detach())[0].numpy(), layer.log_step.exp().item()
    # A conjugate pair −d ± ib with output 2 Re(C x), as a real system of two states: real and imaginary part.
    a = np.zeros((4, 4))
    for n in range(2):
        a[2 * n : 2 * n + 2, 2 * n : 2 * n + 2] = [[-decay[n], -frequency[n]], [frequency[n], -decay[n]]]
    b = np.tile([[1.0], [0.0]], (2, 1))
    out = np.stack([2 * c.real, -2 * c.imag], axis=1).reshape(1, 4)
    discrete = signal.cont2discrete((a, b, out, np.array([[0.0]])), step, method="zoh")
    # Here x_t holds u_t already, in SciPy it holds u_{t−1}.
    states = np.zeros(4)
    expected = []
    for value in u[0, 0].double().numpy():
        states = discrete[0] @ states + discrete[1][:, 0] * value
        expected.append((out @ states)[0] + layer.direct.item() * value)
    np.testing.assert_allclose(layer(u)[0][0, 0].detach().numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("cuts", [(1, 2), (10,), (3, 30, 31)])
def test_frames_cut_anywhere_give_the_same_latent(cuts: tuple[int, ...]):
    network, features = build(), torch.randn(2, 1, 12, 40)
    with torch.no_grad():
        whole, _ = network.encode(features, same)
        parts, state = [], None
        for block in features.tensor_split(cuts, dim=3):
            latent, state = network.encode(block, same, state)
            parts.append(latent)
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-5, rtol=1e-5)


def test_every_parameter_learns_and_remembers_for_long():
    network = build()
    analysis = network.analyse(torch.randn(2, 16000, requires_grad=True))
    latent, _ = network.encode(analysis.features, same)
    network.synthesise(latent, analysis, 16000)[0].square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    features = torch.randn(1, 1, 12, 100)
    changed = features.clone()
    changed[..., 0] += torch.randn(12)  # the same number for all channels would be removed by the norm
    with torch.no_grad():
        difference = (network.encode(features, same)[0] - network.encode(changed, same)[0]).abs()
    assert (difference[..., -1] > 1e-7).any()


def test_the_published_extractor_has_its_size_and_latency():
    network = build_network(load_yaml(conf_folder() / "model/speakerbeam_ss.yaml")["model"])
    assert network.latency == 319
    parameters = sum(p.numel() for name, p in network.named_parameters() if name.startswith("backbone."))
    assert parameters == pytest.approx(7.5e6, rel=0.05)


@pytest.mark.parametrize("wrong", [{"hop_ms": 25}, {"num_states": 3}, {"num_blocks": 0}, {"feedforward": 0}])
def test_wrong_sizes_are_refused(wrong: dict):
    with pytest.raises(ValueError):
        build(**wrong)
