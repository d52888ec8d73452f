"""Enrollments with several voices, with an encoder whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import VOICES, make_voice
from wesep_py.common.errors import InputError
from wesep_py.inference import Extractor, Voice
from wesep_py.inference.mixed_enrollment import EnrollmentVoices, nearest_voice
from wesep_py.network.extraction_network import build_network

ENCODER = {
    "network": {
        "name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8,
        "pooling": {"name": "recursive", "bottleneck": 8},
    },
    "filterbank": {"num_mel_bins": 20},
}  # fmt: skip


def extractor(second: float = 50.0, cues: tuple[str, ...] = ("embedding",), pooling: str | None = None) -> Extractor:
    """Its encoder hears a second voice with the logit `second`, whatever it is given."""
    torch.manual_seed(0)
    encoder = {**ENCODER, "network": {**ENCODER["network"], **({"pooling": pooling} if pooling else {})}}
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    steered = [{"name": cue, **({"fusion": "concat"} if cue == "embedding" else {})} for cue in cues]
    network = build_network({"backbone": backbone, "speaker": encoder, "cues": steered})
    if pooling is None:
        pool = network.encoder.network.pool
        torch.nn.init.normal_(pool.coverage.weight)
        torch.nn.init.zeros_(pool.existence.weight)
        torch.nn.init.constant_(pool.existence.bias, second)
    return Extractor(network, model_hash="known")


@pytest.fixture(scope="module")
def recording():
    return torch.from_numpy(make_voice(*VOICES["anna"], 3.0, seed=1)), 16000


def test_a_print_for_each_voice_and_the_first_is_what_enrolling_gives(recording):
    model = extractor()
    heard, prints = model.voices(recording)
    assert len(heard) == len(prints) == 2 and heard.probabilities == (1.0, pytest.approx(1.0))
    assert heard.cosines.shape == (2, 2) and heard.cosines[0, 1] < 0.999
    whole = model.enroll(recording)
    torch.testing.assert_close(prints[0].tensors, whole.tensors, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(prints[1].tensors["0.embedding"], whole.tensors["0.embedding"])
    results = [model.extract(recording, one).waveform for one in prints]
    assert results[0].shape == results[1].shape and not (results[0] == results[1]).all()
    assert prints[1].quality.recordings[0].chosen == 2 and not any("voices" in w for w in prints[1].quality.warnings)


def test_the_voice_that_is_nearer_to_a_print_is_taken(recording, tmp_path: Path):
    model = extractor()
    _, prints = model.voices(recording)
    for number, one in enumerate(prints, start=1):
        like = Voice.load(one.save(tmp_path / f"{number}.voice"))
        taken = model.enroll(recording, like=like)
        torch.testing.assert_close(taken.tensors, one.tensors)
        (note,) = taken.quality.notes
        assert note.startswith(f"recording 1: voice {number} of 2 is taken (cosine to the print 1.00; the next ")
        assert not any("voices are heard" in warning for warning in taken.quality.warnings)
    several = model.enroll(recording, recording, like=prints[1])
    torch.testing.assert_close(several.tensors, prints[1].tensors, atol=1e-5, rtol=1e-4)


def test_two_voices_in_an_enrollment_are_warned_of_and_one_is_not(recording, tmp_path: Path):
    quality = extractor(second=50.0).enroll(recording).quality
    assert quality.recordings[0].voices == 2 and quality.second_voice
    assert any(warning.startswith("2 voices are heard in recording 1") for warning in quality.warnings)
    voice = extractor(second=-50.0).enroll(recording)
    assert voice.quality.recordings[0].voices == 1 and not voice.quality.second_voice
    assert not any("voices" in warning for warning in voice.quality.warnings) and voice.quality.notes == []
    assert Voice.load(voice.save(tmp_path / "a.voice")).quality == voice.quality


def test_a_model_that_cannot_tell_says_nothing_and_refuses(recording):
    model = extractor(pooling="astp")
    voice = model.enroll(recording)
    assert voice.quality.recordings[0].voices is None
    for ask in (lambda: model.voices(recording), lambda: model.enroll(recording, like=voice)):
        with pytest.raises(InputError, match=r"finds one voice per recording; .* pooling 'recursive'"):
            ask()


def test_cues_of_frames_cannot_take_one_voice_of_several(recording):
    model = extractor(cues=("embedding", "tf_map"))
    voice = model.enroll(recording)
    assert voice.quality.recordings[0].voices == 2
    heard, prints = model.voices(recording, prints=False)
    assert len(heard) == 2 and prints == []
    for ask in (lambda: model.voices(recording), lambda: model.enroll(recording, like=voice)):
        with pytest.raises(InputError, match="its cue 'tf_map' takes an enrollment frame by frame"):
            ask()


def test_a_print_of_another_model_or_without_embedding_is_refused(recording):
    model = extractor()
    voice = model.enroll(recording)
    with pytest.raises(InputError, match="enrolled with another model"):
        model.enroll(recording, like=Voice(voice.tensors, "other", 3.0))
    heard, _ = model.voices(recording)
    with pytest.raises(InputError, match="holds no embedding"):
        nearest_voice(heard, Voice({"0.frames": torch.ones(1, 2)}, "known", 3.0))


def test_the_nearest_is_by_cosine_not_by_length():
    heard = EnrollmentVoices(torch.tensor([[9.0, 9.0], [0.0, 0.1]]).numpy(), (1.0, 0.9))
    chosen = nearest_voice(heard, Voice({"0.embedding": torch.tensor([[0.0, 1.0]])}, "known", 3.0))
    assert (chosen.number, chosen.count) == (2, 2)
    assert chosen.cosine == pytest.approx(1.0) and chosen.next_cosine == pytest.approx(0.5**0.5)
