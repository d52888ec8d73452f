"""Functions that cues share: alignment of speaker frames with the backbone's frames, and attention in blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.network.backbones.largest_tensor import largest_tensor
from wesep_py.network.backbones import BSRNN, ConvTasNet
from wesep_py.network.cues import SignalFeatures
from wesep_py.network.cues import cue as attention
from wesep_py.network.cues.cue import align_speaker_frames, cross_attention, interpolate_frames, queries_per_block
from wesep_py.network.extraction_network import build_network
from wesep_py.network.speaker import SpeakerOutput, build_encoder

SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 12, "embedding_dim": 4}}


def counting(*counts: int) -> SpeakerOutput:
    """Return an output whose frame i is the number i, and zero past the end."""
    mask = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    return SpeakerOutput((torch.arange(max(counts)) * mask).float()[:, None], mask, torch.zeros(len(counts), 4))


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
def test_filterbank_frames_are_at_the_centres_of_their_windows(sample_rate):
    """25 ms windows every 10 ms: frame i is at 12.5 + 10 i ms, and positions between frames are interpolated."""
    backbone = BSRNN(sample_rate, feature_dim=4, num_blocks=1)
    encoder = build_encoder(SPEAKER, sample_rate)
    aligned = align_speaker_frames(counting(98), encoder, backbone, torch.tensor([sample_rate]), 126)
    milliseconds = torch.arange(126) * 8.0
    torch.testing.assert_close(aligned[0, 0], ((milliseconds - 12.5) / 10).clamp(0, 97), atol=1e-4, rtol=0)


def test_each_recording_of_a_batch_has_its_own_last_frame():
    backbone, encoder = BSRNN(feature_dim=4, num_blocks=1), build_encoder(SPEAKER, 16000)
    lengths = torch.tensor([16000, 8000])
    together = align_speaker_frames(counting(98, 48), encoder, backbone, lengths, 126)
    alone = align_speaker_frames(counting(48), encoder, backbone, lengths[1:], 63)
    assert torch.equal(together[1:, :, :63], alone)
    assert alone.max() == together[1].max() == 47


def test_the_frames_of_a_network_with_fewer_are_spread_evenly():
    """7 of 98: each covers 14 frames, the first 0 to 13, whose middle is 6.5."""
    backbone, encoder = BSRNN(feature_dim=4, num_blocks=1), build_encoder(SPEAKER, 16000)
    aligned = align_speaker_frames(counting(7), encoder, backbone, torch.tensor([16000]), 126)
    position = (torch.arange(126) * 8 - 12.5) / 10
    torch.testing.assert_close(aligned[0, 0], ((position - 6.5) / 14).clamp(0, 6), atol=1e-4, rtol=0)


def test_frames_of_the_backbone_stay_where_they_are():
    backbone = ConvTasNet(num_filters=4, bottleneck=4, hidden=4, num_stacks=1)
    speaker = {"front_end": "backbone", "network": {"name": "spex_plus", "channels": 4, "embedding_dim": 4}}
    encoder = build_encoder(speaker, 16000, backbone=backbone)
    aligned = align_speaker_frames(counting(99), encoder, backbone, torch.tensor([1600]), 99)
    assert torch.equal(aligned[0, 0], torch.arange(99.0))


@pytest.mark.parametrize("sample_rate", [16000, 48000])
def test_a_burst_is_aligned_with_its_time_in_the_waveform(sample_rate):
    """The loudest aligned frame of a filterbank is the loudest frame of the spectrum."""

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


CUE_SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}
CUES = {
    "usef": {"name": "usef", "channels": 4, "num_heads": 2, "query_dim": 257},
    "context": {"name": "context", "dim": 8},
    "tf_map": {"name": "tf_map", "temperatures": [1, 20]},
    "tf_map of the encoder": {"name": "tf_map", "source": "encoder"},
}


def inputs(frames: int, keys: int = 30):
    torch.manual_seed(0)
    valid = torch.arange(keys)[None] < torch.tensor([[keys], [keys - 9]])
    return torch.randn(2, 2, frames, 6), torch.randn(2, 2, keys, 6), torch.randn(2, 2, keys, 3), valid[:, None, None]


@pytest.mark.parametrize("scores", [1, 500, 2**20])
def test_attention_in_blocks_equals_the_whole_attention(monkeypatch, scores):
    monkeypatch.setattr(attention, "MAX_SCORES_PER_BLOCK", scores)
    query, key, value, valid = inputs(41)
    weights = (query @ key.mT / 6**0.5).masked_fill(~valid, -torch.inf).softmax(dim=3)
    torch.testing.assert_close(cross_attention(query, key, value, valid), weights @ value)


def test_no_tensor_holds_the_scores_of_all_pairs_of_frames(monkeypatch):
    whole = [largest_tensor(lambda n=n: cross_attention(*inputs(n))) for n in (100, 400)]
    assert whole == [2 * 2 * 100 * 30, 2 * 2 * 400 * 30]
    monkeypatch.setattr(attention, "MAX_SCORES_PER_BLOCK", 1000)
    assert largest_tensor(lambda: cross_attention(*inputs(400))) == 2 * 2 * 400 * 6  # the query itself


def test_a_block_has_at_least_one_query():
    assert (
        queries_per_block(10 * attention.MAX_SCORES_PER_BLOCK)
        == queries_per_block(0) // attention.MAX_SCORES_PER_BLOCK
        == 1
    )


@pytest.mark.parametrize("name", CUES)
def test_the_estimate_is_the_same_with_attention_in_blocks(monkeypatch, name):
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    needs_encoder = name != "usef" and name != "tf_map"
    network = build_network(
        {"backbone": backbone, "speaker": CUE_SPEAKER if needs_encoder else None, "cues": [CUES[name]]}
    ).eval()
    mixture, prepared = torch.randn(2, 3000), network.prepare(torch.randn(2, 4000), torch.tensor([4000, 2500]))
    with torch.no_grad():
        whole = network.extract(mixture, prepared).waveforms[0]
        monkeypatch.setattr(attention, "MAX_SCORES_PER_BLOCK", 600)
        torch.testing.assert_close(network.extract(mixture, prepared).waveforms[0], whole, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["usef", "tf_map"])
def test_memory_grows_linearly_with_the_length(monkeypatch, name):
    """If mixture and enrollment are four times as long, the scores of all pairs of frames are sixteen times as many."""
    torch.manual_seed(0)
    backbone = {"name": "conv_tasnet", "num_filters": 4, "bottleneck": 4, "hidden": 4, "num_stacks": 1}
    network = build_network({"backbone": backbone, "cues": [CUES[name]]})

    def steer(length: int) -> int:
        waveform = torch.randn(1, length)
        prepared = {key.removeprefix("0."): value for key, value in network.prepare(waveform).items()}
        analysis = network.backbone.analyse(waveform)
        return largest_tensor(lambda: network.cues[0].steer_features(analysis, analysis.features, prepared))

    assert steer(16000) > 14 * steer(4000)
    monkeypatch.setattr(attention, "MAX_SCORES_PER_BLOCK", 2**12)
    assert steer(16000) < 4.2 * steer(4000)


@pytest.mark.processor
def test_training_in_bfloat16_on_a_cpu_attends_in_float32():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, n, 8).bfloat16().requires_grad_() for n in (9, 7, 7))
    valid = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        attended = cross_attention(query, key, value, valid)
    exact = nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float())
    assert attended.dtype == torch.bfloat16
    assert torch.equal(attended, exact.bfloat16())
    attended.sum().backward()
    assert query.grad is not None and query.grad.dtype == torch.bfloat16
