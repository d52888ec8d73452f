"""Files appear whole or not at all, none is overwritten unless requested, batches continue, killed runs resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wesep_py.common.errors import OutputExistsError, WesepError
from wesep_py.common.files import atomic_path
from wesep_py.inference import Result


def test_the_old_file_stays_when_writing_fails(tmp_path: Path):
    target = tmp_path / "out.wav"
    target.write_bytes(b"what was there")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half of")
            assert target.read_bytes() == b"what was there"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert target.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [target]


def test_an_output_is_overwritten_only_on_request(tmp_path: Path):
    result = Result(np.zeros((1, 100), np.float32), 16000)
    target = tmp_path / "out.wav"
    target.write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        result.save(target)
    assert target.read_bytes() == b"precious"
    result.save(target, overwrite=True)
    assert soundfile.info(target).frames == 100


@pytest.mark.parametrize("command", ["extract", "enroll"])
def test_commands_overwrite_only_on_request(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path, command: str):
    target = tmp_path / ("out.wav" if command == "extract" else "out.voice")
    target.write_bytes(b"precious")
    recording = tiny_speech / "anna" / "anna-0.wav"
    arguments = [command, recording, "-o", target, "--model", tiny_model, "--device", "cpu"]
    if command == "extract":
        arguments += ["--enroll", recording]
    ran = wesep(*arguments)
    assert ran.status == 2 and "exists already" in ran.message
    assert target.read_bytes() == b"precious"
    assert wesep(*arguments, "--overwrite").status == 0
    assert target.stat().st_size > 1000


def test_a_batch_continues_and_names_every_bad_file(wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    mixtures = tmp_path / "mixtures"
    mixtures.mkdir()
    good = (tiny_speech / "bert" / "bert-0.wav").read_bytes()
    for name, content in {"a": good, "b": b"text", "c": good, "d": good[:30], "e": good}.items():
        (mixtures / f"{name}.wav").write_bytes(content)
    out = tmp_path / "out"
    enrollment = tiny_speech / "anna" / "anna-1.wav"
    ran = wesep("extract", mixtures, "--enroll", enrollment, "-o", out, "--model", tiny_model, "--device", "cpu")
    assert ran.status == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.wav", "c.wav", "e.wav"]
    assert [Path(line).name for line in ran.out.split()] == ["a.wav", "c.wav", "e.wav"]
    named = [line for line in ran.err.splitlines() if line.startswith("failed: ")]
    assert len(named) == 2 and "b.wav" in named[0] and "d.wav" in named[1]
    assert "2 of 5" in ran.err


def test_a_killed_batch_leaves_whole_files_and_resumes(tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    mixtures, out = tmp_path / "mixtures", tmp_path / "out"
    mixtures.mkdir()
    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    for index in range(12):
        soundfile.write(mixtures / f"{index:02d}.wav", np.tile(voice, 4), rate)
    arguments = [
        *(sys.executable, "-m", "wesep_py.cli.extract", str(mixtures), "-o", str(out)),
        *("--enroll", str(tiny_speech / "anna" / "anna-1.wav"), "--model", str(tiny_model), "--device", "cpu"),
        "--skip-existing",
    ]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob("0*.wav")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("[0-9]*.wav")}
    assert 0 < len(finished) < 12
    assert all(soundfile.info(path).frames == 4 * len(voice) for path in finished)
    subprocess.run(arguments, check=True, capture_output=True, timeout=60)
    assert len(list(out.glob("[0-9]*.wav"))) == 12
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.skipif(os.name != "posix", reason="the limit on file size is POSIX")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path):
    import resource

    target = tmp_path / "out.wav"
    target.write_bytes(b"precious")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(WesepError, match=r"out\.wav"):
            Result(np.ones((1, 100_000), np.float32) / 2, 16000).save(target, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]
