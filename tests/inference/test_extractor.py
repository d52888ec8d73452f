"""Enrollment and extraction, with a network whose answer is known and with a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import wesep_py
from tests.inference.networks import BSRNN, BandNetwork, noise, random_extractor, tone
from wesep_py import checkpoint
from wesep_py.common.errors import AudioError, CheckpointError, InputError, WesepError
from wesep_py.inference import Extractor
from wesep_py.network.extraction_network import build_network

ENROLLMENT = (tone(300, 1.0, 16000), 16000)


def make(**arguments) -> Extractor:
    return Extractor(BandNetwork(**arguments))


@pytest.mark.parametrize("gain", [1.0, -3.0, 0.001])
@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
def test_voice_is_returned_at_its_level(gain: float, sample_rate: int):
    extractor = make(gain=gain)
    voice, other = tone(400, 1.0, sample_rate), tone(2500, 1.0, sample_rate, amplitude=0.3)
    result = extractor.extract((voice + other, sample_rate), extractor.enroll(ENROLLMENT))
    assert result.sample_rate == sample_rate
    assert result.waveform.shape == voice.shape
    np.testing.assert_allclose(result.waveform, voice.numpy(), atol=2e-4)


def test_each_channel_is_extracted_and_keeps_its_level():
    extractor = make(gain=-2.0)
    voice, other = tone(400, 1.0, 16000), tone(2500, 1.0, 16000, amplitude=0.3)
    stereo = torch.stack([voice + other, 0.25 * voice - other])
    result = extractor.extract((stereo, 16000), extractor.enroll(ENROLLMENT))
    np.testing.assert_allclose(result.waveform, torch.stack([voice, 0.25 * voice]).numpy(), atol=2e-4)


def test_silent_channel_stays_silent():
    extractor = make()
    stereo = torch.stack([tone(400, 0.5, 16000), torch.zeros(8000)])
    result = extractor.extract((stereo, 16000), extractor.enroll(ENROLLMENT))
    assert np.abs(result.waveform[0]).max() > 0.09
    assert not result.waveform[1].any()


SQUARE = torch.tensor([1.0, -1.0]).repeat_interleave(20).repeat(400)
"""A square wave of 400 Hz, of one second and of level 1: a constant would be removed as silence."""


def test_several_enrollments_are_combined_by_the_network():
    extractor = make()
    quiet, loud = (0.1 * SQUARE, 16000), (0.3 * SQUARE[:8000], 16000)
    voice = extractor.enroll(quiet, loud)
    assert voice.enrolled_s == pytest.approx(1.5)
    assert voice.tensors["0.level"].item() == pytest.approx((2 * 0.01 + 0.09) / 3, rel=1e-5)


def test_loudest_channel_is_enrolled():
    extractor = make()
    stereo = torch.stack([torch.zeros(16000), 0.2 * SQUARE])
    assert extractor.enroll((stereo, 16000)).tensors["0.level"].item() == pytest.approx(0.04, rel=1e-5)


def test_presence_is_that_of_the_highest_half_second():
    # Frames of 0.1 s: half a second is five of them.
    extractor = make(presence_logits=(-9.0, 9.0, 9.0, -9.0, 9.0, 9.0, 9.0, -9.0))
    result = extractor.extract(ENROLLMENT, extractor.enroll(ENROLLMENT))
    assert result.presence == pytest.approx(1.0, abs=1e-3)
    absent = make(presence_logits=(-9.0,) * 8 + (9.0,))
    assert absent.extract(ENROLLMENT, absent.enroll(ENROLLMENT)).presence == pytest.approx(0.2, abs=1e-3)
    assert make().extract(ENROLLMENT, make().enroll(ENROLLMENT)).presence is None


def test_missing_silent_or_short_enrollment_is_refused():
    extractor = make()
    with pytest.raises(InputError, match="at least one recording"):
        extractor.enroll()
    with pytest.raises(AudioError, match="silent"):
        extractor.enroll((torch.zeros(16000), 16000))
    with pytest.raises(AudioError, match=r"0\.099 s.*at least 0\.1 s"):
        extractor.enroll((torch.ones(1590), 16000))


def test_voice_of_another_model_is_refused():
    voice = make().enroll(ENROLLMENT)
    with pytest.raises(InputError, match="another model"):
        make(gain=2.0).extract(ENROLLMENT, voice)


def test_network_that_returns_nan_is_reported():
    extractor = make(gain=float("nan"))
    with pytest.raises(WesepError, match="not finite"):
        extractor.extract(ENROLLMENT, extractor.enroll(ENROLLMENT))


def test_result_has_the_shape_of_the_array():
    extractor = make()
    voice = extractor.enroll(ENROLLMENT)
    assert extractor.extract((np.zeros(700), 8000), voice).waveform.shape == (700,)
    assert extractor.extract((np.zeros((1, 700)), 8000), voice).waveform.shape == (1, 700)
    assert extractor.extract((np.zeros((3, 700)), 8000), voice).waveform.shape == (3, 700)


def test_voice_print_extracts_as_the_voice_does(tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    extractor = wesep_py.load(tiny_model, device="cpu")
    voice = extractor.enroll(tiny_speech / "anna" / "anna-0.wav", tiny_speech / "anna" / "anna-1.wav")
    path = tmp_path / "alice.voice"
    voice.save(path)
    mixture = tiny_speech / "bert" / "bert-2.wav"
    direct, from_print = extractor.extract(mixture, voice), extractor.extract(mixture, wesep_py.Voice.load(path))
    np.testing.assert_array_equal(direct.waveform, from_print.waveform)
    assert np.isfinite(direct.waveform).all() and direct.waveform.any()


def test_hash_is_that_of_the_checkpoint(tiny_model: Path):
    from wesep_py import checkpoint
    from wesep_py.network.extraction_network import load_network

    saved = checkpoint.load(tiny_model).hash
    assert wesep_py.load(tiny_model, "cpu").model_hash == saved
    assert Extractor(load_network(tiny_model)).model_hash == saved


def test_batch_equals_single_extractions():
    torch.manual_seed(0)
    speaker = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 48, "embedding_dim": 8}}
    config = {
        "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
        "speaker": speaker,
        "cues": [{"name": "embedding"}, {"name": "tf_map"}],
        "presence": {},
    }
    extractor = Extractor(build_network(config), "cpu", "tiny", "hash")
    mixtures = [torch.randn(8000).numpy(), np.zeros(8000, np.float32), torch.randn(8000).numpy()]
    voices = [extractor.enroll((torch.randn(16000).numpy(), 16000)) for _ in mixtures]
    together = extractor.extract_batch([(mixture, 16000) for mixture in mixtures], voices)
    for mixture, voice, result in zip(mixtures, voices, together, strict=True):
        alone = extractor.extract((mixture, 16000), voice)
        np.testing.assert_allclose(result.waveform, alone.waveform, atol=1e-6)
        assert result.presence == pytest.approx(alone.presence, abs=1e-6)
    with pytest.raises(InputError, match="of one length at 16000 Hz"):
        extractor.extract_batch([(mixtures[0], 16000), (mixtures[1][:100], 16000)], voices[:2])
    with pytest.raises(InputError, match="a voice for each recording, of one shape"):
        extractor.extract_batch([(mixtures[0], 16000)], voices)


def test_wrong_types_are_refused_in_one_line(tiny_model):
    from wesep_py.inference import Voice, load

    with pytest.raises(InputError, match="the model is int"):
        load(3)
    with pytest.raises(InputError, match="the device is int"):
        load(tiny_model, 0)
    with pytest.raises(InputError, match="the path of one is needed"):
        Voice.load(3)
    with pytest.raises(CheckpointError, match="no such model"):
        load("x" * 5000)
    extractor = load(tiny_model, "cpu")
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    voice = extractor.enroll((noise, 16000))
    sources = [
        None,
        3,
        [noise],
        (noise, "16000"),
        (noise, 10**30),
        (noise, 1),
        (noise, True),
        (noise, 16000.5),
        (noise, float("nan")),
        (noise.astype(object), 16000),
        ([[1.0], [2.0, 3.0]], 16000),
        (noise.astype(np.int16), 16000),
        (noise.astype(complex), 16000),
        (noise * np.float32("nan"), 16000),
        (np.full(16000, 1e300), 16000),
        (torch.ones(16000, device="meta"), 16000),
        (torch.ones(16000).to_sparse(), 16000),
        ({"a": 1}, 16000),
        ("a.wav", "b.wav"),
    ]
    for source in sources:
        for call in (lambda: extractor.enroll(source), lambda: extractor.extract(source, voice)):  # noqa: B023
            with pytest.raises(InputError) as refused:
                call()
            assert len(str(refused.value)) < 500
    calls = [
        lambda: extractor.enroll(),
        lambda: extractor.enroll((noise, 16000), vad=3),
        lambda: extractor.enroll((noise, 16000), min_speech_s="1"),
        lambda: extractor.enroll((noise, 16000), like="alice.voice"),
        lambda: extractor.extract((noise, 16000), None),
        lambda: extractor.extract((noise, 16000), "alice.voice"),
        lambda: extractor.extract((noise, 16000), voice, 30.0),
        lambda: extractor.extract_batch([], []),
        lambda: extractor.extract_batch([noise], [voice]),
    ]
    for call in calls:
        with pytest.raises(InputError) as refused:
            call()
        assert len(str(refused.value)) < 500


# Shifted copies, averaged.

SHIFTED = {"backbone": BSRNN, "cues": [{"name": "tf_map"}], "shifts": 2}


def test_shifts_default_to_the_models_own(tmp_path):
    extractor, voice = random_extractor(SHIFTED)
    mixture = (noise(9000), 16000)
    two, one = (extractor.extract(mixture, voice, shifts=shifts).waveform for shifts in (2, 1))
    assert extractor.shifts == 2 and not np.array_equal(one, two)
    np.testing.assert_array_equal(extractor.extract(mixture, voice).waveform, two)
    single = Extractor(extractor.network, "cpu", "tiny", "hash", shifts=1)
    assert single.shifts == 1
    np.testing.assert_array_equal(single.extract(mixture, voice).waveform, one)
    folder = checkpoint.save(tmp_path / "model", extractor.network.config, extractor.network.state_dict())
    assert wesep_py.load(folder, "cpu").shifts == 2 and wesep_py.load(folder, "cpu", shifts=4).shifts == 4


def test_a_shifted_batch_equals_single_extractions():
    extractor, voice = random_extractor(SHIFTED)
    mixtures = [(samples, 16000) for samples in (noise(9000)[0], noise(18000)[0, 9000:])]
    for shifts in (None, 1, 3):
        together = extractor.extract_batch(mixtures, [voice, voice], shifts)
        for result, mixture in zip(together, mixtures, strict=True):
            single = extractor.extract(mixture, voice, shifts=shifts)
            np.testing.assert_allclose(result.waveform, single.waveform, atol=1e-5)
            np.testing.assert_allclose(result.detection.track, single.detection.track, atol=1e-4)


@pytest.mark.parametrize("shifts", [0, -1, 17, 2.0, True, "2", float("nan")])
def test_shifts_that_are_not_allowed_are_refused(shifts):
    extractor, voice = random_extractor(SHIFTED)
    for refused in (
        lambda: Extractor(extractor.network, shifts=shifts),
        lambda: extractor.extract((noise(9000), 16000), voice, shifts=shifts),
    ):
        with pytest.raises(InputError, match=r"^shifts is .*; a whole number from 1 to 16 is allowed$"):
            refused()


def test_shifts_are_at_most_the_stride():
    extractor, voice = random_extractor({"backbone": {**BSRNN, "hop_ms": 0.25}, "cues": [{"name": "tf_map"}]})
    assert extractor.network.backbone.stride == 4
    assert extractor.extract((noise(900), 16000), voice, shifts=4).waveform.any()
    with pytest.raises(InputError, match=r"^shifts is 5; a whole number from 1 to 4 is allowed$"):
        extractor.extract((noise(900), 16000), voice, shifts=5)
