"""Blocks: their lengths, their joints, and the network along them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wesep_py.inference import Blocks, Extractor
from wesep_py.inference.overlap_add import OverlapAddRunner, match_blocks, run_network
from wesep_py.inference.streaming import StreamingRunner, supports_streaming
from wesep_py.network.extraction_network import build_network

SHORT = Blocks(1.0, 0.4, 0.2)
BSRNN = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
CAUSAL = {**BSRNN, "causal": True}
TASNET = {"num_filters": 16, "bottleneck": 8, "hidden": 8, "blocks_per_stack": 2, "num_stacks": 1, "causal": True}
GRID = {"num_blocks": 1, "feature_dim": 4, "hidden": 4, "num_heads": 2, "kernel_hop": 1, "causal": True}
ENCODER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 8}}
CARRIED = {
    "bsrnn": {"backbone": CAUSAL, "cues": [{"name": "tf_map"}]},
    "conv_tasnet": {"backbone": {"name": "conv_tasnet", **TASNET}, "cues": [{"name": "embedding"}], "speaker": ENCODER},
    "tf_gridnet": {"backbone": {"name": "tf_gridnet", **GRID}, "cues": [{"name": "tf_map"}]},
}


def made(config: dict):
    torch.manual_seed(0)
    extractor = Extractor(build_network({**config, "presence": {}}), "cpu", "tiny", "hash")
    return extractor, extractor.enroll((0.1 * torch.randn(16000).numpy(), 16000))


def noise(num_samples: int, channels: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal((channels, num_samples))).astype(np.float32)


def through(runner, mixture: np.ndarray, chunk: int) -> list:
    pieces = [piece for at in range(0, mixture.shape[1], chunk) for piece in runner.push(mixture[:, at : at + chunk])]
    return [*pieces, *runner.finish()]


@pytest.mark.parametrize("name", CARRIED)
def test_a_carried_state_gives_the_result_of_the_whole(name: str):
    extractor, voice = made({**CARRIED[name], "normalise": "none"})
    network, mixture = extractor.network, noise(40077, 2)
    assert supports_streaming(network)
    whole, logits = run_network(network, "cpu", mixture, [voice.tensors])
    runner = StreamingRunner(network, "cpu", [voice], SHORT.grid(16000, network.backbone.stride), 2)
    pieces = through(runner, mixture, 7001)
    assert len(pieces) > 3
    np.testing.assert_array_equal(np.concatenate([piece.mixture for piece in pieces], axis=1), mixture)
    np.testing.assert_allclose(np.concatenate([p.estimates for p in pieces], axis=-1), whole, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([p.logits for p in pieces], axis=-1), logits, atol=1e-5)


def test_what_does_not_carry_its_state():
    assert not supports_streaming(made({"backbone": BSRNN, "cues": [{"name": "tf_map"}]})[0].network)
    assert not supports_streaming(
        made({"backbone": CAUSAL, "cues": [{"name": "listen_first"}], "normalise": "none"})[0].network
    )


@pytest.mark.parametrize("num_samples", [9000, 16000, 16001, 40077])
def test_overlapping_blocks_are_near_the_whole(num_samples: int):
    extractor, voice = made({"backbone": {**BSRNN, "norm": "frame"}, "cues": [{"name": "tf_map"}]})
    network, mixture = extractor.network, noise(num_samples)
    whole, logits = run_network(network, "cpu", mixture, [voice.tensors])
    runner = OverlapAddRunner(network, "cpu", [voice], SHORT.grid(16000, 128), 1)
    pieces = through(runner, mixture, 5000)
    estimate = np.concatenate([piece.estimates for piece in pieces], axis=-1)
    track = np.concatenate([piece.logits for piece in pieces], axis=-1)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert estimate.shape == whole.shape and track.shape == logits.shape
    assert ((whole - estimate) ** 2).sum() < 1e-4 * (whole**2).sum()
    np.testing.assert_array_equal(np.concatenate([piece.mixture for piece in pieces], axis=1), mixture)


def test_blocks_do_not_depend_on_how_the_samples_come():
    extractor, voice = made({"backbone": BSRNN, "cues": [{"name": "tf_map"}]})
    grid, mixture = SHORT.grid(16000, 128), noise(40000)
    ways = [through(OverlapAddRunner(extractor.network, "cpu", [voice], grid, 1), mixture, n) for n in (40000, 1234)]
    for a, b in zip(*ways, strict=True):
        np.testing.assert_array_equal(a.estimates, b.estimates)


class Fickle(torch.nn.Module):
    """ "Extracts" the mixture, every block at another level and polarity."""

    sample_rate, normalise, level, presence, latency = 16000, "rms", "fitted", None, None

    def __init__(self, gains: list[float]) -> None:
        super().__init__()
        self.backbone, self.gains = SimpleNamespace(stride=128), iter(gains)

    def extract(self, mixture: torch.Tensor, prepared: dict):
        return SimpleNamespace(waveforms=(mixture * next(self.gains),), presence_logits=None)


def test_level_and_polarity_go_on_across_blocks():
    voice, mixture = SimpleNamespace(tensors={}), noise(64000)
    network = Fickle([0.5, -0.5, 2.0, -0.1, 0.51, 0.5, 0.5, 0.5])
    pieces = through(OverlapAddRunner(network, "cpu", [voice], SHORT.grid(16000, 128), 1), mixture, 10000)
    estimate = np.concatenate([piece.estimates for piece in pieces], axis=-1)[0]
    assert len(pieces) > 5 and not any(piece.voice_changed[0] for piece in pieces)
    np.testing.assert_allclose(estimate / mixture, 0.5, rtol=0.03)


def test_another_voice_in_the_next_block_is_told():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1, 4000)).astype(np.float32)
    assert match_blocks(a, b, a + b).agrees is False and match_blocks(a, b, a + b).gain == 1.0
    assert match_blocks(a, -3 * a, a + b).agrees and match_blocks(a, -3 * a, a + b).gain == pytest.approx(-1 / 3)
    assert match_blocks(0 * a, 0 * a, a).agrees is None
    assert match_blocks(0 * a, a, a).agrees is False


def test_lengths_fit_the_frames_of_the_network():
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


def test_python_extracts_long_recordings_in_blocks():
    extractor, voice = made({"backbone": BSRNN, "cues": [{"name": "tf_map"}]})
    mixture = noise(40000)
    short = extractor.extract((mixture, 16000), voice)
    long = extractor.extract((mixture, 16000), voice, blocks=SHORT)
    assert long.waveform.shape == short.waveform.shape and not np.array_equal(long.waveform, short.waveform)
    assert 0 < long.presence < 1 and len(long.detection.track) == len(short.detection.track)
