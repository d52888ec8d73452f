"""Sound devices: found by number or name; every problem is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.inference.sound_devices import SoundDevices, device
from wesep_py.common.errors import InputError, WesepError
from wesep_py.inference.live_stream.sound_card import choose_rate, find_device, import_sounddevice, list_devices

THREE = [device("Line in", 2, 0, 44100.0), device("USB speaker", 0, 2), device("USB headset", 1, 2)]


def test_devices_are_listed_with_defaults():
    lines = [found.line() for found in list_devices(SoundDevices(THREE))]
    assert lines == [
        " 0  Line in: 2 in, 0 out, 44100 Hz (default input)",
        " 1  USB speaker: 0 in, 2 out, 48000 Hz (default output)",
        " 2  USB headset: 1 in, 2 out, 48000 Hz",
    ]


@pytest.mark.parametrize(
    ("wanted", "kind", "index"),
    [(None, "input", 0), (None, "output", 1), ("2", "input", 2), ("head", "output", 2), ("usb", "input", 2)],
)
def test_a_device_is_found_by_number_or_name(wanted: str | None, kind: str, index: int):
    assert find_device(SoundDevices(THREE), wanted, kind).index == index


@pytest.mark.parametrize(
    ("wanted", "kind", "message"),
    [
        ("fiddle", "input", "--input 'fiddle': is no input device; there are: 0 'Line in', 2 'USB headset' ("),
        ("7", "output", "--output '7': is no output device; there are: 1 'USB speaker', 2"),
        ("0", "output", "--output '0': is no output device; there are: 1"),
        ("usb", "output", "--output 'usb': several devices match: 1 'USB speaker', 2 'USB headset'; give the number"),
    ],
)
def test_a_wrong_device_is_named_with_those_there_are(wanted: str, kind: str, message: str):
    with pytest.raises(InputError) as caught:
        find_device(SoundDevices(THREE), wanted, kind)
    assert str(caught.value).startswith(message)


def test_no_device_at_all_says_what_to_do():
    with pytest.raises(WesepError, match=r"there is no microphone: the system has 0 sound devices.*wesep stream"):
        find_device(SoundDevices([]), None, "input")
    with pytest.raises(WesepError, match="there is no loudspeaker: the system has 1 sound devices"):
        find_device(SoundDevices(THREE[:1]), "head", "output")


def test_the_rate_is_that_of_the_model_if_the_devices_take_it():
    microphone, speaker = (find_device(SoundDevices(THREE), "head", kind) for kind in ("input", "output"))
    assert choose_rate(SoundDevices(THREE), microphone, speaker, 1, None, 16000) == 16000
    assert choose_rate(SoundDevices(THREE, rates=(48000,)), microphone, speaker, 1, None, 16000) == 48000
    assert choose_rate(SoundDevices(THREE), microphone, speaker, 1, 44100, 16000) == 44100
    with pytest.raises(InputError, match=r"--rate 8000: .*Invalid sample rate.*usual rates are 48000"):
        choose_rate(SoundDevices(THREE), microphone, speaker, 1, 8000, 16000)
    with pytest.raises(
        InputError, match=r"any of the rates 16000, 48000, 44100 Hz: cannot be used with 'USB headset' and 1 channels"
    ):
        choose_rate(SoundDevices(THREE, rates=()), microphone, speaker, 1, None, 16000)
    with pytest.raises(InputError, match="--channels 2: 'USB headset' has 1 input channels; give at most as many"):
        choose_rate(SoundDevices(THREE), microphone, speaker, 2, None, 16000)


def test_a_missing_package_and_a_missing_library_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(InputError, match=r"not installed; pip install 'wesep-py\[live\]'"):
        import_sounddevice()
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"PortAudio library not found.*libportaudio2"):
        import_sounddevice()
