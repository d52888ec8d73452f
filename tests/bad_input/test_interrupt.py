"""Ctrl-C in a batch extraction: written files stay whole, and one line says how to resume."""

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

from wesep_py.inference import Extractor


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_ctrl_c_leaves_whole_files_and_says_how_to_resume(tiny_model: Path, tiny_speech: Path, tmp_path: Path):
    mixtures, out = tmp_path / "mixtures", tmp_path / "out"
    mixtures.mkdir()
    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    for index in range(30):
        soundfile.write(mixtures / f"{index:02d}.wav", np.tile(voice, 6), rate)
    arguments = [
        *(
            sys.executable,
            "-m",
            "wesep_py.cli.main",
            "extract",
            str(mixtures),
            "-o",
            str(out),
            "--model",
            str(tiny_model),
        ),
        *("--enroll", str(tiny_speech / "anna" / "anna-1.wav"), "--device", "cpu"),
    ]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("0*.wav")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and "--skip-existing resumes" in lines[0], err
    written = list(out.iterdir())
    # The signal may come between a file's renaming and its being counted.
    assert 0 < len(written) < 30
    assert any(f"{count} of 30 results were written" in lines[0] for count in (len(written), len(written) - 1))
    assert all(soundfile.info(path).frames == 6 * len(voice) for path in written)
    done = subprocess.run([*arguments, "--skip-existing"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and len(done.stdout.split()) == 30 - len(written)
    assert len(list(out.iterdir())) == 30


def test_the_message_counts_the_written_files(
    wesep, tiny_model: Path, tiny_speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []
    extract = Extractor.extract

    def interrupted(self, mixture, voice, **options):
        calls.append(mixture)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return extract(self, mixture, voice, **options)

    monkeypatch.setattr(Extractor, "extract", interrupted)
    arguments = ["--enroll", tiny_speech / "bert" / "bert-0.wav", "--model", tiny_model, "-o", tmp_path / "out"]
    ran = wesep("extract", tiny_speech / "anna", *arguments)
    assert ran.status == 130
    assert "interrupted at" in ran.message and "anna-2.wav; 2 of 4 results were written before it" in ran.message
    assert len(list((tmp_path / "out").iterdir())) == 2
