"""Reports on enrollments and the weights that follow from them, with tones for voices."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import VOICES, make_voice
from tests.inference.networks import BandNetwork, PitchEncoder
from wesep_py import audio
from wesep_py.common.errors import AudioError, InputError
from wesep_py.inference import Extractor, Voice, VoiceQuality
from wesep_py.inference.enrolling.enrollment_quality import GOOD_SPEECH_S
from wesep_py.network.extraction_network import build_network

RATE = 16000


def tone(frequency_hz: float, duration_s: float, amplitude: float = 0.1) -> np.ndarray:
    """A tone that swells and fades four times a second."""
    time_s = np.arange(round(duration_s * RATE)) / RATE
    swell = 0.05 + np.abs(np.sin(2 * np.pi * 2 * time_s))
    return (amplitude * swell * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def enroll(*waveforms: np.ndarray, encoder: PitchEncoder | None = None, **arguments) -> Voice:
    network = BandNetwork(encoder=encoder or PitchEncoder())
    return Extractor(network).enroll(*((waveform, RATE) for waveform in waveforms), **arguments)


def test_single_voice_is_not_suspected():
    quality = enroll(tone(300, 8.0)).quality
    assert quality.second_voice is False and quality.coherence > 0.99
    assert not any("two people" in warning for warning in quality.warnings)
    (recording,) = quality.recordings
    assert recording.duration_s == 8.0 and recording.speech_s == pytest.approx(8.0, abs=0.3)
    assert recording.weight == 1.0 and recording.cosine is None


def test_two_voices_in_turn_are_suspected():
    quality = enroll(np.concatenate([tone(300, 4.0), tone(2200, 4.0)])).quality
    assert quality.second_voice is True
    assert any("two people seem to speak in recording 1" in warning for warning in quality.warnings)


def test_report_without_encoder_says_what_it_cannot_detect():
    network = BandNetwork()
    quality = Extractor(network).enroll((np.concatenate([tone(300, 4.0), tone(2200, 4.0)]), RATE)).quality
    assert quality.second_voice is None and quality.coherence is None
    assert quality.warnings == []
    assert "cannot be detected: the model has no speaker encoder" in quality.table()


def test_outlier_is_named_and_has_a_tenth_of_its_weight():
    voice = enroll(tone(300, 6.0), tone(310, 3.0), tone(2200, 9.0, amplitude=0.9), tone(290, 3.0))
    assert [recording.outlier for recording in voice.quality.recordings] == [False, False, True, False]
    (line,) = [line for line in voice.quality.warnings if "unlike" in line]
    assert line.startswith("recording 3 sounds unlike the others (cosine 0.0") and line.endswith("the same person?")
    assert "the others agree at 1.00" in line
    weights = [recording.weight for recording in voice.quality.recordings]
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] == pytest.approx(2 * weights[1], rel=0.05)
    assert weights[2] == pytest.approx(0.15 * weights[0], rel=0.05)
    levels = [
        float(np.mean(tone(f, d, a) ** 2)) for f, d, a in ((300, 6, 0.1), (310, 3, 0.1), (2200, 9, 0.9), (290, 3, 0.1))
    ]
    assert voice.tensors["0.level"].item() == pytest.approx(float(np.dot(weights, levels)), rel=1e-3)


def test_two_recordings_that_differ_are_both_named():
    quality = enroll(tone(300, 4.0), tone(2200, 4.0)).quality
    assert quality.unlike and not any(recording.outlier for recording in quality.recordings)
    assert any("recording 1 and recording 2 sound unlike each other" in line for line in quality.warnings)
    assert not enroll(tone(300, 4.0), tone(310, 4.0)).quality.unlike


def test_windows_are_encoded_once_in_one_batch_of_at_most_64():
    encoder = PitchEncoder()
    enroll(tone(300, 6.0), tone(310, 3.0), encoder=encoder)
    assert encoder.calls == [(9, RATE)]
    encoder = PitchEncoder()
    voice = enroll(tone(300, 90.0), encoder=encoder, max_enrollment_s=90)
    assert encoder.calls == []  # nobody has asked yet
    assert voice.quality is voice.quality
    assert encoder.calls == [(64, RATE)]


def test_short_recordings_are_padded_for_the_encoder():
    encoder = PitchEncoder()
    enroll(tone(300, 2.0), tone(300, 0.4), encoder=encoder)
    assert encoder.calls == [(3, RATE)]


def test_warnings_of_noise_clipping_and_little_speech():
    rng = np.random.default_rng(0)
    speech = rng.gamma(0.4, 0.1, 2 * RATE) * rng.choice([-1, 1], 2 * RATE)
    noisy = (speech + 0.1 * rng.standard_normal(2 * RATE)).astype(np.float32)
    noisy[: RATE // 20] += tone(200, 0.05, amplitude=8.0)
    lines = enroll(np.clip(noisy, -1.0, 1.0)).quality.warnings
    for words in ("sounds noisy (SNR about", "is clipped: record it again", "there are only 2.0 s of speech"):
        assert any(words in line for line in lines), words


def test_less_speech_than_the_minimum_is_refused():
    pause = np.zeros(3 * RATE, np.float32)
    short = np.concatenate([pause, tone(300, 0.6), pause])
    with pytest.raises(InputError, match=r"recording 1: 0\.[5-7]\d s of speech; .* at least 1 s"):
        enroll(short, min_speech_s=1.0)
    assert enroll(short).quality.speech_s == pytest.approx(0.6, abs=0.1)
    assert enroll(short, short, min_speech_s=1.0).quality.speech_s == pytest.approx(1.2, abs=0.2)
    with pytest.raises(InputError, match="the 2 recordings: "):
        enroll(short, short, min_speech_s=2.0)
    with pytest.raises(InputError, match="energy or silero"):
        enroll(short, vad="webrtc")


def test_report_is_stored_in_the_voice_print(tmp_path: Path):
    voice = enroll(tone(300, 6.0), tone(310, 3.0), tone(2200, 4.0))
    back = Voice.load(voice.save(tmp_path / "a.voice"))
    assert back.quality == voice.quality and back.quality.warnings == voice.quality.warnings
    assert json.loads(json.dumps(voice.quality.as_dict()))["recordings"][2]["outlier"] is True
    newer = json.dumps({**voice.quality.as_dict(), "added_later": 1})
    assert VoiceQuality.from_json(newer) == voice.quality


def test_pickled_voice_keeps_its_report():
    voice = enroll(tone(300, 6.0))
    back = pickle.loads(pickle.dumps(voice))
    assert back.quality == voice.quality and back.model_hash == voice.model_hash


@pytest.mark.parametrize("front_end", ["filterbank", "backbone"])
def test_weights_average_embeddings_and_frames_are_joined(front_end: str):
    torch.manual_seed(0)
    speaker = {
        "network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8},
        "front_end": front_end,
    }
    network = build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": speaker,
            "cues": [{"name": "embedding"}, {"name": "tf_map"}],
        }
    )
    extractor = Extractor(network)
    low, high = (tone(300, 5.0), RATE), (tone(2200, 2.0), RATE)
    joined, first, second = extractor.enroll(low, high), extractor.enroll(low), extractor.enroll(high)
    assert joined.quality.coherence is not None and joined.quality.recordings[0].second_voice is not None
    weights = torch.tensor([recording.weight for recording in joined.quality.recordings])
    parts = torch.cat([first.tensors["0.embedding"], second.tensors["0.embedding"]])
    norms = parts.norm(dim=1)
    expected = (parts / norms[:, None] * weights[:, None]).sum(dim=0) * (norms * weights).sum()
    torch.testing.assert_close(joined.tensors["0.embedding"][0], expected)
    frames = [voice.tensors["1.frames"] for voice in (first, second)]
    assert torch.equal(joined.tensors["1.frames"], torch.cat(frames, dim=-1))


@pytest.mark.parametrize("name", ["context", "tf_map", "usef", "listen_first"])
def test_cues_joined_in_time_ignore_weights(name: str):
    torch.manual_seed(0)
    speaker = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8}}
    network = build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": speaker,
            "cues": [{"name": name}],
        }
    )
    voice = Extractor(network).enroll((tone(300, 2.0), RATE), (tone(2200, 1.0), RATE))
    single = [network.prepare(torch.from_numpy(wave)[None]) for wave in (tone(300, 2.0), tone(2200, 1.0))]
    for key, tensor in network.combine(single).items():
        torch.testing.assert_close(voice.tensors[key], tensor.detach())


def test_figures_of_real_recordings(shared_data: Path):
    paths = sorted((shared_data / "speech" / "dev_ls").rglob("*.opus"))[:8]
    for path in paths:
        quality = Extractor(BandNetwork()).enroll(path).quality
        (recording,) = quality.recordings
        assert recording.name == str(path)
        assert 0.5 * recording.duration_s < recording.speech_s <= recording.duration_s
        assert recording.snr_db > 15 and recording.clipped == 0.0
        little = [f"there are only {recording.speech_s:.1f} s of speech: 5 to 10 s make a better voice print"]
        assert quality.warnings == (little if recording.speech_s < GOOD_SPEECH_S else [])
        waveform, rate = audio.read(path)
        loud = np.clip(waveform[0] * 4 / np.abs(waveform).max(), -1, 1)
        assert Extractor(BandNetwork()).enroll((loud, rate)).quality.clipped > 0.001


def test_constant_offset_does_not_change_the_report():
    extractor = Extractor(BandNetwork(), "cpu", "tiny", "hash")
    voice, silence = make_voice(*VOICES["anna"], 4.0, seed=1), np.zeros(64000, np.float32)
    (before,) = extractor.enroll((voice, 16000)).quality.recordings
    for offset in (0.01, 0.3):
        (after,) = extractor.enroll((voice + np.float32(offset), 16000)).quality.recordings
        assert after.speech_s == pytest.approx(before.speech_s, abs=0.05)
        assert after.snr_db == pytest.approx(before.snr_db, abs=0.5)
        # The loudest channel is the one that is enrolled.
        both = np.stack([silence + np.float32(offset), voice])
        assert extractor.enroll((both, 16000)).quality.speech_s == before.speech_s
        with pytest.raises(AudioError, match="is silent"):
            extractor.enroll((silence + np.float32(offset), 16000))
