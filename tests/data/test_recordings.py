from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import AudioError, InputError
from wesep_py.data import (
    FileReader,
    Utterance,
    find_noises,
    pack,
    perturb_speed,
    read_manifest,
    read_speaker_folders,
    read_speech,
    write_manifest,
)


@pytest.fixture
def root(tiny_speech: Path, tmp_path: Path) -> Path:
    write_manifest(read_speaker_folders(tiny_speech), tmp_path / "train.jsonl")
    return tmp_path


def test_speech_of_manifests_under_the_root(root: Path):
    utterances = read_speech(["train.jsonl"], root)
    assert len(utterances) == 16 and {u.speaker_id for u in utterances} == {"anna", "bert", "carl", "dora"}


def test_an_utterance_of_two_manifests_is_refused(root: Path):
    with pytest.raises(InputError, match="'anna-anna-0' is in two manifests; name it once"):
        read_speech(["train.jsonl", "train.jsonl"], root)


def test_noise_of_a_folder_a_file_and_a_manifest(root: Path, tiny_speech: Path):
    names = [str(tiny_speech / "anna"), str(tiny_speech / "bert" / "bert-0.wav"), "train.jsonl"]
    noises = find_noises(names, root)
    assert len(noises) == 4 + 1 + 16 and len({n.utterance_id for n in noises}) == len(noises)
    assert noises[0].path.name == "anna-0.wav" and noises[0].duration_s == pytest.approx(2.0)


def test_unreadable_noises_of_a_folder_are_skipped_and_logged(
    tmp_path: Path, tiny_speech: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "noise"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"b\.wav: is not audio"):
        find_noises(["noise"], tmp_path)
    (folder / "c.wav").write_bytes((tiny_speech / "anna" / "anna-0.wav").read_bytes())
    caplog.clear()
    assert [noise.path.name for noise in find_noises(["noise"], tmp_path)] == ["c.wav"]
    assert len(caplog.messages) == 2 and f"(2 so far): {folder / 'b.wav'}: is not audio" in caplog.messages[1]
    with pytest.raises(AudioError, match=r"a\.wav: is not audio"):
        find_noises(["noise/a.wav", "noise/c.wav"], tmp_path)


@pytest.mark.parametrize("name", ["no_such_folder", "."])
def test_missing_noise_is_an_error(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=r"noise: .* is neither a manifest, an audio file nor a folder"):
        find_noises([name], tmp_path)


def test_another_speed_changes_speaker_and_pitch(tmp_path: Path):
    rate, seconds = 16000, 1.0
    tone = np.sin(2 * np.pi * 400 * np.arange(int(rate * seconds)) / rate)
    soundfile.write(tmp_path / "tone.wav", 0.5 * tone, rate)
    original = Utterance("a-1", "a", tmp_path / "tone.wav", seconds)
    slow, same, fast = perturb_speed([original], [0.8, 1, 1.25])
    assert same is original
    assert [u.speaker_id for u in (slow, fast)] == ["a@0.8", "a@1.25"]
    assert [u.utterance_id for u in (slow, fast)] == ["a-1@0.8", "a-1@1.25"]
    for utterance, pitch in ((slow, 320), (same, 400), (fast, 500)):
        for reader in (FileReader(rate), pack([utterance], tmp_path / utterance.utterance_id, rate)):
            samples = reader.read(utterance)
            assert len(samples) == pytest.approx(utterance.duration_s * rate, abs=2)
            peak = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * rate / len(samples)
            assert peak == pytest.approx(pitch, abs=2)


def test_a_segment_at_another_speed_has_the_same_position(tmp_path: Path):
    rate = 16000
    soundfile.write(tmp_path / "steps.wav", np.repeat([0.1, 0.2, 0.3, 0.4], rate), rate)
    segment = Utterance("a-1", "a", tmp_path / "steps.wav", 2.0, start_s=1.0)
    (fast,) = perturb_speed([segment], [2.0])
    assert (fast.duration_s, fast.stop_s) == (1.0, 3.0)
    samples = FileReader(rate).read(fast)
    assert len(samples) == rate
    np.testing.assert_allclose(samples[[rate // 4, 3 * rate // 4]], [0.2, 0.3], atol=1e-3)


def test_manifests_and_packs_keep_the_speed(tmp_path: Path):
    soundfile.write(tmp_path / "1.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    utterances = perturb_speed([Utterance("a-1", "a", tmp_path / "1.wav", 1.0)], [1, 1.1])
    for name in ("m.jsonl", "m.csv"):
        write_manifest(utterances, tmp_path / name)
        assert read_manifest(tmp_path / name) == utterances
    write_manifest(utterances[:1], tmp_path / "plain.csv")
    assert "speed" not in (tmp_path / "plain.csv").read_text()
    other = replace(utterances[0], speed=1.1, duration_s=1 / 1.1)
    lengths = [pack([u], tmp_path / "pack", 16000).length(u) for u in (utterances[0], other)]
    assert lengths == [16000, pytest.approx(16000 / 1.1, abs=2)]


@pytest.mark.parametrize("speeds", [[], [1, 1], [0.0]])
def test_impossible_speeds(tmp_path: Path, speeds: list[float]):
    with pytest.raises(InputError, match="speeds: is"):
        perturb_speed([Utterance("a-1", "a", tmp_path / "1.wav", 1.0)], speeds)


def test_noises_skip_hidden_files_and_names_that_are_not_utf8(tmp_path: Path, caplog):
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise/good.wav", np.ones(800), 16000)
    for name in (os.fsdecode(b"caf\xe9.wav"), "._good.wav", ".DS_Store"):
        (tmp_path / "noise" / name).write_bytes((tmp_path / "noise/good.wav").read_bytes())
    assert [noise.utterance_id for noise in find_noises(["noise"], tmp_path)] == ["noise/noise/good"]
    (message,) = caplog.messages
    assert r"caf\udce9.wav: its name is not UTF-8" in message
