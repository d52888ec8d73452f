from __future__ import annotations

import pytest
import torch

from wesep_py.backbones import BSRNN
from wesep_py.cues import Enrollment, TFMapCue


def prepare(cue: TFMapCue, backbone: BSRNN, waveform: torch.Tensor, length: int | None = None):
    lengths = torch.tensor([length or waveform.shape[1]] * len(waveform))
    return cue.prepare(Enrollment(waveform, lengths, backbone, None))


def test_the_formula_step_by_step():
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


def test_a_sharp_map_of_a_recording_on_itself_is_its_own_magnitude():
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue(temperatures=(1e4,))
    waveform = torch.randn(1, 3000)
    analysis = backbone.analyse(waveform)
    features = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, waveform))
    torch.testing.assert_close(features[:, 2], analysis.spectrum.abs(), atol=1e-3, rtol=1e-3)


def test_padding_of_the_enrollment_does_not_count():
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue(temperatures=(1.0, 20.0), power=0.5)
    enrollment, analysis = torch.randn(1, 2048), backbone.analyse(torch.randn(1, 3000))
    padded = torch.cat([enrollment, torch.zeros(1, 9000)], dim=1)
    alone = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, enrollment))
    with_padding = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, padded, 2048))
    # 2048 samples have 17 frames, the last of which straddles the end: with padding or without.
    torch.testing.assert_close(alone, with_padding, atol=1e-5, rtol=1e-4)
    twice = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, padded[:, :5000], 2048))
    torch.testing.assert_close(twice, with_padding)


def test_silence_is_no_trouble():
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue(power=0.5, learn_temperatures=True)
    analysis = backbone.analyse(torch.zeros(1, 3000))
    features = cue.steer_features(analysis, analysis.features, prepare(cue, backbone, torch.zeros(1, 2000)))
    assert torch.isfinite(features).all()
    features.sum().backward()
    assert torch.isfinite(cue.log_temperatures.grad).all()


def test_padding_leaves_the_gradient_finite():
    """Regression: minus infinity at padded frames, times a learned temperature, once made its gradient NaN."""
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue(temperatures=(1.0, 20.0), learn_temperatures=True)
    analysis = backbone.analyse(torch.randn(1, 3000))
    prepared = prepare(cue, backbone, torch.randn(1, 9000), length=3000)
    cue.steer_features(analysis, analysis.features, prepared).square().sum().backward()
    assert torch.isfinite(cue.log_temperatures.grad).all()
    assert (cue.log_temperatures.grad != 0).all()


def test_two_enrollments_are_joined_in_time():
    backbone, cue = BSRNN(feature_dim=8, num_blocks=1), TFMapCue()
    one, two = (prepare(cue, backbone, torch.randn(1, n)) for n in (2000, 3000))
    combined = cue.combine([one, two])
    assert combined["frames"].shape[-1] == one["frames"].shape[-1] + two["frames"].shape[-1]


@pytest.mark.parametrize("arguments", [{"temperatures": ()}, {"temperatures": (0.0,)}, {"power": 0.0}])
def test_impossible_arguments(arguments):
    with pytest.raises(ValueError):
        TFMapCue(**arguments)
