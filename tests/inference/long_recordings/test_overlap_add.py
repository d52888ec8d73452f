"""Overlapping blocks: their lengths, matching, cross-fades, and the network on them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.inference.networks import BSRNN, CAUSAL_BSRNN, SHORT_BLOCKS, noise, random_extractor, run_blocks
from wesep_py.inference import Blocks
from wesep_py.inference.long_recordings.blocks import match_blocks
from wesep_py.inference.long_recordings.overlap_add import OverlapAddRunner, run_network
from wesep_py.inference.presence_decision.presence import SILENT_LOGIT


@pytest.mark.parametrize("num_samples", [9000, 16000, 16001, 40077])
def test_overlapping_blocks_are_close_to_the_whole(num_samples: int):
    extractor, voice = random_extractor({"backbone": {**BSRNN, "norm": "frame"}, "cues": [{"name": "tf_map"}]})
    network, mixture = extractor.network, noise(num_samples)
    whole, logits = run_network(network, "cpu", mixture, [voice.tensors])
    runner = OverlapAddRunner(network, "cpu", [voice], SHORT_BLOCKS.grid(16000, 128), 1)
    outputs = run_blocks(runner, mixture, 5000)
    estimate = np.concatenate([output.estimates for output in outputs], axis=-1)
    track = np.concatenate([output.logits for output in outputs], axis=-1)
    assert [output.last for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert estimate.shape == whole.shape and track.shape == logits.shape
    assert ((whole - estimate) ** 2).sum() < 1e-4 * (whole**2).sum()
    np.testing.assert_array_equal(np.concatenate([output.mixture for output in outputs], axis=1), mixture)


def test_blocks_do_not_depend_on_the_sizes_pushed():
    extractor, voice = random_extractor({"backbone": BSRNN, "cues": [{"name": "tf_map"}]})
    grid, mixture = SHORT_BLOCKS.grid(16000, 128), noise(40000)
    ways = [run_blocks(OverlapAddRunner(extractor.network, "cpu", [voice], grid, 1), mixture, n) for n in (40000, 1234)]
    for a, b in zip(*ways, strict=True):
        np.testing.assert_array_equal(a.estimates, b.estimates)


class RandomLevelNetwork(torch.nn.Module):
    """Network that "extracts" the mixture, every block at another level and polarity."""

    sample_rate, normalise, level, presence, latency = 16000, "rms", "fitted", None, None

    def __init__(self, gains: list[float]) -> None:
        super().__init__()
        self.backbone, self.gains = SimpleNamespace(stride=128), iter(gains)

    def extract(self, mixture: torch.Tensor, prepared: dict):
        return SimpleNamespace(waveforms=(mixture * next(self.gains),), presence_logits=None)


def test_level_and_polarity_are_matched_across_blocks():
    voice, mixture = SimpleNamespace(tensors={}), noise(64000)
    network = RandomLevelNetwork([0.5, -0.5, 2.0, -0.1, 0.51, 0.5, 0.5, 0.5])
    outputs = run_blocks(OverlapAddRunner(network, "cpu", [voice], SHORT_BLOCKS.grid(16000, 128), 1), mixture, 10000)
    estimate = np.concatenate([output.estimates for output in outputs], axis=-1)[0]
    assert len(outputs) > 5 and not any(output.voice_changed[0] for output in outputs)
    np.testing.assert_allclose(estimate / mixture, 0.5, rtol=0.03)


def test_another_voice_in_the_next_block_is_detected():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1, 4000)).astype(np.float32)
    assert match_blocks(a, b, a + b).agrees is False and match_blocks(a, b, a + b).gain == 1.0
    assert match_blocks(a, -3 * a, a + b).agrees and match_blocks(a, -3 * a, a + b).gain == pytest.approx(-1 / 3)
    assert match_blocks(0 * a, 0 * a, a).agrees is None
    assert match_blocks(0 * a, a, a).agrees is False


def test_block_lengths_are_whole_frames_of_the_network():
    for rate, stride in ((16000, 128), (8000, 64), (44100, 353), (16000, 8)):
        grid = Blocks().grid(rate, stride)
        assert grid.step % grid.frame == grid.overlap % (2 * grid.frame) == grid.frame % stride == 0
        assert abs(grid.block / rate - 30) < 0.1 and len(grid.rise()) == grid.overlap
    rise = Blocks().grid(16000, 128).rise()
    np.testing.assert_allclose(rise + rise[::-1], 1.0, atol=1e-6)
    assert rise[0] == 0.0 and rise[-1] == 1.0 and (np.diff(rise) >= 0).all()
    with pytest.raises(ValueError, match="at most half a block"):
        Blocks(4.0, 3.0, 1.0)
    with pytest.raises(ValueError, match="2 s or more"):
        Blocks.of(1.0)


def test_extract_runs_long_recordings_in_blocks():
    extractor, voice = random_extractor({"backbone": BSRNN, "cues": [{"name": "tf_map"}]})
    mixture = noise(40000)
    short = extractor.extract((mixture, 16000), voice)
    long = extractor.extract((mixture, 16000), voice, blocks=SHORT_BLOCKS)
    assert long.waveform.shape == short.waveform.shape and not np.array_equal(long.waveform, short.waveform)
    assert 0 < long.presence < 1 and len(long.detection.track) == len(short.detection.track)


# Shifted copies, averaged.

TASNET = {"name": "conv_tasnet", "num_filters": 16, "bottleneck": 8, "hidden": 8, "blocks_per_stack": 2}
ENCODER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 8}}
SHIFTED = {
    "bsrnn": {"backbone": BSRNN, "cues": [{"name": "tf_map"}]},
    "listen_first": {"backbone": BSRNN, "cues": [{"name": "listen_first"}]},
    "causal_listen_first": {"backbone": CAUSAL_BSRNN, "cues": [{"name": "listen_first"}], "normalise": "none"},
    "conv_tasnet": {"backbone": {**TASNET, "num_stacks": 1}, "cues": [{"name": "embedding"}], "speaker": ENCODER},
}


@pytest.mark.parametrize("name", SHIFTED)
@pytest.mark.parametrize("shifts", [2, 3])
def test_average_is_the_mean_of_extractions_shifted_by_hand(name: str, shifts: int):
    # Without high-pass and level, so that zeros can be put in front by hand.
    extractor, voice = random_extractor({**SHIFTED[name], "normalise": "none", "highpass_hz": 0})
    network, mixture = extractor.network, noise(9000, 2)
    stride = network.backbone.stride
    averaged, track = run_network(network, "cpu", mixture, [voice.tensors], shifts)
    frames = run_network(network, "cpu", mixture, [voice.tensors])[1].shape[-1]
    estimates, tracks = [], []
    for copy in range(shifts):
        shift = copy * stride // shifts
        shifted = np.pad(mixture, ((0, 0), (shift, 0)))
        estimate, logits = run_network(network, "cpu", shifted, [voice.tensors])
        estimates.append(estimate[..., shift:])
        tracks.append(logits[..., :frames])
    np.testing.assert_allclose(averaged, np.mean(estimates, axis=0), atol=1e-6)
    np.testing.assert_allclose(track, np.mean(tracks, axis=0), atol=1e-5)
    assert np.abs(averaged - estimates[0]).max() > 1e-4  # the copies differ


def test_one_shift_is_bit_exact_with_the_network():
    extractor, voice = random_extractor(SHIFTED["bsrnn"])
    mixture = noise(9000)
    with torch.inference_mode():
        output = extractor.network.extract(torch.from_numpy(mixture), voice.tensors)
    estimate, track = run_network(extractor.network, "cpu", mixture, [voice.tensors], 1)
    np.testing.assert_array_equal(estimate[0], output.waveforms[0].numpy())
    np.testing.assert_array_equal(track[0], output.presence_logits.numpy())


@pytest.mark.parametrize("name", ["bsrnn", "listen_first"])
def test_shifts_keep_the_number_of_frames_and_samples(name: str):
    extractor, voice = random_extractor(SHIFTED[name])
    stride = extractor.network.backbone.stride
    for phase in [0, 1, stride // 2 - 1, stride // 2, stride - 1, *range(5, stride, 11)]:
        mixture = noise(5 * stride + phase)
        whole, logits = run_network(extractor.network, "cpu", mixture, [voice.tensors])
        averaged, track = run_network(extractor.network, "cpu", mixture, [voice.tensors], 4)
        assert averaged.shape == whole.shape and track.shape == logits.shape


def linear_extractor():
    """Return an extractor whose network filters the mixture, whatever the position of its frames, and its voice."""
    extractor, voice = random_extractor(SHIFTED["bsrnn"])
    backbone, heard = extractor.network.backbone, []
    analyse = backbone.analyse
    impulse_response = torch.tensor([0.1, -0.3, 0.5, 0.2])[None, None]

    def analyse_and_keep(waveform: torch.Tensor):
        heard.append(waveform)
        return analyse(waveform)

    def filtered(latent, analysis, length: int):
        waveform = torch.nn.functional.pad(heard[-1][:, None], (3, 0))
        return [torch.nn.functional.conv1d(waveform, impulse_response)[:, 0]]

    backbone.analyse, backbone.synthesise = analyse_and_keep, filtered
    extractor.network.presence = None  # it would analyse the estimate
    return extractor, voice


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_shifts_change_nothing_of_a_linear_network(offset: float):
    extractor, voice = linear_extractor()
    mixture = noise(20001) + np.float32(offset)
    whole = extractor.extract((mixture, 16000), voice)
    for shifts in (2, 7, 16):
        averaged = extractor.extract((mixture, 16000), voice, shifts=shifts)
        np.testing.assert_allclose(averaged.waveform, whole.waveform, atol=1e-6)
    in_blocks = extractor.extract((mixture, 16000), voice, blocks=SHORT_BLOCKS)
    averaged = extractor.extract((mixture, 16000), voice, blocks=SHORT_BLOCKS, shifts=4)
    np.testing.assert_allclose(averaged.waveform, in_blocks.waveform, atol=1e-6)


def test_shifted_blocks_are_close_to_the_shifted_whole():
    extractor, voice = random_extractor({"backbone": {**BSRNN, "norm": "frame"}, "cues": [{"name": "tf_map"}]})
    network, mixture = extractor.network, noise(40077)
    whole, logits = run_network(network, "cpu", mixture, [voice.tensors], 2)
    runner = OverlapAddRunner(network, "cpu", [voice], SHORT_BLOCKS.grid(16000, 128), 1, shifts=2)
    outputs = run_blocks(runner, mixture, 5000)
    estimate = np.concatenate([output.estimates for output in outputs], axis=-1)
    track = np.concatenate([output.logits for output in outputs], axis=-1)
    assert estimate.shape == whole.shape and track.shape == logits.shape
    assert ((whole - estimate) ** 2).sum() < 1e-4 * (whole**2).sum()
    single, _ = run_network(network, "cpu", mixture, [voice.tensors])
    assert ((whole - estimate) ** 2).sum() < 0.1 * ((single - estimate) ** 2).sum()


def test_silent_channels_stay_silent_with_shifts():
    extractor, voice = random_extractor(SHIFTED["bsrnn"])
    mixture = np.concatenate([noise(9000), np.zeros((1, 9000), np.float32)])
    averaged, track = run_network(extractor.network, "cpu", mixture, [voice.tensors], 2)
    assert averaged[0, 0].any() and not averaged[0, 1].any() and (track[0, 1] == SILENT_LOGIT).all()
