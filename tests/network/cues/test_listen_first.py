from __future__ import annotations

import pytest
import torch

from wesep_py.network.cues.listen_first import ListenFirstCue
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


def test_it_is_the_network_on_enrollment_silence_and_mixture():
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


def test_a_causal_network_listens_only_at_the_start():
    network = build(causal=True)
    prepared, mixture = network.prepare(torch.randn(1, 1000)), torch.randn(1, 3000)
    first = network.extract(mixture, prepared)
    further = network.extract(mixture, prepared, first.state)
    assert further.waveforms[0].shape == (1, 3000)
    analysis = network.backbone.analyse(mixture)
    latent, _ = network.encode(analysis, prepared, first.state[0])
    expected = network.backbone.synthesise(latent, analysis, 3000)[0]
    torch.testing.assert_close(further.waveforms[0], expected)


def test_two_enrollments_are_heard_one_after_the_other():
    network = build()
    one, two = network.prepare(torch.randn(1, 1000)), network.prepare(torch.randn(1, 2000))
    both = network.combine([one, two])
    assert torch.equal(both["0.prefix"], torch.cat([one["0.prefix"], two["0.prefix"]], dim=1))
    assert network.extract(torch.randn(1, 500), both).waveforms[0].shape == (1, 500)


def test_the_enrollment_matters():
    network, mixture = build(), torch.randn(1, 4000)
    one, other = (network(mixture, torch.randn(1, 4000)).waveforms[0] for _ in range(2))
    assert (one - other).norm() / one.norm() > 1e-5


def test_a_silence_below_zero():
    with pytest.raises(ValueError, match="silence_ms"):
        ListenFirstCue(silence_ms=-1)


def test_padding_that_no_enrollment_needs_is_not_heard():
    network = build()
    enrollment, mixture = torch.randn(2, 1000), torch.randn(2, 1500)
    padded = torch.cat([enrollment, torch.zeros(2, 4000)], dim=1)
    out = network(mixture, padded, torch.tensor([1000, 1000])).waveforms[0]
    assert torch.equal(out, network(mixture, enrollment).waveforms[0])
