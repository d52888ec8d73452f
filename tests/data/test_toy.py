from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.audio import active_level_db
from wesep_py.common.errors import InputError, OutputExistsError, WesepError
from wesep_py.data import FileReader, make_toy_corpus, read_manifest
from wesep_py.data.toy import FEMALE_VARIANTS, LEVEL_DB, MALE_VARIANTS, draw_sentence, draw_voices, synthesise


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("toy") / "corpus"
    make_toy_corpus(folder, num_speakers=4, utterances_per_speaker=3, seed=1)
    return folder


def test_the_manifest_describes_the_files(corpus: Path):
    utterances = read_manifest(corpus / "manifest.jsonl")
    assert len(utterances) == 12
    assert [u.gender for u in utterances[::3]] == ["f", "m", "f", "m"]
    assert len({u.text for u in utterances}) == 12
    for utterance in utterances:
        info = soundfile.info(utterance.path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert utterance.duration_s == info.frames / info.samplerate
        assert 1.5 < utterance.duration_s < 12
        waveform = FileReader(16000).read(utterance)
        assert LEVEL_DB[0] - 0.1 < active_level_db(waveform, 16000) < LEVEL_DB[1] + 0.1
        assert np.abs(waveform).max() < 1


def test_a_larger_corpus_of_one_seed_contains_the_smaller(corpus: Path, tmp_path: Path):
    make_toy_corpus(tmp_path / "larger", num_speakers=5, utterances_per_speaker=4, seed=1)
    for file in corpus.rglob("*.wav"):
        assert (tmp_path / "larger" / file.relative_to(corpus)).read_bytes() == file.read_bytes()
    make_toy_corpus(tmp_path / "other", num_speakers=1, utterances_per_speaker=1, seed=2)
    assert (tmp_path / "other/toy000/000.wav").read_bytes() != (corpus / "toy000/000.wav").read_bytes()


def test_spectra_differ_more_between_speakers_than_within(corpus: Path):
    reader = FileReader(16000)
    spectra: dict[str, list[np.ndarray]] = {}
    for utterance in read_manifest(corpus / "manifest.jsonl"):
        samples = reader.read(utterance)
        frames = samples[: samples.size // 512 * 512].reshape(-1, 512) * np.hanning(512)
        power = (np.abs(np.fft.rfft(frames)) ** 2).mean(axis=0)[:192].reshape(48, 4).mean(axis=1)
        level = np.log10(power)
        spectra.setdefault(utterance.speaker_id, []).append(level - level.mean())
    within = np.mean([np.std(rows, axis=0).mean() for rows in spectra.values()])
    between = np.std([np.mean(rows, axis=0) for rows in spectra.values()], axis=0).mean()
    assert between > 2 * within


def test_voices_are_distinct():
    voices = draw_voices(2 * min(len(FEMALE_VARIANTS), len(MALE_VARIANTS)), seed=3)
    assert len({voice.voice.split("+")[1] for voice in voices}) == len(voices)
    assert draw_voices(2, seed=3) == voices[:2]
    assert all(
        voice.voice.split("+")[1] in (FEMALE_VARIANTS if voice.gender == "f" else MALE_VARIANTS) for voice in voices
    )


def test_sentences_begin_with_a_capital_and_end_with_a_stop():
    for seed in range(20):
        sentence = draw_sentence(np.random.default_rng(seed))
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert len(sentence.split()) >= 5


def test_every_variant_exists(corpus: Path):
    import espeakng_loader

    variants = {file.name for file in (Path(espeakng_loader.get_data_path()) / "voices/!v").iterdir()}
    assert set(FEMALE_VARIANTS) | set(MALE_VARIANTS) <= variants


def test_another_sample_rate_is_written(tmp_path: Path, corpus: Path):
    (utterance,) = make_toy_corpus(tmp_path / "narrow", 1, 1, seed=1, sample_rate=8000)
    assert soundfile.info(utterance.path).samplerate == 8000
    wide = soundfile.info(corpus / "toy000/000.wav")
    assert utterance.duration_s == pytest.approx(wide.duration, abs=1e-3)


def test_an_existing_corpus_is_kept_unless_overwritten(tmp_path: Path, corpus: Path):
    before = (corpus / "manifest.jsonl").read_text()
    with pytest.raises(OutputExistsError, match="exists already"):
        make_toy_corpus(corpus, 1, 1)
    assert (corpus / "manifest.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_speakers": 0}, "num_speakers: is 0; at least 1"),
        ({"utterances_per_speaker": 0}, "utterances_per_speaker: is 0"),
        ({"seed": -1}, "seed: is -1"),
        ({"sample_rate": 4000}, "sample_rate: is 4000; at least 8000"),
    ],
)
def test_errors_name_impossible_numbers(tmp_path: Path, arguments: dict[str, int], message: str):
    with pytest.raises(InputError, match=message):
        make_toy_corpus(tmp_path / "toy", **arguments)
    with pytest.raises(InputError, match="create it first"):
        make_toy_corpus(tmp_path / "no/where")


def test_a_missing_espeak_is_one_error_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError('hidden by this test')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WesepError, match=r"espeakng_loader is not installed; pip install 'wesep-py\[demo\]'"):
        make_toy_corpus(tmp_path / "toy", 1, 1)
    assert not (tmp_path / "toy/manifest.jsonl").exists()


def test_an_unknown_voice_is_one_error_line(corpus: Path):
    from dataclasses import replace

    with pytest.raises(WesepError, match="cannot speak: espeak-ng has no voice 'xx-nowhere'"):
        synthesise(replace(draw_voices(1)[0], voice="xx-nowhere"), ["Hello."], 16000)


def test_espeak_is_not_loaded_into_this_process(corpus: Path):
    maps = Path("/proc/self/maps")
    if sys.platform != "linux" or not maps.exists():
        pytest.skip("looks at the memory map of a Linux process")
    assert "libespeak" not in maps.read_text()
