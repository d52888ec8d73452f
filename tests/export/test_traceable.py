"""The copy of a network that can be traced computes the same in real arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from tests.export.exportable_networks import OFFLINE, STREAMING, random_network, sound
from wesep_py.export.traceable import decaying_sum, overlap_add, traceable
from wesep_py.features import STFT, ComplexPair
from wesep_py.features.high_pass import OnePole


@pytest.mark.parametrize("size", [1, 4, 6, 7])
def test_overlap_add_is_a_fold(size: int):
    frames = torch.randn(2, size, 5)
    expected = torch.nn.functional.fold(frames, (1, 3 * 4 + size), (1, size), stride=(1, 3))[:, 0, 0]
    assert torch.allclose(overlap_add(frames, 3), expected, atol=1e-6)


@pytest.mark.parametrize("time_constant", [3.0, 500.0, 48000.0])
@pytest.mark.parametrize("num_samples", [1, 256, 257, 5000])
def test_decaying_sum_is_the_recursion(time_constant: float, num_samples: int):
    x, before, decay = torch.rand(1, num_samples), torch.rand(1, 1), math.exp(-1 / time_constant)
    value, expected = float(before), []
    for sample in x[0].tolist():
        value = decay * value + sample
        expected.append(value)
    result = decaying_sum(x, before, 1 / time_constant, num_samples)
    assert torch.allclose(result, torch.tensor([expected]), rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"window": "asymmetric"}, {"centred": False}, {"pad_mode": "reflect"}, {"window": "sqrt_hann"}],
)
@pytest.mark.parametrize("num_samples", [1, 7, 100, 129])
def test_transform_is_that_of_torch(options: dict, num_samples: int):
    stft = STFT(32, 8, **options)
    ours = traceable(torch.nn.Sequential(stft))[0]  # type: ignore[arg-type]
    waveform = torch.randn(1, num_samples)
    expected, spectrum = stft(waveform), ours(waveform)
    assert isinstance(spectrum, ComplexPair)
    assert torch.allclose(torch.complex(spectrum.real, spectrum.imag), expected, atol=1e-5)
    assert torch.allclose(ours.inverse(spectrum, num_samples), stft.inverse(expected, num_samples), atol=1e-5)
    assert torch.allclose(ours.frame_signals(spectrum), stft.frame_signals(expected), atol=1e-5)


def test_one_pole_is_that_of_training():
    network = traceable(torch.nn.Sequential(OnePole(48000.0)))  # type: ignore[arg-type]
    x, before = torch.rand(1, 100_000), torch.rand(1, 1)
    assert torch.allclose(network[0](x, before), OnePole(48000.0)(x, before), atol=1e-5)


@pytest.mark.parametrize("name", [*OFFLINE, *STREAMING])
@pytest.mark.parametrize(("num_samples", "enrollment_samples"), [(37, 8000), (8001, 9000)])
def test_whole_network_computes_the_same(name: str, num_samples: int, enrollment_samples: int):
    network = random_network({**OFFLINE, **STREAMING}[name])
    copied = traceable(network)
    mixture, enrollment = sound(num_samples) + 0.2, sound(enrollment_samples, seed=1)
    with torch.inference_mode():
        expected, output = network(mixture, enrollment), copied(mixture, enrollment)
    assert torch.allclose(output.waveforms[0], expected.waveforms[0], atol=1e-4)
    if expected.presence_logits is not None:
        assert torch.allclose(output.presence_logits, expected.presence_logits, atol=1e-3)
    assert type(network.backbone) is type(copied.backbone), "only parts of it have another class"
