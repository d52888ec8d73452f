from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import FileReader, read_kaldi


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder of two recordings, of 2 s (a ramp) and 1 s."""
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav/r1.wav", np.arange(-16000, 16000, dtype=np.int16), 16000)
    soundfile.write(tmp_path / "wav/r2.wav", np.full(16000, 0.1), 16000)
    (tmp_path / "wav.scp").write_text(f"r1 wav/r1.wav\nr2 {tmp_path}/wav/r2.wav\n")
    (tmp_path / "utt2spk").write_text("r1 anna\nr2 bert\n")
    return tmp_path


def add_segments(data: Path) -> None:
    (data / "utt2spk").write_text("anna-1 anna\nanna-2 anna\nbert-1 bert\n")
    (data / "segments").write_text("anna-1 r1 0.25 0.75\nanna-2 r1 1.0 -1\nbert-1 r2 0 1\n")


def test_every_recording_is_an_utterance_without_segments(data: Path):
    first, second = read_kaldi(data)
    assert (first.utterance_id, first.speaker_id, first.path) == ("r1", "anna", data / "wav/r1.wav")
    assert (first.duration_s, second.duration_s) == (2.0, 1.0)
    assert (first.gender, first.text) == (None, None)


def test_segments_have_start_and_end(data: Path):
    add_segments(data)
    (data / "spk2gender").write_text("anna f\n")
    (data / "text").write_text("anna-1 HELLO THERE\nanna-2\n")
    first, second, third = read_kaldi(data)
    assert (first.start_s, first.duration_s, first.gender, first.text) == (0.25, 0.5, "f", "HELLO THERE")
    assert (second.start_s, second.duration_s, second.text) == (1.0, 1.0, None)
    assert (third.speaker_id, third.gender) == ("bert", None)
    reader = FileReader(16000)
    np.testing.assert_array_equal(reader.read(first) * 32768, np.arange(-12000, -4000))
    np.testing.assert_array_equal(reader.read(second) * 32768, np.arange(0, 16000))


def test_durations_are_taken_from_utt2dur_without_opening_the_audio(data: Path):
    (data / "utt2dur").write_text("r1 1.5\nr2 0.5\n")
    for file in (data / "wav").iterdir():
        file.unlink()
    assert [u.duration_s for u in read_kaldi(data)] == [1.5, 0.5]


def test_relative_paths_start_from_a_root(data: Path, tmp_path_factory: pytest.TempPathFactory):
    other = tmp_path_factory.mktemp("lists")
    for name in ("wav.scp", "utt2spk"):
        (data / name).rename(other / name)
    assert read_kaldi(other, root=data)[0].path == data / "wav/r1.wav"


def test_utterances_of_a_bad_recording_are_skipped(data: Path):
    (data / "wav/r1.wav").unlink()
    with pytest.raises(AudioError, match=r"r1\.wav: no such file"):
        read_kaldi(data)
    bad: list[str] = []
    assert [u.utterance_id for u in read_kaldi(data, on_skip=lambda path, _: bad.append(path.name))] == ["r2"]
    assert bad == ["r1.wav"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wav.scp", "r1 sph2pipe -f wav r1.sph |\nr2 x.wav\n", r"wav\.scp:1: .* is a command, which is not run"),
        ("wav.scp", "r1 wav.ark:17\nr2 x.wav\n", r"wav\.scp:1: 'wav.ark:17' is in an archive"),
        ("wav.scp", "r1\n", r"wav\.scp:1: has one field"),
        ("wav.scp", "r1 a.wav\nr1 b.wav\n", r"wav\.scp:2: 'r1' is listed at .*wav\.scp:1 already"),
        ("wav.scp", "\n", r"wav\.scp: is empty"),
        ("utt2spk", "r1 anna\nr9 anna\n", r"utt2spk:2: utterance 'r9' is not in wav\.scp; run Kaldi's fix_data_dir"),
        ("segments", "r1 r7 0 1\n", r"segments:1: recording 'r7' is not in wav\.scp"),
        ("segments", "r1 r1 0\n", r"segments:1: has 3 fields; utterance, recording, start and end"),
        ("segments", "r1 r1 1 0.5\nr2 r2 0 1\n", r"segments:1: a segment from 1\.0 to 0\.5 s"),
        ("segments", "r1 r1 one 2\n", r"segments:1: 'one' is not a time in seconds"),
        ("segments", "r1 r1 3 -1\nr2 r2 0 1\n", r"utt2spk:1: utterance 'r1' begins at 3\.0 s and ends at 2\.0 s"),
        ("utt2dur", "r1 nan\n", r"utt2dur:1: 'nan' is not a time in seconds"),
        ("utt2spk", "r1 a\x1fb\nr2 bert\n", r"utt2spk:1: speaker_id: is .*; a name without white space is needed"),
        ("utt2spk", "x" * 5000 + " anna\n", r"utt2spk:1: utterance 'x+…x+' is not in wav\.scp"),
    ],
)
def test_errors_name_a_malformed_line(data: Path, name: str, content: str, message: str):
    (data / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_kaldi(data)


def test_errors_name_a_folder_that_is_no_data_folder(tmp_path: Path):
    with pytest.raises(InputError, match=r"wav\.scp: no such file; give the path of a Kaldi data folder"):
        read_kaldi(tmp_path)


def test_moved_paths_and_both_spellings_are_found(data: Path):
    names = [unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")]
    (data / "wav.scp").write_text(f"{names[0]}-1 /old/corpus/wav/r1.wav\n{names[1]}-2 D:\\corpus\\wav\\r2.wav\n")
    (data / "utt2spk").write_text(f"{names[1]}-1 {names[0]}\n{names[0]}-2 {names[1]}\n")
    (data / "spk2gender").write_text(f"{names[1]} f\n")
    utterances = read_kaldi(data)
    assert [utterance.path for utterance in utterances] == [data / "wav/r1.wav", data / "wav/r2.wav"]
    assert {(utterance.speaker_id, utterance.gender) for utterance in utterances} == {(names[0], "f")}
