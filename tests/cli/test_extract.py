"""`wesep extract` of short recordings: its files, voice prints, and the same result as in Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import soundfile


def test_two_targets_are_extracted_from_two_recordings(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    mixtures = tmp_path / "mixtures"
    mixtures.mkdir()
    for index in (0, 1):
        shutil.copy(tiny_speech / "carl" / f"carl-{index}.wav", mixtures)
    enrollments = ["--enroll", f"anna={tiny_speech}/anna", "--enroll", f"bert={tiny_speech}/bert/bert-0.wav"]
    arguments = ["extract", mixtures, *enrollments, "-o", tmp_path / "out", "--model", tiny_model, "--threads", "1"]
    ran = wesep(*arguments, "--device", "cpu", "--json")
    assert ran.status == 0, ran.err
    results = json.loads(ran.out)
    assert [(Path(r["mixture"]).name, r["target"], Path(r["output"]).name) for r in results] == [
        ("carl-0.wav", "anna", "carl-0_anna.wav"),
        ("carl-0.wav", "bert", "carl-0_bert.wav"),
        ("carl-1.wav", "anna", "carl-1_anna.wav"),
        ("carl-1.wav", "bert", "carl-1_bert.wav"),
    ]
    for result in results:
        assert result["sample_rate"] == 16000 and result["presence"] is None
        mixture, estimate = soundfile.info(result["mixture"]), soundfile.info(result["output"])
        assert (estimate.frames, estimate.subtype) == (mixture.frames, mixture.subtype)


def test_a_voice_print_gives_the_same_result_as_its_recordings(
    wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path
):
    common = ["--model", tiny_model, "--device", "cpu"]
    recordings = [tiny_speech / "anna" / "anna-0.wav", tiny_speech / "anna" / "anna-1.wav"]
    ran = wesep("enroll", *recordings, "-o", tmp_path / "anna.voice", *common)
    assert ran.status == 0 and "4.5 s of 2 recording" in ran.out
    mixture = tiny_speech / "bert" / "bert-1.wav"
    wesep("extract", mixture, "--enroll", tmp_path / "anna.voice", "-o", tmp_path / "a.wav", *common)
    wesep("extract", mixture, *(w for r in recordings for w in ("--enroll", r)), "-o", tmp_path / "b.wav", *common)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav")[0], soundfile.read(tmp_path / "b.wav")[0])


def test_command_and_python_write_the_same_bytes(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    import wesep_py

    mixture, enrollment = tiny_speech / "bert" / "bert-1.wav", tiny_speech / "anna" / "anna-0.wav"
    common = ["--model", tiny_model, "--device", "cpu"]
    assert wesep("extract", mixture, "--enroll", enrollment, "-o", tmp_path / "cli.wav", *common).status == 0
    extractor = wesep_py.load(tiny_model, device="cpu")
    extractor.extract(mixture, extractor.enroll(enrollment)).save(tmp_path / "python.wav")
    assert (tmp_path / "cli.wav").read_bytes() == (tmp_path / "python.wav").read_bytes()
