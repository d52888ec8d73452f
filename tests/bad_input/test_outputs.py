"""Outputs that cannot be written are reported before the work, or leave nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py import audio


@pytest.fixture
def recording(tiny_speech: Path) -> Path:
    return tiny_speech / "anna" / "anna-0.wav"


@pytest.fixture
def arguments(recording: Path, tiny_model: Path) -> list[str]:
    return ["extract", str(recording), "--enroll", str(recording), "--model", str(tiny_model), "--device", "cpu", "-o"]


def test_an_existing_output_is_refused(wesep, arguments: list[str], tmp_path: Path):
    (tmp_path / "out.wav").write_bytes(b"precious")
    ran = wesep(*arguments, tmp_path / "out.wav")
    assert ran.status == 2
    assert "out.wav: exists already" in ran.message and "--overwrite" in ran.message
    assert (tmp_path / "out.wav").read_bytes() == b"precious"


def test_an_output_in_a_missing_folder_is_refused(wesep, arguments: list[str], tmp_path: Path):
    ran = wesep(*arguments, tmp_path / "no" / "out.wav")
    assert ran.status == 2 and f"{tmp_path / 'no'} does not exist; create it first" in ran.message


def test_an_output_of_an_unknown_format_is_refused(wesep, arguments: list[str], tmp_path: Path):
    ran = wesep(*arguments, tmp_path / "out.docx")
    assert ran.status == 2 and "out.docx" in ran.message and ".flac" in ran.message
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_checked_before_the_model_is_loaded(wesep, recording: Path, tmp_path: Path):
    (tmp_path / "out.wav").touch()
    ran = wesep("extract", recording, "--enroll", recording, "--model", "no-such-model", "-o", tmp_path / "out.wav")
    assert "exists already" in ran.message


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
from wesep_py.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="the limit on file size is POSIX")
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_a_full_disk_keeps_the_old_output(arguments: list[str], tmp_path: Path, suffix: str):
    # A file is limited to 50 kB here, which looks like a full disk to the program.
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(16000 * 30), 16000)
    arguments[1] = str(tmp_path / "long.wav")
    output = tmp_path / "out" / f"result{suffix}"
    output.parent.mkdir()
    output.write_bytes(b"precious")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments, str(output), "--overwrite"], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1 and str(output) in done.stderr and "Traceback" not in done.stderr
    assert output.read_bytes() == b"precious"
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.skipif(os.name != "posix", reason="the limit on file size is POSIX")
def test_a_full_disk_leaves_no_voice_print(recording: Path, tiny_model: Path, tmp_path: Path):
    done = subprocess.run(
        [
            *(sys.executable, "-c", LIMITED, "enroll", str(recording), "-o", str(tmp_path / "a.voice")),
            *("--model", str(tiny_model), "--device", "cpu"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "a.voice: writing failed" in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_results_that_cannot_be_printed_are_an_error(arguments: list[str], tmp_path: Path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wesep_py.cli.main", *arguments, str(tmp_path / "out.wav"), "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode != 0 and "No space left" in done.stderr
    assert soundfile.info(tmp_path / "out.wav").frames > 0


@pytest.mark.parametrize("block", ["2", "60"])
@pytest.mark.parametrize("full", ["o.wav", "r.wav"])
def test_outputs_are_written_together_or_not_at_all(
    wesep, arguments: list[str], tmp_path: Path, monkeypatch, block: str, full: str
):
    """The timeline fits on the disk, but the voice or the residual does not: then none is written."""
    write = audio.AudioWriter.write

    def until_full(self, waveform) -> None:
        if self.path.name == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, waveform)

    output = tmp_path / "out"
    output.mkdir()
    places = [output / "o.wav", "--residual", output / "r.wav", "--timeline", output / "t.json", "--block", block]
    with monkeypatch.context() as patch:
        patch.setattr(audio.AudioWriter, "write", until_full)
        ran = wesep(*arguments, *places)
        assert ran.status == 1 and f"{full}: writing failed (No space left on device)" in ran.message
        assert [path for path in output.iterdir() if not path.name.startswith(".o.wav.partial")] == []
        (output / "t.json").write_text("precious")
        assert "t.json: exists already" in wesep(*arguments, *places).message
        assert wesep(*arguments, *places, "--overwrite").status == 1
        assert (output / "t.json").read_text() == "precious"
        (output / "t.json").unlink()
    assert wesep(*arguments, *places).status == 0
    assert sorted(path.name for path in output.iterdir()) == ["o.wav", "r.wav", "t.json"]


@pytest.mark.parametrize("kind", ["hard link", "symbolic link", "dots"])
@pytest.mark.parametrize("place", ["-o", "--residual", "--timeline"])
def test_an_output_that_is_an_input_is_refused(
    wesep, arguments: list[str], recording: Path, tmp_path: Path, kind: str, place: str
):
    (tmp_path / "folder").mkdir()
    mixture = tmp_path / "mixture.wav"
    mixture.write_bytes(recording.read_bytes())
    content = mixture.read_bytes()
    suffix = ".rttm" if place == "--timeline" else ".wav"
    other = tmp_path / f"other{suffix}"
    if kind == "hard link":
        os.link(mixture, other)
    elif kind == "symbolic link":
        other.symlink_to(mixture)
    elif place == "--timeline":
        pytest.skip("a recording is not called .rttm")
    else:
        other = tmp_path / "folder" / ".." / mixture.name
    arguments[1] = str(mixture)
    places = [*arguments, other] if place == "-o" else [*arguments, tmp_path / "out.wav", place, other]
    ran = wesep(*places, "--overwrite")
    assert ran.status == 2 and "is the recording" in ran.message and "name another output" in ran.message
    assert mixture.read_bytes() == content and not (tmp_path / "out.wav").exists()


def test_a_timeline_with_the_path_of_a_result_is_refused(wesep, arguments: list[str], tmp_path: Path):
    ran = wesep(*arguments, tmp_path / "a.wav", "--timeline", tmp_path / "a.wav")
    assert ran.status == 2 and not (tmp_path / "a.wav").exists()


def test_a_voice_print_does_not_overwrite_its_recording(wesep, recording: Path, tiny_model: Path, tmp_path: Path):
    (tmp_path / "a.voice").symlink_to(recording)
    content = recording.read_bytes()
    ran = wesep("enroll", recording, "-o", tmp_path / "a.voice", "--model", tiny_model, "--overwrite")
    assert ran.status == 2 and "is a recording, which is read" in ran.message and recording.read_bytes() == content
