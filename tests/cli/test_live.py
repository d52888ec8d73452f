"""`wesep live` with a stand-in for the sound card."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.inference.networks import BSRNN
from tests.inference.sound_devices import SoundDevices
from wesep_py.inference.live_stream import live_session

RECORDED = ["microphone.wav", "voice.wav"]


@pytest.fixture(scope="module")
def live_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from wesep_py import checkpoint
    from wesep_py.network.extraction_network import build_network

    torch.manual_seed(0)
    backbone = {**BSRNN, "live": True, "norm": "frame"}
    network = build_network({"backbone": backbone, "cues": [{"name": "tf_map"}], "live_presence": {}})
    return checkpoint.save(tmp_path_factory.mktemp("live") / "model", network.config, network.state_dict())


@pytest.fixture
def live(wesep, live_model: Path, tiny_speech: Path, monkeypatch: pytest.MonkeyPatch):
    """Run `wesep live` with a sound card."""

    def run(sound: SoundDevices, *arguments: object):
        monkeypatch.setitem(sys.modules, "sounddevice", sound)
        enrollment = tiny_speech / "anna" / "anna-3.wav"
        return wesep("live", "--enroll", enrollment, "--model", live_model, "--device", "cpu", *arguments)

    return run


def lines(ran) -> list[str]:
    assert "Traceback" not in ran.err and ran.out == ""
    return [line for line in ran.err.splitlines() if not line.startswith("warning: there are only")]


def recorded(folder: Path) -> list[np.ndarray]:
    assert sorted(path.name for path in folder.iterdir()) == RECORDED
    return [soundfile.read(folder / name, dtype="float32", always_2d=True)[0] for name in RECORDED]


def test_a_session_records_both_sides_and_shows_its_status(live, tiny_speech: Path, tmp_path: Path):
    speech = soundfile.read(tiny_speech / "bert" / "bert-0.wav", dtype="float32")[0][:, None]
    ran = live(SoundDevices(signal=speech), "--duration", 0.5, "--record", tmp_path / "talk", "--block-ms", 20)
    begin, status, files = lines(ran)
    assert ran.status == 0
    assert begin == "Headset → anna-3 → Headset, 16000 Hz; Ctrl-C ends it"
    assert status.startswith("0:00  in ") and "  latency 32 + 40 + 30 = 102 ms  presence 0." in status
    assert "  drops " in status
    microphone, voice = recorded(tmp_path / "talk")
    assert len(microphone) == len(voice) >= 8000
    np.testing.assert_array_equal(microphone[: len(speech)], speech[: len(microphone)])
    # Buffers of two blocks, and the 32 ms of the window less a sample.
    assert not voice[: 640 + 511].any() and np.abs(voice).max() > 0
    assert files == f"recorded {len(voice) / 16000:.1f} s: {tmp_path}/talk/microphone.wav and {tmp_path}/talk/voice.wav"


def test_two_channels_at_the_rate_of_the_devices(live, tmp_path: Path):
    sound = SoundDevices(rates=(48000,))
    ran = live(sound, "--input", "cable", "--output", 1, "--channels", 2, "--duration", 0.1, "--record", tmp_path)
    assert ran.status == 0 and "Virtual cable → anna-3 → Virtual cable, 48000 Hz" in ran.err
    assert soundfile.info(tmp_path / "voice.wav").samplerate == 48000
    assert recorded(tmp_path)[1].shape[1] == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_recordings(live, tmp_path: Path, number: int, status: int):
    sound = SoundDevices()
    sound.pace = lambda: os.kill(os.getpid(), number) if len(sound.played) == 20 else live_session.time.sleep(0.002)
    ran = live(sound, "--record", tmp_path)
    assert ran.status == status
    assert lines(ran)[-1].startswith("wesep live: stopped after 0.")
    assert min(map(len, recorded(tmp_path))) >= 20 * 256


def test_an_unplugged_device_is_one_line_and_the_recordings_are_whole(live, tmp_path: Path):
    ran = live(SoundDevices(num_blocks=25), "--record", tmp_path)
    assert ran.status == 1
    assert lines(ran)[-1].startswith("wesep live: the sound stopped after 0.4 s: 'Headset' was unplugged")
    assert [len(side) for side in recorded(tmp_path)] == [25 * 256] * 2


def test_recordings_are_not_overwritten(live, tmp_path: Path):
    (tmp_path / "voice.wav").write_bytes(b"mine")
    ran = live(SoundDevices(), "--record", tmp_path, "--duration", 0.1)
    assert ran.status == 2 and "voice.wav: exists already; name another output, or pass --overwrite" in ran.message
    assert (tmp_path / "voice.wav").read_bytes() == b"mine"
    assert live(SoundDevices(), "--record", tmp_path, "--duration", 0.1, "--overwrite").status == 0
    assert len(recorded(tmp_path)[1]) >= 1600
    ran = live(SoundDevices(), "--record", tmp_path / "voice.wav")
    assert ran.status == 2 and "is a file; --record needs a folder" in ran.message
    ran = live(SoundDevices(), "--record", tmp_path / "none" / "talk")
    assert ran.status == 2 and "does not exist; create it first" in ran.message


def test_devices_are_listed_without_an_enrollment(wesep, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sounddevice", SoundDevices())
    ran = wesep("live", "--list-devices")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        " 0  Headset: 1 in, 2 out, 48000 Hz (default input and output)",
        " 1  Virtual cable: 2 in, 2 out, 48000 Hz",
    ]


@pytest.mark.parametrize(
    ("sound", "arguments", "status", "message"),
    [
        (SoundDevices([]), ["--list-devices"], 1, "there is no microphone"),
        (SoundDevices([]), [], 1, "there is no microphone"),
        (SoundDevices(), ["--input", "fiddle"], 2, "--input 'fiddle': is no input device; there are: 0 'Headset'"),
        (SoundDevices(), ["--channels", "2"], 2, "--channels 2: 'Headset' has 1 input channels"),
        (SoundDevices(), ["--rate", "8000"], 2, "--rate 8000: cannot be used with 'Headset' and 1 channels"),
        (SoundDevices(open_error="Device unavailable"), [], 1, "cannot be opened (Device unavailable); close other"),
    ],
)
def test_problems_with_devices_are_one_line(live, sound, arguments: list[str], status: int, message: str):
    ran = live(sound, *arguments)
    assert ran.status == status and [message in line for line in lines(ran)] == [True], ran.err


def test_no_package_and_a_model_that_looks_ahead_are_one_line(
    wesep, tiny_model: Path, tiny_speech: Path, monkeypatch: pytest.MonkeyPatch
):
    arguments = ["live", "--enroll", tiny_speech / "anna" / "anna-3.wav", "--model", tiny_model]
    monkeypatch.setitem(sys.modules, "sounddevice", SoundDevices())
    ran = wesep(*arguments)
    assert ran.status == 2 and "works on whole recordings only: its backbone 'bsrnn' looks ahead" in ran.message
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    ran = wesep(*arguments)
    assert ran.status == 2 and "pip install 'wesep-py[live]', or: `wesep stream` takes audio" in ran.message
