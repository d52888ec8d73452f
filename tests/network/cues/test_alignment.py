from __future__ import annotations

import pytest
import torch
from torch import nn

from wesep_py.network.backbones import BSRNN, ConvTasNet
from wesep_py.network.cues import SignalFeatures
from wesep_py.network.cues.cue import align_speaker_frames, interpolate_frames
from wesep_py.network.speaker import SpeakerOutput, build_encoder

SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 12, "embedding_dim": 4}}


def counting(*counts: int) -> SpeakerOutput:
    """Frame i is the number i; zero past the end."""
    mask = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    return SpeakerOutput((torch.arange(max(counts)) * mask).float()[:, None], mask, torch.zeros(len(counts), 4))


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
def test_frames_of_a_filterbank_are_where_its_windows_are(sample_rate):
    """25 ms windows every 10 ms: frame i is at 12.5 + 10 i ms; between two frames, the number between theirs."""
    backbone = BSRNN(sample_rate, feature_dim=4, num_blocks=1)
    encoder = build_encoder(SPEAKER, sample_rate)
    aligned = align_speaker_frames(counting(98), encoder, backbone, torch.tensor([sample_rate]), 126)
    milliseconds = torch.arange(126) * 8.0
    torch.testing.assert_close(aligned[0, 0], ((milliseconds - 12.5) / 10).clamp(0, 97), atol=1e-4, rtol=0)


def test_every_recording_of_a_batch_has_its_own_end():
    backbone, encoder = BSRNN(feature_dim=4, num_blocks=1), build_encoder(SPEAKER, 16000)
    lengths = torch.tensor([16000, 8000])
    together = align_speaker_frames(counting(98, 48), encoder, backbone, lengths, 126)
    alone = align_speaker_frames(counting(48), encoder, backbone, lengths[1:], 63)
    assert torch.equal(together[1:, :, :63], alone)
    assert alone.max() == together[1].max() == 47


def test_a_network_that_makes_fewer_frames_spreads_them_evenly():
    """7 of 98: each stands for 14, the first for 0 to 13, whose middle is 6.5."""
    backbone, encoder = BSRNN(feature_dim=4, num_blocks=1), build_encoder(SPEAKER, 16000)
    aligned = align_speaker_frames(counting(7), encoder, backbone, torch.tensor([16000]), 126)
    heard = (torch.arange(126) * 8 - 12.5) / 10
    torch.testing.assert_close(aligned[0, 0], ((heard - 6.5) / 14).clamp(0, 6), atol=1e-4, rtol=0)


def test_frames_of_the_backbone_itself_are_where_they_are():
    backbone = ConvTasNet(num_filters=4, bottleneck=4, hidden=4, num_stacks=1)
    speaker = {"front_end": "backbone", "network": {"name": "spex_plus", "channels": 4, "embedding_dim": 4}}
    encoder = build_encoder(speaker, 16000, backbone=backbone)
    aligned = align_speaker_frames(counting(99), encoder, backbone, torch.tensor([1600]), 99)
    assert torch.equal(aligned[0, 0], torch.arange(99.0))


@pytest.mark.parametrize("sample_rate", [16000, 48000])
def test_a_burst_is_at_its_place(sample_rate):
    """From the waveform on: the loudest aligned frame of a filterbank is the loudest of the spectrum."""

    class Loudness(nn.Module):
        def forward(self, features: torch.Tensor, mask: torch.Tensor) -> SpeakerOutput:
            level = features.mean(dim=2, keepdim=True).transpose(1, 2)
            return SpeakerOutput(torch.cat([level, torch.ones_like(level)], dim=1), mask, level[:, 0])

    backbone, encoder = BSRNN(sample_rate, feature_dim=4, num_blocks=1), build_encoder(SPEAKER, sample_rate)
    encoder.network = Loudness()
    for at in (0.1, 0.37, 0.8):
        waveform = 1e-4 * torch.randn(1, sample_rate)
        middle, half = round(at * sample_rate), sample_rate // 200
        waveform[:, middle - half : middle + half] = torch.randn(2 * half)
        recording = SignalFeatures(waveform, torch.tensor([sample_rate]), backbone, encoder)
        frames = recording.speaker_frames
        assert frames.shape == (1, 2, recording.analysis.num_frames)
        torch.testing.assert_close(frames.norm(dim=1), torch.ones(1, frames.shape[2]))
        loudest = (frames[0, 0] / frames[0, 1]).argmax()
        assert abs(int(loudest) * backbone.stride / sample_rate - at) < 0.009


def test_interpolation_reaches_both_ends():
    frames = torch.randn(2, 3, 5)
    position = torch.tensor([[0.0, 4.0, 3.25], [1.0, 0.5, 4.0]])
    out = interpolate_frames(frames, position)
    assert torch.equal(out[0, :, :2], frames[0, :, [0, 4]])
    torch.testing.assert_close(out[0, :, 2], 0.75 * frames[0, :, 3] + 0.25 * frames[0, :, 4])
    torch.testing.assert_close(out[1, :, 1], frames[1, :, :2].mean(dim=1))
