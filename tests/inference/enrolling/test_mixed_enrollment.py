"""Enrollments in which several people speak, with an encoder whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import VOICES, make_voice
from tests.inference.networks import counting_extractor
from wesep_py.common.errors import InputError
from wesep_py.inference import Voice
from wesep_py.inference.enrolling.mixed_enrollment import EnrollmentVoices, nearest_voice


@pytest.fixture(scope="module")
def recording():
    return torch.from_numpy(make_voice(*VOICES["anna"], 3.0, seed=1)), 16000


def test_voices_returns_a_print_of_each_voice(recording):
    model = counting_extractor()
    voices, prints = model.voices(recording)
    assert len(voices) == len(prints) == 2 and voices.probabilities == (1.0, pytest.approx(1.0))
    assert voices.cosines.shape == (2, 2) and voices.cosines[0, 1] < 0.999
    whole = model.enroll(recording)
    torch.testing.assert_close(prints[0].tensors, whole.tensors, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(prints[1].tensors["0.embedding"], whole.tensors["0.embedding"])
    results = [model.extract(recording, voice_print).waveform for voice_print in prints]
    assert results[0].shape == results[1].shape and not (results[0] == results[1]).all()
    assert prints[1].quality.recordings[0].chosen == 2 and not any("voices" in w for w in prints[1].quality.warnings)


def test_voice_nearest_to_a_print_is_enrolled(recording, tmp_path: Path):
    model = counting_extractor()
    _, prints = model.voices(recording)
    for number, voice_print in enumerate(prints, start=1):
        like = Voice.load(voice_print.save(tmp_path / f"{number}.voice"))
        voice = model.enroll(recording, like=like)
        torch.testing.assert_close(voice.tensors, voice_print.tensors)
        (note,) = voice.quality.notes
        assert note.startswith(f"recording 1: voice {number} of 2 is taken (cosine to the print 1.00; the next ")
        assert not any("voices were found" in warning for warning in voice.quality.warnings)
    several = model.enroll(recording, recording, like=prints[1])
    torch.testing.assert_close(several.tensors, prints[1].tensors, atol=1e-5, rtol=1e-4)


def test_two_voices_give_a_warning_and_one_does_not(recording, tmp_path: Path):
    quality = counting_extractor(second=50.0).enroll(recording).quality
    assert quality.recordings[0].voices == 2 and quality.second_voice
    assert any(warning.startswith("2 voices were found in recording 1") for warning in quality.warnings)
    voice = counting_extractor(second=-50.0).enroll(recording)
    assert voice.quality.recordings[0].voices == 1 and not voice.quality.second_voice
    assert not any("voices" in warning for warning in voice.quality.warnings) and voice.quality.notes == []
    assert Voice.load(voice.save(tmp_path / "a.voice")).quality == voice.quality


def test_encoder_of_one_voice_counts_nothing_and_refuses(recording):
    model = counting_extractor(pooling="astp")
    voice = model.enroll(recording)
    assert voice.quality.recordings[0].voices is None
    for ask in (lambda: model.voices(recording), lambda: model.enroll(recording, like=voice)):
        with pytest.raises(InputError, match=r"finds one voice per recording; .* pooling 'recursive'"):
            ask()


def test_frame_level_cues_refuse_one_voice_of_several(recording):
    model = counting_extractor(cues=("embedding", "tf_map"))
    voice = model.enroll(recording)
    assert voice.quality.recordings[0].voices == 2
    voices, prints = model.voices(recording, prints=False)
    assert len(voices) == 2 and prints == []
    for ask in (lambda: model.voices(recording), lambda: model.enroll(recording, like=voice)):
        with pytest.raises(InputError, match="its cue 'tf_map' takes an enrollment frame by frame"):
            ask()


def test_print_of_another_model_or_without_embedding_is_refused(recording):
    model = counting_extractor()
    voice = model.enroll(recording)
    with pytest.raises(InputError, match="enrolled with another model"):
        model.enroll(recording, like=Voice(voice.tensors, "other", 3.0))
    voices, _ = model.voices(recording)
    with pytest.raises(InputError, match="holds no embedding"):
        nearest_voice(voices, Voice({"0.frames": torch.ones(1, 2)}, "known", 3.0))


def test_nearest_voice_is_by_cosine_not_by_norm():
    voices = EnrollmentVoices(torch.tensor([[9.0, 9.0], [0.0, 0.1]]).numpy(), (1.0, 0.9))
    chosen = nearest_voice(voices, Voice({"0.embedding": torch.tensor([[0.0, 1.0]])}, "known", 3.0))
    assert (chosen.number, chosen.count) == (2, 2)
    assert chosen.cosine == pytest.approx(1.0) and chosen.next_cosine == pytest.approx(0.5**0.5)
