"""The listen-first cue: the prefix, its alignment in a batch, and what is cut from the outputs."""

from __future__ import annotations

import pytest
import torch

from wesep_py.network.cues.input_cues import ListenFirstCue
from wesep_py.network.extraction_network import build_network


def build(sample_rate: int = 16000, causal: bool = False, silence_ms: float = 32.0):
    torch.manual_seed(0)
    model = {
        "sample_rate": sample_rate,
        "normalise": "none",
        "highpass_hz": 0,
        "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "causal": causal},
        "cues": [{"name": "listen_first", "silence_ms": silence_ms}],
        "presence": {"hidden": 4},
    }
    return build_network(model).eval()


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize("length", [1, 127, 3001])
def test_the_prefix_is_cut_from_every_output(sample_rate, length):
    network = build(sample_rate)
    out = network(torch.randn(2, length), torch.randn(2, 1000))
    assert out.waveforms[0].shape == (2, length)
    assert out.presence_logits.shape == (2, length // network.backbone.stride + 1)


def test_the_estimate_is_that_of_enrollment_silence_and_mixture():
    network = build()
    mixture, enrollment = torch.randn(1, 3000), torch.randn(1, 1000)
    # 1000 samples and at least 512 of silence make 12 strides of 128.
    joined = torch.cat([enrollment, torch.zeros(1, 12 * 128 - 1000), mixture], dim=1)
    analysis = network.backbone.analyse(joined)
    latent, _ = network.backbone.encode(analysis.features, lambda point, latent: latent)
    expected = network.backbone.synthesise(latent, analysis, joined.shape[1])[0][:, 12 * 128 :]
    torch.testing.assert_close(network(mixture, enrollment).waveforms[0], expected, atol=1e-6, rtol=1e-5)


def test_shorter_enrollments_of_a_batch_end_together():
    network = build()
    enrollment = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 0.0, 0.0]])
    prefix = network.prepare(enrollment, torch.tensor([4, 2]))["0.prefix"]
    assert prefix.shape[1] % network.backbone.stride == 0
    assert prefix[:, :4].tolist() == [[1, 2, 3, 4], [0, 0, 5, 6]]
    assert not prefix[:, 4:].any() and prefix.shape[1] - 4 >= 512


def test_a_causal_network_gets_the_prefix_with_the_first_block_only():
    network = build(causal=True)
    prepared, mixture = network.prepare(torch.randn(1, 1000)), torch.randn(1, 3000)
    first = network.extract(mixture, prepared)
    further = network.extract(mixture, prepared, first.state)
    assert further.waveforms[0].shape == (1, 3000)
    analysis = network.backbone.analyse(mixture)
    latent, _ = network.encode(analysis, prepared, first.state.backbone)
    expected = network.backbone.synthesise(latent, analysis, 3000)[0]
    torch.testing.assert_close(further.waveforms[0], expected)


def test_two_enrollments_are_joined_in_time():
    network = build()
    first, second = network.prepare(torch.randn(1, 1000)), network.prepare(torch.randn(1, 2000))
    joined = network.combine([first, second])
    assert torch.equal(joined["0.prefix"], torch.cat([first["0.prefix"], second["0.prefix"]], dim=1))
    assert network.extract(torch.randn(1, 500), joined).waveforms[0].shape == (1, 500)


def test_another_enrollment_changes_the_estimate():
    network, mixture = build(), torch.randn(1, 4000)
    first, second = (network(mixture, torch.randn(1, 4000)).waveforms[0] for _ in range(2))
    assert (first - second).norm() / first.norm() > 1e-5


def test_a_negative_silence_is_refused():
    with pytest.raises(ValueError, match="silence_ms"):
        ListenFirstCue(silence_ms=-1)


def test_padding_of_all_enrollments_is_dropped():
    network = build()
    enrollment, mixture = torch.randn(2, 1000), torch.randn(2, 1500)
    padded = torch.cat([enrollment, torch.zeros(2, 4000)], dim=1)
    out = network(mixture, padded, torch.tensor([1000, 1000])).waveforms[0]
    assert torch.equal(out, network(mixture, enrollment).waveforms[0])
