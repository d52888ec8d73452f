"""Level and saving of an extracted voice."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import InputError, OutputExistsError
from wesep_py.inference import Extractor, Result
from wesep_py.inference.file_extraction import extract_file
from wesep_py.inference.inputs_outputs.output_files import ExtractionTarget
from wesep_py.inference.long_recordings.blocks import Blocks
from wesep_py.inference.result import level_gain
from wesep_py.network.extraction_network import NetworkOutput, build_network

TWICE = 10 ** (6 / 20)
MODEL = {"backbone": {"name": "bsrnn", "feature_dim": 4, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}

RNG = np.random.default_rng(0)
VOICE = RNG.standard_normal((2, 4000))
OTHER = RNG.standard_normal((2, 4000))
OTHER -= VOICE * (OTHER * VOICE).sum() / (VOICE**2).sum()  # made orthogonal: the answer is exact


@pytest.fixture(autouse=True)
def fresh_rng(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test the same numbers, whichever tests ran before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


@pytest.mark.parametrize("scale", [1.0, -0.25, 1e-4, 30.0])
def test_gain_is_exact_for_an_uncorrelated_mixture(scale: float):
    assert level_gain(scale * VOICE, 0.7 * VOICE + OTHER) == pytest.approx(0.7 / scale, rel=1e-9)


def test_one_gain_holds_for_all_channels():
    mixture = VOICE * np.array([[1.0], [0.2]])
    expected = (VOICE[0] @ VOICE[0] + 0.2 * VOICE[1] @ VOICE[1]) / (VOICE**2).sum()
    assert level_gain(VOICE, mixture) == pytest.approx(expected)


def test_gain_of_silence_is_zero():
    assert level_gain(np.zeros((1, 100), np.float32), np.ones((1, 100))) == 0.0
    assert level_gain(np.full((1, 100), 1e-30, np.float32), np.ones((1, 100))) == 0.0


@pytest.mark.parametrize(
    ("scale", "expected"), [(0.8, 1 / 0.8), (1.5, 1 / 1.5), (0.01, TWICE), (9.0, 1 / TWICE), (-1, 1 / TWICE)]
)
def test_learned_level_is_corrected_by_6_db_at_most(scale: float, expected: float):
    assert level_gain(scale * VOICE, VOICE + OTHER, "learned") == pytest.approx(expected)
    assert level_gain(np.zeros((1, 100), np.float32), np.ones((1, 100)), "learned") == 0.0


@pytest.mark.parametrize(("level", "expected"), [("fitted", 1.0), ("learned", 0.05 * TWICE)])
def test_level_setting_of_the_model_holds_for_every_way_to_extract(
    level: str, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = build_network(MODEL | {"level": level})
    monkeypatch.setattr(network, "extract", lambda mixture, prepared, state=None: NetworkOutput((0.05 * mixture,)))
    extractor = Extractor(network)
    mixture = RNG.uniform(-0.3, 0.3, 16000 * 9).astype(np.float32)
    voice = extractor.enroll((mixture[:16000], 16000))
    whole = extractor.extract((mixture, 16000), voice, Blocks.of(4)).waveform
    np.testing.assert_allclose(whole, expected * mixture, atol=1e-6)
    batch = extractor.extract_batch([(mixture, 16000)], [voice])[0].waveform
    np.testing.assert_allclose(batch, expected * mixture, atol=1e-6)
    soundfile.write(tmp_path / "m.wav", mixture, 16000, subtype="FLOAT")
    extract_file(extractor, tmp_path / "m.wav", [ExtractionTarget("a", voice, tmp_path / "a.wav")], blocks=Blocks.of(4))
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], expected * mixture, atol=1e-6)


WAVEFORM = np.linspace(-0.5, 0.5, 800, dtype=np.float32)[None].repeat(2, axis=0)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_sample_format_of_the_recording_is_kept(tmp_path: Path, subtype: str):
    Result(WAVEFORM, 16000, file_format="WAV", subtype=subtype).save(tmp_path / "a.wav")
    about = soundfile.info(tmp_path / "a.wav")
    assert (about.subtype, about.samplerate, about.channels, about.frames) == (subtype, 16000, 2, 800)
    read, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    np.testing.assert_allclose(read.T, WAVEFORM, atol=1 / 128)


def test_other_container_has_its_own_sample_format(tmp_path: Path):
    Result(WAVEFORM, 16000, file_format="WAV", subtype="FLOAT").save(tmp_path / "a.flac")
    assert soundfile.info(tmp_path / "a.flac").subtype == "PCM_24"
    Result(WAVEFORM, 16000).save(tmp_path / "array.wav")
    assert soundfile.info(tmp_path / "array.wav").subtype == "FLOAT"


def test_voice_beyond_full_scale_is_scaled_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        Result(4 * WAVEFORM, 16000, file_format="WAV", subtype="PCM_16").save(tmp_path / "a.wav")
    assert "scaled down to full scale" in caplog.text
    read, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    np.testing.assert_allclose(read.T, 2 * WAVEFORM, atol=1e-4)
    Result(4 * WAVEFORM, 16000, file_format="WAV", subtype="FLOAT").save(tmp_path / "float.wav")
    read, _ = soundfile.read(tmp_path / "float.wav", always_2d=True)
    np.testing.assert_array_equal(read.T, 4 * WAVEFORM)


def test_existing_files_and_unknown_suffixes_are_refused(tmp_path: Path):
    result = Result(WAVEFORM, 16000)
    assert result.save(tmp_path / "a.wav") == tmp_path / "a.wav"
    with pytest.raises(OutputExistsError):
        result.save(tmp_path / "a.wav")
    with pytest.raises(InputError, match="does not exist"):
        result.save(tmp_path / "nowhere" / "a.wav")
    with pytest.raises(InputError, match="not a format to write"):
        result.save(tmp_path / "a.docx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav"]
