"""`wesep extract` that was stopped or killed: the same command resumes it."""

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
def test_a_killed_extraction_resumes(wesep, tiny_model, tiny_speech, tmp_path):
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


def test_ctrl_c_in_a_long_extraction_says_how_to_resume(wesep, tiny_model, tiny_speech, tmp_path, monkeypatch):
    from wesep_py.inference.long_recordings.block_store import BlockStore

    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(voice, 4), rate)
    append, calls = BlockStore.append, []

    def interrupted(self, record, state=None):
        append(self, record, state)
        calls.append(record)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(BlockStore, "append", interrupted)
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    arguments = ["extract", tmp_path / "long.wav", *enroll, "--block", "2", "-o", tmp_path / "out.wav"]
    ran = wesep(*arguments)
    assert (
        ran.status == 130 and "is saved); 0 of 1 results" in ran.message and "the same command resumes" in ran.message
    )
    ran = wesep(*arguments)
    assert ran.status == 0 and 3 < len(calls) < 14
    assert soundfile.info(tmp_path / "out.wav").frames == 4 * len(voice)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_an_extraction_killed_while_writing_resumes(wesep, tiny_model, tiny_speech, tmp_path):
    """All blocks are extracted, timeline and residual are written, and the process is killed."""
    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(voice, 4), rate, subtype="PCM_16")
    places = ["-o", tmp_path / "o.wav", "--residual", tmp_path / "r.wav", "--timeline", tmp_path / "t.rttm"]
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    arguments = ["extract", tmp_path / "long.wav", *enroll, *places, "--block", "2"]
    dies = (
        "import os, signal, shutil\nimport wesep_py.inference.long_files as long\n"
        f"def killed(*args): shutil.copy({str(tmp_path / 'long.wav')!r}, {str(tmp_path / 'r.wav')!r}); "
        "os.kill(os.getpid(), signal.SIGKILL)\n"
        "long.write_voices = killed\nfrom wesep_py.cli.main import main\nmain()\n"
    )
    ran = subprocess.run([sys.executable, "-c", dies, *map(str, arguments)], capture_output=True, timeout=120)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert (tmp_path / "t.rttm").exists() and (tmp_path / "r.wav").exists() and not (tmp_path / "o.wav").exists()
    timeline = (tmp_path / "t.rttm").read_text()
    ran = wesep(*arguments)
    assert ran.status == 0, ran.err
    parts = [soundfile.read(tmp_path / name)[0] for name in ("o.wav", "r.wav", "long.wav")]
    np.testing.assert_array_equal(parts[0] + parts[1], parts[2])
    assert (tmp_path / "t.rttm").read_text() == timeline
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert "exists already" in wesep(*arguments).message


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_segments_of_a_killed_extraction_are_completed(wesep, tiny_model, tiny_speech, tmp_path):
    """The process is killed behind the first segment: the list and one file are there, the voice is not."""
    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    silence = np.zeros(rate)
    soundfile.write(tmp_path / "long.wav", np.concatenate([voice, silence, voice, silence, voice]), rate)
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    arguments = ["extract", tmp_path / "long.wav", *enroll, "--block", "2"]
    parts = [*arguments, "-o", tmp_path / "o.wav", "--segments", tmp_path / "parts"]
    dies = (
        "import os, signal\nfrom pathlib import Path\nreplace = Path.replace\n"
        "def killed(path, target):\n    replace(path, target)\n"
        "    if target.parent.name == 'parts' and target.suffix == '.wav': os.kill(os.getpid(), signal.SIGKILL)\n"
        "Path.replace = killed\nfrom wesep_py.cli.main import main\nmain()\n"
    )
    ran = subprocess.run([sys.executable, "-c", dies, *map(str, parts)], capture_output=True, timeout=120)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    before = {path.name for path in (tmp_path / "parts").iterdir() if not path.name.startswith(".")}
    assert "segments.csv" in before and len(before) == 2 and not (tmp_path / "o.wav").exists()
    ran = wesep(*parts)
    assert ran.status == 0, ran.err
    assert wesep(*arguments, "-o", tmp_path / "whole.wav", "--segments", tmp_path / "whole_parts").status == 0
    files, whole = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("parts", "whole_parts"))
    assert files == whole and before < set(files) and len(files) >= 3
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_timeline_needs_all_its_targets(wesep, tiny_model, tiny_speech, tmp_path):
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


def start_and_kill(tmp_path, tiny_speech, tiny_model) -> list:
    """Start a long extraction into `out/m.wav`, kill it when its timeline is written, and return its arguments."""
    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    (tmp_path / "long").mkdir()
    (tmp_path / "out").mkdir()
    soundfile.write(tmp_path / "long" / "m.wav", np.tile(voice, 2), rate, subtype="PCM_16")
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    places = ["-o", tmp_path / "out", "--timeline", tmp_path / "out"]
    arguments = ["extract", tmp_path / "long", *enroll, *places, "--block", "2"]
    child = os.fork()
    if child == 0:
        try:
            from wesep_py.cli.main import main
            from wesep_py.inference import long_files as long

            long.write_voices = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
            main([str(word) for word in arguments])
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "out" / "m.rttm").exists() and (tmp_path / "out" / ".m.wav.partial.json").exists()
    return arguments


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_recordings_of_the_same_name_do_not_replace_results(wesep, tiny_model, tiny_speech, tmp_path):
    killed = start_and_kill(tmp_path, tiny_speech, tiny_model)
    out = tmp_path / "out" / "m.wav"
    for folder, voice in (("first", "carl"), ("second", "dora")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.wav").write_bytes((tiny_speech / voice / f"{voice}-0.wav").read_bytes())
    short = ["extract", tmp_path / "first", *killed[2:8], "-o", tmp_path / "out"]
    assert wesep(*short).status == 0
    finished = out.read_bytes()
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]
    for arguments in (["extract", tmp_path / "second", *short[2:]], killed):
        ran = wesep(*arguments)
        assert ran.status != 0 and "exists already" in ran.err
        assert out.read_bytes() == finished


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_another_recording_does_not_use_files_of_a_killed_run(wesep, tiny_model, tiny_speech, tmp_path):
    killed = start_and_kill(tmp_path, tiny_speech, tiny_model)
    timeline = (tmp_path / "out" / "m.rttm").read_bytes()
    (tmp_path / "long").rename(tmp_path / "before")
    (tmp_path / "long").mkdir()
    voice, rate = soundfile.read(tiny_speech / "dora" / "dora-3.wav")
    soundfile.write(tmp_path / "long" / "m.wav", np.tile(voice, 2), rate, subtype="PCM_16")
    ran = wesep(*killed)
    assert ran.status != 0 and "m.rttm: exists already" in ran.err
    assert (tmp_path / "out" / "m.rttm").read_bytes() == timeline and not (tmp_path / "out" / "m.wav").exists()
    (tmp_path / "long" / "m.wav").unlink()
    (tmp_path / "before" / "m.wav").rename(tmp_path / "long" / "m.wav")
    assert wesep(*killed).status == 0  # the killed one resumes
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_foreign_files_with_names_of_partial_files_stay(wesep, tiny_model, tiny_speech, tmp_path):
    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    soundfile.write(tmp_path / "long.wav", voice, rate)
    (tmp_path / "precious").write_bytes(b"precious")
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    arguments = ["extract", tmp_path / "long.wav", *enroll, "--block", "2", "-o", tmp_path / "o.wav"]
    for name in (".o.wav.partial", ".o.wav.partial.json", ".o.wav.partial.state0"):
        for is_link in (True, False):
            path = tmp_path / name
            path.symlink_to("precious") if is_link else path.write_bytes(b"precious")
            ran = wesep(*arguments)
            assert ran.status == 2 and name in ran.message and "move it away" in ran.message
            assert path.read_bytes() == (tmp_path / "precious").read_bytes() == b"precious"
            path.unlink()
            assert sorted(path.name for path in tmp_path.iterdir()) == ["long.wav", "precious"]
    (tmp_path / ".o.wav.lock").symlink_to("precious")
    assert wesep(*arguments).status == 0 and (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("length", [249, 254, 255])
def test_outputs_may_have_the_longest_names(wesep, tiny_model, tiny_speech, tmp_path, length: int):
    voice, rate = soundfile.read(tiny_speech / "bert" / "bert-3.wav")
    soundfile.write(tmp_path / "long.wav", voice, rate)
    enroll = ["--enroll", tiny_speech / "anna" / "anna-1.wav", "--model", tiny_model, "--device", "cpu"]
    for more in ([], ["--block", "2"]):
        out = tmp_path / "out"
        out.mkdir()
        places = [out / ("x" * (length - 4) + ".wav"), out / ("x" * (length - 5) + ".json")]
        ran = wesep("extract", tmp_path / "long.wav", *enroll, *more, "-o", places[0], "--timeline", places[1])
        assert ran.status == 0, ran.err
        assert sorted(out.iterdir()) == sorted(places)
        out.rename(tmp_path / f"done{len(more)}")
    assert (
        "a name of 256 bytes; 255 are allowed"
        in wesep("extract", tmp_path / "long.wav", *enroll, "-o", tmp_path / ("x" * 252 + ".wav")).message
    )
