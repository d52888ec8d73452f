"""The TF-map cue: its formula from the spectrum and from the encoder, padding, silence and gradients."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones import BSRNN
from wesep_py.network.cues import SignalFeatures, TFMapCue
from wesep_py.network.extraction_network import build_network

SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}
ENCODER_MAP = {"name": "tf_map", "source": "encoder", "temperatures": [20]}


def prepare(cue: TFMapCue, backbone: BSRNN, waveform: torch.Tensor, length: int | None = None):
    lengths = torch.tensor([length or waveform.shape[1]] * len(waveform))
    return cue.prepare(SignalFeatures(waveform, lengths, backbone, None))


def build(cues=(ENCODER_MAP,), causal: bool = False, **model):
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "causal": causal}
    config = {"backbone": backbone, "speaker": SPEAKER, "cues": list(cues), "normalise": "none", "highpass_hz": 0}
    return build_network({**config, **model}).eval()


def features_of(network, mixture: torch.Tensor, prepared) -> torch.Tensor:
    """Return the features that the backbone gets."""
    inputs, encode = [], network.backbone.encode
    network.backbone.encode = lambda features, *others: inputs.append(features) or encode(features, *others)
    network.extract(mixture, prepared)
    network.backbone.encode = encode
    return inputs[0]


def test_the_map_equals_its_formula():
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue(temperatures=(1.0,))
    mixture, enrollment = torch.randn(1, 3000), torch.randn(1, 2000)
    analysis = backbone.analyse(mixture)
    features = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, enrollment))
    assert features.shape == (1, 3, 257, analysis.num_frames)

    x, e = analysis.spectrum.abs()[0], backbone.analyse(enrollment).spectrum.abs()[0]
    for t in range(0, x.shape[1], 5):
        cosines = torch.stack([x[:, t] @ e[:, s] / x[:, t].norm() / e[:, s].norm() for s in range(e.shape[1])])
        weights = cosines.softmax(dim=0)
        matched = sum(w * e[:, s] / e[:, s].norm() for s, w in enumerate(weights))
        matched = matched / matched.norm()
        torch.testing.assert_close(features[0, 2, :, t], (x[:, t] @ matched) * matched, atol=1e-4, rtol=1e-4)


def test_a_sharp_map_of_a_recording_on_itself_is_its_magnitude():
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue(temperatures=(1e4,))
    waveform = torch.randn(1, 3000)
    analysis = backbone.analyse(waveform)
    features = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, waveform))
    torch.testing.assert_close(features[:, 2], analysis.spectrum.abs(), atol=1e-3, rtol=1e-3)


def test_padding_of_the_enrollment_is_ignored():
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue(temperatures=(1.0, 20.0), power=0.5)
    enrollment, analysis = torch.randn(1, 2048), backbone.analyse(torch.randn(1, 3000))
    padded = torch.cat([enrollment, torch.zeros(1, 9000)], dim=1)
    alone = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, enrollment))
    with_padding = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, padded, 2048))
    # 2048 samples have 17 frames, the last of which straddles the end: with padding or without.
    torch.testing.assert_close(alone, with_padding, atol=1e-5, rtol=1e-4)
    twice = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, padded[:, :5000], 2048))
    torch.testing.assert_close(twice, with_padding)


def test_silence_gives_finite_features_and_gradients():
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue(power=0.5, learn_temperatures=True)
    analysis = backbone.analyse(torch.zeros(1, 3000))
    features = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, torch.zeros(1, 2000)))
    assert torch.isfinite(features).all()
    features.sum().backward()
    assert torch.isfinite(cue.log_temperatures.grad).all()


def test_padding_leaves_the_gradient_of_temperatures_finite():
    """Regression: minus infinity at padded frames times a learned temperature made its gradient NaN."""
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue(temperatures=(1.0, 20.0), learn_temperatures=True)
    analysis = backbone.analyse(torch.randn(1, 3000))
    prepared = prepare(cue, backbone, torch.randn(1, 9000), length=3000)
    cue.steer_features(analysis, analysis.features, prepared).square().sum().backward()
    assert torch.isfinite(cue.log_temperatures.grad).all()
    assert (cue.log_temperatures.grad != 0).all()


def test_two_enrollments_are_joined_in_time():
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue()
    first, second = (prepare(cue, backbone, torch.randn(1, n)) for n in (2000, 3000))
    combined = cue.combine([first, second])
    assert combined["frames"].shape[-1] == first["frames"].shape[-1] + second["frames"].shape[-1]


def test_with_the_encoder_its_features_give_the_similarity():
    """1 s at hops of 8 ms, and of 10 ms from 12.5 ms on: the backbone's frame t is the encoder's frame 0.8 t − 1.25."""
    network = build()
    mixture, enrollment = torch.randn(1, 16000), torch.randn(1, 16000)
    features = features_of(network, mixture, network.prepare(enrollment))

    def speaker_frames(waveform):
        encoded = network.encoder(waveform, torch.tensor([16000])).frames[0]
        at = (0.8 * torch.arange(126) - 1.25).clamp(0, 97)
        before, share = at.floor().long(), at - at.floor()
        frames = (1 - share) * encoded[:, before] + share * encoded[:, (before + 1).clamp(max=97)]
        return frames / frames.norm(dim=0)

    x, e = (network.backbone.analyse(waveform).spectrum.abs()[0] for waveform in (mixture, enrollment))
    similarity = speaker_frames(mixture).T @ speaker_frames(enrollment)
    for t in range(0, 126, 25):
        weights = (20 * similarity[t]).softmax(dim=0)
        matched = sum(w * e[:, s] / e[:, s].norm() for s, w in enumerate(weights))
        matched = matched / matched.norm()
        torch.testing.assert_close(features[0, 2, :, t], (x[:, t] @ matched) * matched, atol=1e-3, rtol=1e-3)


def test_with_the_encoder_a_sharp_map_on_itself_is_the_magnitude():
    network, waveform = build([{**ENCODER_MAP, "temperatures": [1e6]}]), torch.randn(1, 8000)
    features = features_of(network, waveform, network.prepare(waveform))
    inside = slice(2, -2)  # before the first and after the last frame of the filterbank, that frame is repeated
    magnitude = network.backbone.analyse(waveform).spectrum.abs()
    torch.testing.assert_close(features[:, 2, :, inside], magnitude[..., inside], atol=1e-2, rtol=1e-2)


def test_the_encoder_computes_each_recording_once():
    network, lengths = build([ENCODER_MAP, ENCODER_MAP, {"name": "context", "dim": 8}, {"name": "embedding"}]), []
    network.encoder.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
    network(torch.randn(1, 3000), torch.randn(1, 4000))
    assert lengths == [4000, 3000]
    network, lengths = build([{"name": "tf_map"}, {"name": "embedding"}]), []
    network.encoder.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
    network(torch.randn(1, 3000), torch.randn(1, 4000))
    assert lengths == [4000]


def test_the_encoder_gets_a_gradient_from_both_recordings():
    network = build()
    mixture, enrollment = (torch.randn(1, n, requires_grad=True) for n in (3000, 4000))
    assert network.encoder(mixture, torch.tensor([3000])).frames.requires_grad
    network(mixture, enrollment).waveforms[0].square().sum().backward()
    assert network.encoder.network.layer1.conv.weight.grad.any()


def test_with_the_encoder_padding_is_ignored():
    network, enrollment, mixture = build(), torch.randn(1, 4096), torch.randn(1, 3000)
    padded = torch.cat([enrollment, torch.zeros(1, 5000)], dim=1)
    with_padding = features_of(network, mixture, network.prepare(padded, torch.tensor([4096])))
    alone = features_of(network, mixture, network.prepare(enrollment))
    torch.testing.assert_close(alone, with_padding, atol=1e-4, rtol=1e-3)


def test_with_listen_first_the_encoder_sees_the_prefix_too():
    """The prefix has 36 frames before those of the mixture, and the estimate has the mixture's length."""
    network = build([ENCODER_MAP, {"name": "listen_first"}])
    mixture, enrollment = torch.randn(1, 3000), torch.randn(1, 4096)
    features = features_of(network, mixture, network.prepare(enrollment))
    assert features.shape[3] == 36 + 3000 // 128 + 1
    assert network(mixture, enrollment).waveforms[0].shape == mixture.shape


def test_source_encoder_needs_an_encoder_and_no_causal_backbone():
    with pytest.raises(ConfigError, match="'tf_map' with source 'encoder' needs a speaker encoder"):
        build(speaker=None)
    with pytest.raises(ConfigError, match=r"cues\[0\]: source: is 'encoder', which needs the whole mixture"):
        build(causal=True)
    build([{"name": "tf_map"}, {"name": "embedding"}], causal=True)


@pytest.mark.parametrize("arguments", [{"temperatures": ()}, {"temperatures": (0.0,)}, {"power": 0.0}])
def test_invalid_arguments_are_refused(arguments):
    with pytest.raises(ValueError):
        TFMapCue(**arguments)
