from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import read_librispeech, read_speaker_folders


def speak(path: Path, duration_s: float = 1.0, sample_rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(duration_s * sample_rate), 0.1), sample_rate)
    return path


def test_one_folder_per_speaker_at_any_depth(tmp_path: Path):
    speak(tmp_path / "bob/x.flac", 0.5, 48000)
    speak(tmp_path / "Alice Ann/2024/may 1/one.WAV", 1.25)
    speak(tmp_path / "Alice Ann/.hidden.wav")
    speak(tmp_path / ".cache/y.wav")
    (tmp_path / "bob/notes.txt").write_text("no audio")
    (tmp_path / "empty").mkdir()
    alice, bob = read_speaker_folders(tmp_path)
    assert (alice.utterance_id, alice.speaker_id, alice.duration_s) == ("Alice_Ann-2024-may_1-one", "Alice_Ann", 1.25)
    assert (bob.utterance_id, bob.speaker_id, bob.duration_s) == ("bob-x", "bob", 0.5)
    assert bob.path == tmp_path / "bob/x.flac"


def test_recordings_of_phones_are_found(tmp_path: Path):
    media_files = pytest.importorskip("tests.media_files")
    (tmp_path / "anna").mkdir()
    chirp = media_files.chirps(1, 1.0, 16000)
    media_files.write_media(tmp_path / "anna" / "memo.m4a", "mp4", "aac", [chirp], 16000)
    media_files.write_media(tmp_path / "anna" / "film.mkv", "matroska", "libopus", [chirp], 48000)
    assert [u.utterance_id for u in read_speaker_folders(tmp_path)] == ["anna-film", "anna-memo"]


def test_links_to_folders_are_followed_once(tmp_path: Path):
    speak(tmp_path / "disk/one.wav")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/alice").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/loop").symlink_to(tmp_path / "corpus")
    assert [u.utterance_id for u in read_speaker_folders(tmp_path / "corpus")] == ["alice-one"]


def test_unreadable_recordings_are_skipped_and_named(tmp_path: Path):
    speak(tmp_path / "alice/one.wav")
    speak(tmp_path / "stray.wav")
    (tmp_path / "alice/text.wav").write_text("no audio")
    (tmp_path / "alice/void.wav").touch()
    bad: dict[str, str] = {}
    utterances = read_speaker_folders(tmp_path, on_skip=lambda path, reason: bad.update({path.name: reason}))
    assert [u.utterance_id for u in utterances] == ["alice-one"]
    assert sorted(bad) == ["stray.wav", "text.wav", "void.wav"]
    assert "is in no speaker's folder" in bad["stray.wav"]
    assert "empty" in bad["void.wav"]


def test_without_on_skip_the_first_bad_recording_is_an_error(tmp_path: Path):
    speak(tmp_path / "alice/one.wav")
    (tmp_path / "alice/text.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"text\.wav"):
        read_speaker_folders(tmp_path)
    (tmp_path / "alice/text.wav").unlink()
    speak(tmp_path / "stray.wav")
    with pytest.raises(InputError, match="is in no speaker's folder"):
        read_speaker_folders(tmp_path)


def test_errors_name_a_folder_without_audio(tmp_path: Path):
    with pytest.raises(InputError, match="is not a folder"):
        read_speaker_folders(tmp_path / "none")
    (tmp_path / "alice").mkdir()
    with pytest.raises(InputError, match="none of its folders holds a recording"):
        read_speaker_folders(tmp_path)


def test_names_with_equal_ids_are_refused(tmp_path: Path):
    speak(tmp_path / "a b/1.wav")
    speak(tmp_path / "a_b/2.wav")
    with pytest.raises(InputError, match="give the same speaker_id; rename one"):
        read_speaker_folders(tmp_path)
    (tmp_path / "a_b/2.wav").unlink()
    speak(tmp_path / "a b/1.flac")
    with pytest.raises(InputError, match="'a_b-1' is that of"):
        read_speaker_folders(tmp_path)


def test_progress_is_reported(tmp_path: Path):
    for name in "xyz":
        speak(tmp_path / f"alice/{name}.wav")
    counts: list[tuple[int, int]] = []
    read_speaker_folders(tmp_path, on_progress=lambda *count: counts.append(count))
    assert counts == [(1, 3), (2, 3), (3, 3)]


def test_librispeech_with_its_tables(tmp_path: Path):
    subset = tmp_path / "LibriSpeech/train-clean-100"
    speak(subset / "84/121/84-121-0000.flac", 2.0)
    speak(subset / "61/70/61-70-0001.flac", 3.0)
    (subset / "84/121/84-121.trans.txt").write_text("84-121-0000 GO DO YOU HEAR\n")
    (tmp_path / "LibriSpeech/SPEAKERS.TXT").write_text(
        ";ID  |SEX| SUBSET           |MINUTES| NAME\n84   | F | dev-clean        |  8.02 | Christie Nowak\n"
    )
    for folder in (subset, tmp_path / "LibriSpeech"):
        first, second = read_librispeech(folder)
        assert (first.utterance_id, first.speaker_id, first.gender, first.text) == ("61-70-0001", "61", None, None)
        assert (second.speaker_id, second.gender, second.text) == ("84", "f", "GO DO YOU HEAR")
        assert second.duration_s == 2.0


def test_errors_name_a_folder_that_is_no_librispeech(tmp_path: Path):
    speak(tmp_path / "alice/one.wav")
    with pytest.raises(InputError, match="holds no file named like"):
        read_librispeech(tmp_path)
