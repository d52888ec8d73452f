"""`wesep enroll --list` and `wesep extract --enroll-like`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch

from tests.conftest import VOICES, make_voice
from tests.inference.networks import counting_extractor
from wesep_py.inference import Voice


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "mix.wav"
    soundfile.write(path, make_voice(*VOICES["anna"], 4.0, seed=1) + make_voice(*VOICES["bert"], 4.0, seed=2), 16000)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An extractor whose encoder hears two voices in everything."""
    from wesep_py import checkpoint

    network = counting_extractor()._network
    return checkpoint.save(tmp_path_factory.mktemp("model") / "two", network.config, network.state_dict())


def test_voices_are_listed_and_a_print_of_each_is_written(wesep, mixture: Path, model: Path, tmp_path: Path):
    common = ["--list", "--model", model, "--device", "cpu"]
    ran = wesep("enroll", mixture, "-o", tmp_path / "voices", *common)
    assert ran.status == 0 and ran.err == ""
    first, *voices = ran.out.splitlines()
    assert first == f"{mixture}: 2 voices" and "voice 2: probability 1.00, cosine " in voices[1]
    files = [tmp_path / "voices" / f"mix-{number}.voice" for number in (1, 2)]
    assert all(str(file) in line for file, line in zip(files, voices, strict=True))
    prints = [Voice.load(file).tensors["0.embedding"] for file in files]
    assert not torch.allclose(*prints)
    again = wesep("enroll", mixture, "-o", tmp_path / "voices", *common)
    assert again.status == 2 and "exists already" in again.message
    assert wesep("enroll", mixture, "-o", tmp_path / "anna.voice", *common).status == 0
    assert (tmp_path / "anna-2.voice").exists() and not (tmp_path / "anna.voice").exists()


def test_json_without_output_writes_no_file(
    wesep, mixture: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ran = wesep("enroll", mixture, "--list", "--json", "--model", model, "--device", "cpu")
    report = json.loads(ran.out)
    assert report["count"] == 2 and [voice["output"] for voice in report["voices"]] == [None, None]
    assert report["voices"][0]["cosines"][0] == 1.0 and list(tmp_path.iterdir()) == []


def test_several_voices_give_a_warning_unless_one_is_selected(wesep, mixture: Path, model: Path, tmp_path: Path):
    common = ["--model", model, "--device", "cpu"]
    assert wesep("enroll", mixture, "--list", "-o", tmp_path / "a.voice", *common).status == 0
    extract = ["extract", mixture, "--enroll", mixture, *common]
    ran = wesep(*extract, "-o", tmp_path / "plain.wav")
    assert ran.status == 0 and f"warning: 2 voices were found in {mixture}" in ran.err
    ran = wesep(*extract, "--enroll-like", tmp_path / "a-2.voice", "-o", tmp_path / "like.wav")
    assert ran.status == 0 and "voice 2 of 2 is taken (cosine to the print 1.00" in ran.err
    assert "voices were found" not in ran.err
    direct = wesep("extract", mixture, "--enroll", tmp_path / "a-2.voice", *common, "-o", tmp_path / "direct.wav")
    assert direct.status == 0
    plain, like, direct = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("plain", "like", "direct"))
    assert (like == direct).all() and not (like == plain).all()


def test_wrong_usage_is_a_one_line_error(wesep, mixture: Path, model: Path, tiny_model: Path, tmp_path: Path):
    ran = wesep("enroll", mixture, "--list", "--model", tiny_model, "--device", "cpu")
    assert ran.status == 2 and "finds one voice per recording" in ran.message
    ran = wesep("enroll", mixture, mixture, "--list", "--model", model, "--device", "cpu")
    assert ran.status == 2 and "--list needs one recording" in ran.message
    taken = tmp_path / "file"
    taken.touch()
    ran = wesep("enroll", mixture, "--list", "-o", taken, "--model", model, "--device", "cpu")
    assert ran.status == 2 and "is a file; name a folder for the voice prints" in ran.message
