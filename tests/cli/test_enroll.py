"""`wesep enroll`: the report, the voice print, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import VOICES, make_voice
from wesep_py.inference import Voice


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """anna.wav of 5 s, loud.wav of the same voice clipped, short.wav of 0.7 s."""
    folder = tmp_path_factory.mktemp("recordings")
    voice = make_voice(*VOICES["anna"], 5.0, seed=1)
    soundfile.write(folder / "anna.wav", voice, 16000)
    soundfile.write(folder / "loud.wav", np.clip(8 * make_voice(*VOICES["anna"], 4.0, seed=2), -1, 1), 16000)
    soundfile.write(folder / "short.wav", voice[:11200], 16000)
    return folder


@pytest.fixture(scope="module")
def speaker_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small model with a speaker encoder."""
    from wesep_py import checkpoint
    from wesep_py.network.extraction_network import build_network

    torch.manual_seed(0)
    network = build_network(
        {
            "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
            "speaker": {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8}},
            "cues": [{"name": "embedding"}],
        }
    )
    return checkpoint.save(tmp_path_factory.mktemp("speaker") / "model", network.config, network.state_dict())


def test_report_is_printed_and_voice_print_written(wesep, recordings: Path, speaker_model: Path, tmp_path: Path):
    files = [recordings / "anna.wav", recordings / "loud.wav"]
    ran = wesep("enroll", *files, "-o", tmp_path / "anna.voice", "--model", speaker_model, "--device", "cpu")
    assert ran.status == 0 and ran.err == ""
    lines = ran.out.splitlines()
    assert lines[0].split() == ["recording", "speech", "SNR", "clipped", "coherence", "second", "voice", "weight"]
    assert "of 5.0 s" in lines[1] and "of 4.0 s" in lines[2] and lines[3].startswith("the voice")
    assert any(line.startswith("warning: ") and f"{files[1]} is clipped" in line for line in lines)
    assert "9.0 s of 2 recording(s)" in lines[-1]
    quality = Voice.load(tmp_path / "anna.voice").quality
    assert [recording.name for recording in quality.recordings] == [str(file) for file in files]
    assert f"{quality.speech_s:.1f} of 9.0 s" in lines[3]


def test_json_report(wesep, recordings: Path, tiny_model: Path):
    ran = wesep("enroll", recordings / "anna.wav", "--json", "--model", tiny_model, "--device", "cpu")
    report = json.loads(ran.out)
    assert ran.status == 0 and report["output"] is None and report["vad"] == "energy"
    assert report["untold"] == "the model has no speaker encoder" and report["second_voice"] is None
    assert report["recordings"][0]["duration_s"] == 5.0 and 2.0 < report["speech_s"] <= 5.0
    assert report["warnings"] == []


def test_without_an_output_nothing_is_written(wesep, recordings: Path, tiny_model: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = wesep("enroll", recordings / "anna.wav", "--model", tiny_model, "--device", "cpu")
    assert ran.status == 0 and "cannot be detected: the model has no speaker encoder" in ran.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("output", "expected"), [("a", "a.voice"), ("a.wav", "a.voice"), (".", "NAME.voice")])
def test_a_voice_print_needs_its_suffix(
    wesep, recordings: Path, tiny_model: Path, tmp_path, monkeypatch, output: str, expected: str
):
    monkeypatch.chdir(tmp_path)
    ran = wesep("enroll", recordings / "anna.wav", "-o", output, "--model", tiny_model, "--device", "cpu")
    assert ran.status == 2 and f"{output}: the name of a voice print ends in .voice; name it {expected}" in ran.message
    assert list(tmp_path.iterdir()) == []


def test_less_than_a_second_of_speech_is_refused(wesep, recordings: Path, tiny_model: Path, tmp_path: Path):
    common = ["-o", tmp_path / "a.voice", "--model", tiny_model, "--device", "cpu"]
    ran = wesep("enroll", recordings / "short.wav", *common)
    assert ran.status == 2 and "short.wav: 0." in ran.message and "at least 1 s" in ran.message
    assert not (tmp_path / "a.voice").exists()
    assert wesep("enroll", recordings / "short.wav", recordings / "anna.wav", *common).status == 0


def test_unknown_or_missing_vad_is_refused(wesep, recordings: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    common = ["enroll", recordings / "anna.wav", "--model", tiny_model, "--device", "cpu"]
    ran = wesep(*common, "--vad", "webrtc")
    assert ran.status == 2 and "energy or silero is allowed" in ran.message
    monkeypatch.setitem(__import__("sys").modules, "silero_vad", None)
    ran = wesep(*common, "--vad", "silero")
    assert ran.status == 2 and "silero-vad, which is not installed" in ran.message


def test_extract_warns_of_a_clipped_enrollment(wesep, recordings: Path, tiny_model: Path, tmp_path: Path, caplog):
    common = ["--enroll", recordings / "loud.wav", "--model", tiny_model, "--device", "cpu"]
    ran = wesep("extract", recordings / "anna.wav", "-o", tmp_path / "a.wav", *common)
    assert ran.status == 0 and "is clipped" in ran.message and ran.message.startswith("warning: ")
    assert ran.out.strip() == str(tmp_path / "a.wav")
    with caplog.at_level("INFO"):
        wesep("extract", recordings / "anna.wav", "-o", tmp_path / "b.wav", "-v", *common)
    assert "the enrollment of loud" in caplog.text and "second voice" in caplog.text
    clean = wesep(
        "extract", recordings / "loud.wav", "--enroll", recordings / "anna.wav", *common[2:], "-o", tmp_path / "c.wav"
    )
    assert clean.status == 0 and clean.err == ""


def test_enroll_max_selects_the_part_with_most_speech(
    wesep, recordings: Path, tiny_model: Path, tmp_path: Path, caplog
):
    common = ["--model", tiny_model, "--device", "cpu", "--enroll-max", "2"]
    ran = wesep("enroll", recordings / "anna.wav", "-o", tmp_path / "a.voice", *common)
    assert ran.status == 0 and "2.0 s of 1 recording(s)" in ran.out
    assert "anna.wav: the 2.0 s of 5.0 s with the most speech are enrolled" in caplog.text
    assert Voice.load(tmp_path / "a.voice").enrolled_s == 2.0
    for name, enrollment in (("b", recordings / "anna.wav"), ("c", tmp_path / "a.voice")):
        assert (
            wesep(
                "extract", recordings / "loud.wav", "--enroll", enrollment, "-o", tmp_path / f"{name}.wav", *common
            ).status
            == 0
        )
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "c.wav").read_bytes()
    ran = wesep("enroll", recordings / "anna.wav", *common[:-1], "0.5")
    assert ran.status == 2 and "--enroll-max" in ran.err
