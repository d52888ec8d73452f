"""`wesep doctor`: its report on correct and on wrong installations."""

from __future__ import annotations

import json
from importlib import metadata

import pytest
import torch

from wesep_py.cli import doctor
from wesep_py.cli.doctor import check_command, check_package, check_pair, check_python
from wesep_py.common.errors import InputError
from wesep_py.inference.live_stream import sound_card
from wesep_py.inference.live_stream.sound_card import SoundDevice


@pytest.mark.parametrize(
    ("torch_version", "torchaudio_version", "status", "advice"),
    [
        ("2.11.0+cu130", "2.11.0+cu130", "ok", ""),
        ("2.11.0", "2.11.1", "ok", ""),
        ("2.11.0", "2.10.0", "wrong", "torchaudio==2.11.0"),
        ("2.11.0+cpu", "2.11.0+cu130", "wrong", "one build"),
        ("2.11.0", "", "wrong", "pip install -c constraints.txt torch torchaudio"),
    ],
)
def test_versions_of_torch_and_torchaudio_must_match(torch_version, torchaudio_version, status, advice):
    finding = check_pair(torch_version, torchaudio_version)
    assert finding.status == status and advice in finding.advice and bool(finding.advice) == bool(advice)


def test_an_old_python_is_wrong():
    assert check_python((3, 9)).status == "wrong"
    assert check_python((3, 10)).status == check_python((3, 14)).status == "ok"


def test_a_missing_package_is_reported_with_advice():
    assert check_package("numpy", "wrong", "x").found == metadata.version("numpy")
    finding = check_package("no-such-package-here", "note", "pip install it")
    assert (finding.status, finding.found, finding.advice) == ("note", "not installed", "pip install it")


def test_another_owner_of_the_command_is_reported():
    finding = check_command("/env/bin/wesep", "/env", ["wesep", "wesep-py"])
    assert finding.status == "wrong" and "claimed by wesep" in finding.found and "python -m" in finding.advice
    assert check_command("/env/bin/wesep", "/env", ["wesep-py"]).status == "ok"
    assert "of another Python" in check_command("/other/bin/wesep", "/env", ["wesep-py"]).found
    assert check_command(None, "/env", ["wesep-py"]).status == "note"


def test_this_installation_has_no_problem(wesep):
    ran = wesep("doctor")
    assert ran.status == 0, ran.out
    assert "torch and torchaudio" in ran.out and ": a pair" in ran.out and "\n0 wrong" in ran.out
    findings = json.loads(wesep("doctor", "--json").out)
    assert {finding["status"] for finding in findings} <= {"ok", "note"}
    assert next(f["found"] for f in findings if f["subject"] == "torch") == metadata.version("torch")


def test_a_check_that_fails_does_not_stop_the_others(wesep, monkeypatch: pytest.MonkeyPatch):
    def broken() -> doctor.Finding:
        raise OSError("undefined symbol: _ZN3c10")

    monkeypatch.setattr(doctor, "check_torchaudio_works", broken)
    ran = wesep("doctor")
    assert ran.status == 1
    assert "WRONG torchaudio computes" in ran.out and "undefined symbol" in ran.out and "1 wrong" in ran.out


@pytest.mark.processor
def test_half_precision_support_is_reported():
    from wesep_py.common.half_precision import unsupported

    support = doctor.check_half_precision().found
    assert ("float32" in support) == (unsupported("cpu") is not None) or "cuda" in support


def test_instruction_sets_and_their_limits_are_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    finding = doctor.check_instruction_sets()
    assert finding.status == "ok" and "; ONEDNN_MAX_CPU_ISA=AVX2" in finding.found
    assert torch.backends.cpu.get_cpu_capability() in finding.found


def test_more_threads_than_processors_give_a_note(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    finding = doctor.check_threads()
    assert finding.status == "note" and "OMP_NUM_THREADS=" in finding.advice
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert doctor.check_threads().status == "ok"


def test_sound_devices_are_reported(monkeypatch: pytest.MonkeyPatch):
    devices = {
        "input": SoundDevice(0, "USB headset", 1, 2, 48000),
        "output": SoundDevice(1, "HDMI", 0, 2, 48000),
    }
    monkeypatch.setattr(sound_card, "import_sounddevice", lambda: None)
    monkeypatch.setattr(sound_card, "find_device", lambda module, name, kind: devices[kind])
    finding = doctor.check_sound_devices()
    assert (finding.status, finding.found) == ("ok", "microphone USB headset, loudspeaker HDMI")

    def no_device(module, name, kind):
        raise InputError("there is no microphone; connect one")

    monkeypatch.setattr(sound_card, "find_device", no_device)
    finding = doctor.check_sound_devices()
    assert (finding.status, finding.advice) == ("note", "there is no microphone; connect one")
