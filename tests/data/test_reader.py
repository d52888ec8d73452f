from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.audio import resample
from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import FileReader, Reader, Utterance
from wesep_py.data.reader import quantise

RATE = 16000


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """One second at 16 kHz, 16 bit, two channels; the first is a ramp of known steps."""
    ramp = np.arange(-8000, 8000, dtype=np.int16)
    soundfile.write(tmp_path / "ramp.wav", np.stack([ramp, -ramp], axis=1), RATE)
    return tmp_path / "ramp.wav"


def utterance(path: Path, duration_s: float = 1.0, start_s: float = 0.0) -> Utterance:
    return Utterance(f"a-{start_s}", "a", path, duration_s, start_s)


def test_a_file_reader_is_a_reader():
    assert isinstance(FileReader(RATE), Reader)


def test_16_bit_samples_are_returned_exactly(recording: Path):
    reader = FileReader(RATE)
    samples = reader.read(utterance(recording))
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples * 32768, np.arange(-8000, 8000))
    assert reader.length(utterance(recording)) == RATE


def test_part_of_a_segment_is_at_its_position(recording: Path):
    reader = FileReader(RATE)
    segment = utterance(recording, duration_s=0.25, start_s=0.5)
    assert reader.length(segment) == 4000
    np.testing.assert_array_equal(reader.read(segment, 10, 13) * 32768, [10, 11, 12])
    np.testing.assert_array_equal(reader.read(segment)[-1] * 32768, 3999)


@pytest.mark.parametrize("cache_mib", [0, 512])
def test_the_cache_changes_no_sample_and_is_not_modified(recording: Path, cache_mib: float):
    reader = FileReader(RATE, cache_mib)
    first = reader.read(utterance(recording))
    expected = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(reader.read(utterance(recording)), expected)


def test_the_cache_drops_the_least_recently_used_audio(tmp_path: Path):
    reader = FileReader(RATE, cache_mib=5 * RATE / 2**20)  # two and a half of these
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.full(RATE, 0.1), RATE)
    for name in "abac":
        reader.read(utterance(tmp_path / f"{name}.wav"))
    assert [key[0].stem for key in reader._cache.entries] == ["a", "c"]
    assert reader._cache.num_bytes == 2 * 2 * RATE


def test_another_rate_is_resampled_as_by_audio(recording: Path):
    ramp = np.arange(-8000, 8000).astype(np.float32) / 32768
    reader = FileReader(8000)
    samples = reader.read(utterance(recording))
    assert samples.size == reader.length(utterance(recording)) == 8000
    np.testing.assert_allclose(samples, resample(ramp, RATE, 8000), atol=2**-16)


def test_a_lossy_recording_is_decoded_once_for_all_its_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from wesep_py.data import reader as module

    soundfile.write(tmp_path / "long.ogg", 0.3 * np.sin(np.arange(4 * RATE) ** 1.3 / 500), RATE)
    whole = FileReader(RATE).read(utterance(tmp_path / "long.ogg", 4.0))
    reads: list[Path] = []
    decode = module.read
    monkeypatch.setattr(module, "read", lambda path, *span: reads.append(path) or decode(path, *span))
    reader = FileReader(RATE)
    for start_s in (0.0, 1.5, 3.0):
        segment = reader.read(utterance(tmp_path / "long.ogg", 1.0, start_s))
        start = round(start_s * RATE)
        np.testing.assert_allclose(segment, whole[start : start + RATE], atol=2**-15)
    assert len(reads) == 1


def test_a_duration_rounded_to_milliseconds_is_the_whole_file(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.full(16005, 0.1), RATE)
    assert FileReader(RATE).length(utterance(tmp_path / "a.wav", duration_s=1.0)) == 16005
    assert FileReader(RATE).length(utterance(tmp_path / "a.wav", duration_s=1.001)) == 16005
    assert FileReader(RATE).length(utterance(tmp_path / "a.wav", duration_s=0.9)) == 14400


@pytest.mark.parametrize(("duration_s", "start_s"), [(1.2, 0.0), (0.5, 1.0), (0.5, 3.0)])
def test_a_file_shorter_than_stated_is_an_error(recording: Path, duration_s: float, start_s: float):
    with pytest.raises(AudioError, match=r"ramp\.wav: lasts 1\.000 s, but utterance 'a-.*' is said to end at"):
        FileReader(RATE).read(utterance(recording, duration_s, start_s))


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(AudioError, match=r"none\.wav: no such file"):
        FileReader(RATE).read(utterance(tmp_path / "none.wav"))


@pytest.mark.parametrize("span", [(-1, 5), (5, 4), (0, 16001), (16001, None)])
def test_positions_outside_the_utterance_are_an_error(recording: Path, span: tuple[int, int | None]):
    with pytest.raises(InputError, match="it has 16000"):
        FileReader(RATE).read(utterance(recording), *span)


def test_a_reader_can_be_pickled(recording: Path):
    reader = FileReader(RATE)
    reader.read(utterance(recording))
    copy = pickle.loads(pickle.dumps(reader))
    assert len(pickle.dumps(reader)) < 500
    np.testing.assert_array_equal(copy.read(utterance(recording)), reader.read(utterance(recording)))


def test_impossible_settings_are_errors():
    with pytest.raises(InputError, match="sample_rate: is 0"):
        FileReader(0)
    with pytest.raises(InputError, match="cache_mib: is -1"):
        FileReader(RATE, -1)


@pytest.mark.parametrize("peak", [1e-6, 0.003, 0.49, 0.5, 0.99999, 1.0, 1.7, 250.0])
def test_quantising_keeps_15_bits_below_the_peak_without_clipping(peak: float):
    rng = np.random.default_rng(0)
    waveform = rng.uniform(-1, 1, 4000)
    waveform *= peak / np.abs(waveform).max()
    restored = quantise(waveform).waveform()
    assert np.abs(restored - waveform).max() <= peak * 2**-15
    assert np.abs(restored).max() == pytest.approx(peak, rel=2**-14)


@pytest.mark.parametrize("lowest", [-32768, -16384, -5, -1])
def test_quantising_keeps_sixteen_bit_samples_exactly(lowest: int):
    samples = np.array([lowest, -lowest - 1, 0], np.float32) / 32768
    np.testing.assert_array_equal(quantise(samples).waveform(), samples)


def test_quantising_silence_gives_silence():
    np.testing.assert_array_equal(quantise(np.zeros(5)).waveform(), np.zeros(5, np.float32))
    assert quantise(np.zeros(0)).waveform().size == 0
