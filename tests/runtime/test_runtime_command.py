"""`python -m wesep_py.runtime`, in this process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.inference.networks import noise
from tests.runtime.conftest import ExportedPair, spoken
from wesep_py import audio
from wesep_py.runtime.runtime_command import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    audio.write(tmp_path / "alice.wav", noise(16000), 16000)
    audio.write(tmp_path / "meeting.wav", spoken(20000, 2), 16000)
    return tmp_path


def test_a_voice_is_enrolled_and_extracted(pairs: dict[str, ExportedPair], folder: Path):
    model = ["--model", str(pairs["live"].folder)]
    files = {name: str(folder / name) for name in ("alice.wav", "alice.voice", "meeting.wav", "out.wav", "again.wav")}
    assert main(["enroll", files["alice.wav"], "-o", files["alice.voice"], *model]) == 0
    extract = ["extract", files["meeting.wav"], *model]
    assert main([*extract, "--enroll", files["alice.voice"], "-o", files["out.wav"]]) == 0
    assert main([*extract, "--enroll", files["alice.wav"], "-o", files["again.wav"]]) == 0
    first, second = (audio.read(files[name])[0] for name in ("out.wav", "again.wav"))
    assert first.shape == (2, 20000)
    np.testing.assert_array_equal(first, second)


def test_an_error_is_one_line_with_its_status(
    pairs: dict[str, ExportedPair], folder: Path, capsys: pytest.CaptureFixture[str]
):
    meeting = str(folder / "meeting.wav")
    enroll = ["--enroll", str(folder / "alice.wav")]
    assert main(["extract", meeting, *enroll, "-o", meeting, "--model", str(pairs["live"].folder)]) == 2
    assert main(["extract", meeting, *enroll, "-o", meeting, "--model", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)


def test_raw_samples_are_streamed(pairs: dict[str, ExportedPair], folder: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wesep_py.inference.live_stream.pcm_stream")
    samples = (spoken(8000)[0] * 30000).astype("<i2")
    (folder / "in.raw").write_bytes(samples.tobytes())
    with (folder / "in.raw").open("rb") as source, (folder / "out.raw").open("wb") as sink:
        monkeypatch.setattr("sys.stdin", os.fdopen(os.dup(source.fileno()), "rb"))
        monkeypatch.setattr("sys.stdout", os.fdopen(os.dup(sink.fileno()), "w"))
        arguments = ["--enroll", str(folder / "alice.wav"), "--model", str(pairs["live"].folder)]
        assert main(["stream", *arguments]) == 0
    result = np.frombuffer((folder / "out.raw").read_bytes(), "<i2")
    voice = pairs["live"].torch.enroll(folder / "alice.wav")
    stream = pairs["live"].torch.stream(voice)
    expected = np.concatenate([stream.process(samples) / 32768, stream.flush()])
    np.testing.assert_allclose(result / 32768, expected, atol=2e-4)
