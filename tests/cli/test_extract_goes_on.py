"""`wesep extract` that was stopped or killed: the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_killed_extraction_goes_on(wesep, tiny_model, tiny_speech, tmp_path):
    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(voice, 14), rate, subtype="PCM_16")
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    arguments = ["extract", tmp_path / "long.wav", *enroll, "--block", "2", "--threads", "1"]
    command = [sys.executable, "-m", "wesep_py.cli.main", *map(str, arguments), "-o", str(tmp_path / "out.wav")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial, deadline = tmp_path / ".out.wav.partial", time.monotonic() + 120
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if partial.exists() and partial.stat().st_size > 300_000:
                break
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert partial.exists() and not (tmp_path / "out.wav").exists()
    before = partial.stat().st_size
    ran = wesep(*arguments, "-o", tmp_path / "out.wav", "-v")
    assert ran.status == 0, ran.err
    assert wesep(*arguments, "-o", tmp_path / "whole.wav").status == 0
    assert (tmp_path / "out.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert before > 0 and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_ctrl_c_in_a_long_extraction_says_how_to_go_on(wesep, tiny_model, tiny_speech, tmp_path, monkeypatch):
    from wesep_py.inference.recording.partial import Partial

    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(voice, 4), rate)
    append, calls = Partial.append, []

    def interrupted(self, record, state=None):
        append(self, record, state)
        calls.append(record)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Partial, "append", interrupted)
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    arguments = ["extract", tmp_path / "long.wav", *enroll, "--block", "2", "-o", tmp_path / "out.wav"]
    ran = wesep(*arguments)
    assert ran.status == 130 and "is kept); 0 of 1 results" in ran.message and "the same command goes on" in ran.message
    ran = wesep(*arguments)
    assert ran.status == 0 and 3 < len(calls) < 14
    assert soundfile.info(tmp_path / "out.wav").frames == 4 * len(voice)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_killed_while_it_writes_it_goes_on(wesep, tiny_model, tiny_speech, tmp_path):
    """All blocks are done, the timeline and the rest are there, and the process dies."""
    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(voice, 4), rate, subtype="PCM_16")
    places = ["-o", tmp_path / "o.wav", "--residual", tmp_path / "r.wav", "--timeline", tmp_path / "t.rttm"]
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    arguments = ["extract", tmp_path / "long.wav", *enroll, *places, "--block", "2"]
    dies = (
        "import os, signal, shutil\nimport wesep_py.inference.recording.long as long\n"
        f"def killed(*args): shutil.copy({str(tmp_path / 'long.wav')!r}, {str(tmp_path / 'r.wav')!r}); "
        "os.kill(os.getpid(), signal.SIGKILL)\n"
        "long.write_voices = killed\nfrom wesep_py.cli.main import main\nmain()\n"
    )
    ran = subprocess.run([sys.executable, "-c", dies, *map(str, arguments)], capture_output=True, timeout=120)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert (tmp_path / "t.rttm").exists() and (tmp_path / "r.wav").exists() and not (tmp_path / "o.wav").exists()
    kept = (tmp_path / "t.rttm").read_text()
    ran = wesep(*arguments)
    assert ran.status == 0, ran.err
    parts = [soundfile.read(tmp_path / name)[0] for name in ("o.wav", "r.wav", "long.wav")]
    np.testing.assert_array_equal(parts[0] + parts[1], parts[2])
    assert (tmp_path / "t.rttm").read_text() == kept
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert "exists already" in wesep(*arguments).message


def test_a_timeline_of_which_some_voices_are_done(wesep, tiny_model, tiny_speech, tmp_path):
    mixture = tiny_speech / "carl" / "carl-0.wav"
    voices = [f"{name}={tiny_speech}/{name}/{name}-1.wav" for name in ("anna", "bert")]
    common = ["extract", mixture, "-o", tmp_path / "out", "--model", tiny_model, "--device", "cpu"]
    assert wesep(*common, "--enroll", voices[0], "--enroll", voices[1]).status == 0
    (tmp_path / "out" / "carl-0_bert.wav").unlink()
    both = [*common, "--enroll", voices[0], "--enroll", voices[1], "--skip-existing"]
    ran = wesep(*both, "--timeline", tmp_path / "t.json")
    assert ran.status == 2 and "anna is written already and bert is not; a timeline needs both" in ran.message
    assert wesep(*both).status == 0
    ran = wesep(*both, "--timeline", tmp_path / "t.json")
    assert ran.status == 0 and not (tmp_path / "t.json").exists()
