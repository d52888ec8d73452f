"""Embeddings of windows equal a loop over the windows; padding has no influence; configurations are checked."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wesep_py.common.errors import ConfigError
from wesep_py.features import KaldiFilterbank, SlaneyMel
from wesep_py.network.speaker import SpeakerEncoder, WindowConfig, build_encoder
from wesep_py.network.speaker.speaker_encoder import raise_level

DVECTOR = {"name": "dvector", "hidden_dim": 8, "frame_dim": 8, "embedding_dim": 6, "pooling": "last"}


def encoder(network: dict | None = None, **config) -> SpeakerEncoder:
    torch.manual_seed(0)
    built = build_encoder({"network": network or DVECTOR, "windows": {}, **config}, 16000)
    assert built is not None
    return built.eval()


def windows_of(front_end, num_samples: int, config: WindowConfig) -> list[int]:
    """Return the first frames of the windows that count, by trying them one after the other."""
    num_frames = int(front_end.frame_lengths(torch.tensor([num_samples])))
    starts = [0]
    while starts[-1] + config.hop_frames <= num_frames - config.num_frames + config.hop_frames:
        starts.append(starts[-1] + config.hop_frames)
    covered = (num_samples - starts[-1] * front_end.hop_length) / (config.num_frames * front_end.hop_length)
    return starts[:-1] if covered < config.min_coverage and len(starts) > 1 else starts


@pytest.mark.parametrize("front_end", [SlaneyMel(), KaldiFilterbank()])
@pytest.mark.parametrize("config", [WindowConfig(), WindowConfig(50, 50, 1.0), WindowConfig(30, 7, 0.2)])
def test_counts_of_windows_follow_their_definition(front_end, config):
    for num_samples in [1, 400, 19199, 25439, 25440, 25600, 31519, 31520, 37759, 37760, 100000, 123456]:
        counts = config.counts(torch.tensor([num_samples]), front_end)
        starts = windows_of(front_end, num_samples, config)
        assert counts.embedded.item() == len(starts), num_samples
        stop = starts[-1] + config.num_frames
        assert int(front_end.frame_lengths(counts.samples)) >= stop
        assert counts.samples.item() >= max(num_samples, stop * front_end.hop_length)


@pytest.mark.parametrize("num_samples", [3000, 25700, 70000])
def test_embedding_is_the_mean_over_the_windows(num_samples):
    built = encoder(front_end="slaney_mel", filterbank={"num_mel_bins": 12})
    waveform = torch.randn(1, num_samples)
    starts = windows_of(built.filterbank, num_samples, WindowConfig())
    end = max(num_samples, (starts[-1] + 160) * 160)
    features = built.filterbank(functional.pad(waveform, (0, end - num_samples)))
    expected = sum(built.network(features[:, start : start + 160]).embedding for start in starts)
    output = built(waveform, torch.tensor([num_samples]))
    torch.testing.assert_close(output.embedding, functional.normalize(expected, dim=1))
    assert output.frames.shape == (1, 8, num_samples // 160 + 1) and output.mask.all()


def test_frames_are_the_mean_over_the_windows_that_they_are_in():
    built = encoder(front_end="slaney_mel", filterbank={"num_mel_bins": 12})
    waveform = torch.randn(1, 237 * 160)  # windows from frame 0, 77 and 154
    features = functional.pad(built.filterbank(waveform), (0, 0, 0, 80))
    first, second, third = (built.network(features[:, s : s + 160]).frames[0] for s in (0, 77, 154))
    frames = built(waveform, torch.tensor([waveform.shape[1]])).frames[0]
    torch.testing.assert_close(frames[:, :77], first[:, :77])
    torch.testing.assert_close(frames[:, 77:154], (first[:, 77:154] + second[:, :77]) / 2)
    torch.testing.assert_close(frames[:, 160:230], (second[:, 83:153] + third[:, 6:76]) / 2)


@pytest.mark.parametrize("network", [DVECTOR, {"name": "ecapa_tdnn", "channels": 16, "embedding_dim": 6}])
@pytest.mark.parametrize("front_end", ["slaney_mel", "filterbank"])
def test_padding_has_no_influence(network, front_end):
    built = encoder(network, front_end=front_end, min_level_dbfs=-30.0)
    lengths = [3000, 26000, 61234]
    waveforms = [0.01 * torch.randn(size) for size in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True, padding_value=0.5)
    together = built(batch, torch.tensor(lengths))
    for i, waveform in enumerate(waveforms):
        alone = built(waveform[None], torch.tensor([lengths[i]]))
        torch.testing.assert_close(together.embedding[i], alone.embedding[0], atol=1e-5, rtol=1e-4)
        size = alone.frames.shape[2]
        torch.testing.assert_close(together.frames[i, :, :size], alone.frames[0], atol=1e-4, rtol=1e-3)
        assert not together.frames[i, :, size:].any()


def test_many_windows_are_computed_in_parts(monkeypatch):
    built, waveform, lengths = encoder(), torch.randn(1, 160000), torch.tensor([160000])
    with torch.no_grad():
        whole = built(waveform, lengths).embedding
        monkeypatch.setattr("wesep_py.network.speaker.embedding_windows.MAX_WINDOWS_AT_A_TIME", 2)
        torch.testing.assert_close(built(waveform, lengths).embedding, whole)


def test_windows_train_the_network():
    built = encoder(front_end="slaney_mel").train()
    built(torch.randn(2, 40000), torch.tensor([40000, 20000])).embedding[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in built.network.parameters())


def test_a_quiet_recording_is_raised_and_a_loud_one_is_not():
    waveform = torch.cat([torch.full((1, 100), 0.001), torch.full((1, 100), 0.2), torch.zeros(1, 100)])
    waveform[0, 50:] = 7.0  # padding
    raised = raise_level(waveform, torch.tensor([50, 100, 100]), -20.0)
    assert raised[0, 0].item() == pytest.approx(0.1) and raised[1, 0].item() == pytest.approx(0.2)
    assert not raised[2].any()


@pytest.mark.parametrize("peak", [1e-45, 1e-41, 1e-38, 1e-30, 1e-15, 1e-11])
def test_what_a_filter_leaves_of_silence_stays_and_its_embedding_is_finite(peak: float):
    """Regression: the gain of a window that fades into denormal numbers overflowed, and its zeros became NaN."""
    waveform = peak * torch.cat([torch.randn(1, 12000), torch.zeros(1, 12000)], dim=1)
    lengths = torch.tensor([24000])
    assert torch.equal(raise_level(waveform, lengths, -30.0), waveform)
    built = encoder(front_end="slaney_mel", min_level_dbfs=-30.0)
    assert built(waveform, lengths).embedding.isfinite().all()


def test_impossible_windows_are_refused():
    with pytest.raises(ConfigError, match="'xvector' returns 146 frames for 160"):
        encoder({"name": "xvector", "channels": 8, "frame_dim": 8})
    with pytest.raises(ConfigError, match="another pooling than 'recursive'"):
        encoder({"name": "ecapa_tdnn", "channels": 16, "pooling": {"name": "recursive"}})
    with pytest.raises(ConfigError, match=r"windows.hop_frames|hop_frames: is 200"):
        encoder(windows={"hop_frames": 200})
    with pytest.raises(ConfigError, match="min_coverage: is 0"):
        encoder(windows={"min_coverage": 0.0})
    with pytest.raises(ConfigError, match="windows: is not used with front_end 'backbone'"):
        encoder(front_end="backbone")
    with pytest.raises(ConfigError, match="min_level_dbfs: is 3"):
        encoder(min_level_dbfs=3.0)
