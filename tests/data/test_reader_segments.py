"""The segments of utterances, decoded as recorded and encoded for stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.audio.reading import decode_audio, encode_audio, probe_audio
from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import Utterance
from wesep_py.data.reader import cut_utterance, encode_utterance

RATE = 16000


@pytest.mark.parametrize(
    ("bits", "form", "suffix"), [(16, "flac", ".flac"), (24, "flac", ".flac"), (16, "wav", ".wav"), (24, "wav", ".wav")]
)
def test_integers_are_returned_exactly(bits: int, form: str, suffix: str):
    full_scale = 2 ** (bits - 1)
    steps = np.random.default_rng(0).integers(-full_scale, full_scale, (2, 500))
    steps[:, :2] = -full_scale, full_scale - 1
    waveform = (steps / full_scale).astype(np.float32)
    encoded = encode_audio(waveform, RATE, form)
    assert (encoded.suffix, encoded.sample_rate, encoded.num_samples) == (suffix, RATE, 500)
    decoded, rate = decode_audio(encoded.data, "it")
    assert rate == RATE
    np.testing.assert_array_equal(decoded, waveform)
    assert probe_audio(encoded.data, "it") == (RATE, 500)


@pytest.mark.parametrize("waveform", [[[0.1, 0.7, -0.3]], [[1.0, 0.0, 0.0]], [[-3.5, 0.0, 2.0]], [[1e-9, 0.0, 0.5]]])
def test_samples_beyond_flac_are_stored_in_floating_point(waveform: list[list[float]]):
    encoded = encode_audio(np.array(waveform, np.float32), RATE)
    assert encoded.suffix == ".wav"
    np.testing.assert_array_equal(decode_audio(encoded.data, "it")[0], np.array(waveform, np.float32))


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(96000, 1, ".flac"), (65537, 1, ".wav"), (16000, 9, ".wav")])
def test_rates_and_channels_that_flac_lacks_are_stored_as_wav(rate: int, channels: int, suffix: str):
    waveform = np.full((channels, 100), 0.25, np.float32)
    encoded = encode_audio(waveform, rate)
    assert encoded.suffix == suffix
    decoded, decoded_rate = decode_audio(encoded.data, "it")
    assert decoded_rate == rate
    np.testing.assert_array_equal(decoded, waveform)


def test_all_channels_or_the_first_are_stored(tmp_path: Path):
    ramp = np.arange(-8000, 8000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", np.stack([ramp, -ramp], axis=1), RATE)
    utterance = Utterance("a", "a", tmp_path / "a.wav", 0.25, start_s=0.5)
    first = decode_audio(encode_utterance(utterance).data, "it")[0]
    np.testing.assert_array_equal(first * 32768, [np.arange(4000)])
    both = decode_audio(encode_utterance(utterance, all_channels=True).data, "it")[0]
    np.testing.assert_array_equal(both * 32768, [np.arange(4000), -np.arange(4000)])


def test_only_whole_lossy_recordings_are_copied_as_they_are(tmp_path: Path):
    soundfile.write(tmp_path / "a.opus", 0.3 * np.sin(np.arange(48000) / 9), 48000, format="OGG", subtype="OPUS")
    duration_s = soundfile.info(tmp_path / "a.opus").duration
    whole, part = (
        Utterance("a", "a", tmp_path / "a.opus", duration_s),
        Utterance("b", "a", tmp_path / "a.opus", 0.2, 0.3),
    )
    copied = encode_utterance(whole, "opus-as-is")
    assert (copied.suffix, copied.data) == (".opus", (tmp_path / "a.opus").read_bytes())
    for utterance, form in [(whole, "flac"), (part, "opus-as-is")]:
        encoded = encode_utterance(utterance, form)
        assert encoded.suffix == ".wav"
        np.testing.assert_array_equal(decode_audio(encoded.data, "it")[0], cut_utterance(utterance)[0][:1])
    np.testing.assert_array_equal(decode_audio(copied.data, "it")[0], cut_utterance(whole)[0])


def test_errors_name_a_bad_recording_or_format(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.1), RATE)
    with pytest.raises(AudioError, match=r"a\.wav: lasts 1\.000 s, but utterance 'a' is said to end at 1\.500 s"):
        encode_utterance(Utterance("a", "a", tmp_path / "a.wav", 1.5))
    with pytest.raises(InputError, match="format: is 'mp3'; flac, wav, opus-as-is are allowed"):
        encode_utterance(Utterance("a", "a", tmp_path / "a.wav", 1.0), "mp3")
    for look in (decode_audio, probe_audio):
        with pytest.raises(AudioError, match="the place: is not audio that can be read"):
            look(b"no audio", "the place")


@pytest.mark.parametrize(("start_s", "duration_s", "span"), [(0.0, 1.0, (0, 16000)), (0.5, 0.25, (8000, 12000))])
def test_a_segment_has_all_channels_at_its_position(
    tmp_path: Path, start_s: float, duration_s: float, span: tuple[int, int]
):
    ramp = np.arange(-8000, 8000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", np.stack([ramp, -ramp], axis=1), RATE)
    waveform, rate, may_copy = cut_utterance(Utterance("a", "a", tmp_path / "a.wav", duration_s, start_s))
    assert (rate, may_copy) == (RATE, False)
    np.testing.assert_array_equal(waveform * 32768, np.stack([ramp, -ramp])[:, slice(*span)])


def test_a_faster_speed_takes_more_of_the_recording(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.arange(16000, dtype=np.int16), RATE)
    waveform, _, _ = cut_utterance(Utterance("a", "a", tmp_path / "a.wav", 0.4, speed=1.25))
    assert waveform.shape == (1, 8000)


def test_only_a_whole_lossy_recording_may_be_copied(tmp_path: Path):
    soundfile.write(tmp_path / "a.ogg", 0.3 * np.sin(np.arange(RATE) / 9), RATE)
    whole, _, may_copy = cut_utterance(Utterance("a", "a", tmp_path / "a.ogg", 1.0))
    part, _, part_may_copy = cut_utterance(Utterance("b", "a", tmp_path / "a.ogg", 0.5, 0.25))
    assert (may_copy, part_may_copy) == (True, False)
    np.testing.assert_array_equal(part, whole[:, 4000:12000])


def test_an_end_rounded_to_milliseconds_is_the_end(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.full(16005, 0.1), RATE)
    assert cut_utterance(Utterance("a", "a", tmp_path / "a.wav", 1.0))[0].shape == (1, 16005)
    assert cut_utterance(Utterance("a", "a", tmp_path / "a.wav", 0.9))[0].shape == (1, 14400)


@pytest.mark.parametrize(("duration_s", "start_s"), [(1.2, 0.0), (0.5, 1.0)])
def test_a_file_shorter_than_stated_is_an_error(tmp_path: Path, duration_s: float, start_s: float):
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.1), RATE)
    with pytest.raises(AudioError, match=r"a\.wav: lasts 1\.000 s, but utterance 'a' is said to end at"):
        cut_utterance(Utterance("a", "a", tmp_path / "a.wav", duration_s, start_s))
