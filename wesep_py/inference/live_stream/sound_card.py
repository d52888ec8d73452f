"""Sound devices of the machine: find them, name them, and choose a sample rate that they take.

The package `sounddevice` (PortAudio) does the work; it is imported when a device is first asked for. Every problem is
one line: what was asked for, what there is, what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from wesep_py.common.errors import InputError, WesepError, quoted, shorten

Kind = Literal["input", "output"]
_WORD = {"input": "microphone", "output": "loudspeaker"}
_COMMON_RATES = 48000, 44100, 16000
_PIPE = "`wesep stream` takes audio from a pipe instead"


@dataclass(frozen=True)
class SoundDevice:
    """A sound device.

    Attributes:
        index: number by which PortAudio knows it.
        name: of the device.
        num_inputs, num_outputs: largest number of channels.
        sample_rate: its usual rate in Hz.
        is_default_input, is_default_output: whether it is used where none is named.
    """

    index: int
    name: str
    num_inputs: int
    num_outputs: int
    sample_rate: int
    is_default_input: bool = False
    is_default_output: bool = False

    def num_channels(self, kind: Kind) -> int:
        """Return the largest number of channels in one direction."""
        return self.num_inputs if kind == "input" else self.num_outputs

    def line(self) -> str:
        """Return a line for a list of devices.

        >>> SoundDevice(3, "USB headset", 1, 2, 48000, is_default_input=True).line()
        ' 3  USB headset: 1 in, 2 out, 48000 Hz (default input)'
        """
        defaults = [kind for kind in ("input", "output") if getattr(self, f"is_default_{kind}")]
        suffix = f" (default {' and '.join(defaults)})" if defaults else ""
        return (
            f"{self.index:2d}  {shorten(self.name, 80)}: {self.num_inputs} in, {self.num_outputs} out, "
            f"{self.sample_rate} Hz{suffix}"
        )


def import_sounddevice() -> ModuleType:
    """Return the module `sounddevice`.

    Raises:
        InputError: the package, or the PortAudio library that it loads, is not installed.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise InputError(
            "sound devices need the package sounddevice, which is not installed; pip install 'wesep-py[live]', or: "
            f"{_PIPE}"
        ) from error
    except OSError as error:
        raise InputError(
            f"sound devices need the PortAudio library, which is not installed ({shorten(error)}); install it "
            f"(Debian and Ubuntu: apt install libportaudio2; macOS: brew install portaudio), or: {_PIPE}"
        ) from error
    module: ModuleType = sounddevice
    return module


def list_devices(sounddevice: ModuleType) -> list[SoundDevice]:
    """Return all sound devices.

    Raises:
        WesepError: PortAudio failed.
    """
    with _one_line(sounddevice, "the sound devices cannot be listed"):
        rows = list(sounddevice.query_devices())
    default_input, default_output = (_default(sounddevice, kind) for kind in ("input", "output"))
    return [
        SoundDevice(
            number,
            str(row["name"]),
            int(row["max_input_channels"]),
            int(row["max_output_channels"]),
            round(row["default_samplerate"]),
            number == default_input,
            number == default_output,
        )
        for number, row in enumerate(rows)
    ]


def find_device(sounddevice: ModuleType, wanted: str | None, kind: Kind) -> SoundDevice:
    """Return a device by its number or a part of its name; `None` is the default one.

    Raises:
        WesepError: there is no device of this kind at all.
        InputError: no device, or several, match; or the one that does has no channels in this direction.
    """
    devices = list_devices(sounddevice)
    usable = [device for device in devices if device.num_channels(kind) > 0]
    if not usable:
        raise WesepError(
            f"there is no {_WORD[kind]}: the system has {len(devices)} sound devices, none with {kind} channels; "
            f"connect one, or: {_PIPE}"
        )
    if wanted is None:
        index = _default(sounddevice, kind)
        return next((device for device in usable if device.index == index), usable[0])
    more = "`wesep live --list-devices` shows all"
    asked: int | str = int(wanted) if wanted.isascii() and wanted.isdigit() else wanted
    try:
        index = int(sounddevice.query_devices(asked, kind)["index"])
    except (ValueError, sounddevice.PortAudioError) as error:
        if "Multiple" in str(error):
            similar = [device for device in usable if wanted.lower() in device.name.lower()] or usable
            raise InputError(
                f"--{kind} {quoted(wanted)}: several devices match: {_listing(similar)}; give the number of "
                f"one ({more})"
            ) from None
        raise InputError(
            f"--{kind} {quoted(wanted)}: is no {kind} device; there are: {_listing(usable)} ({more})"
        ) from None
    return next(device for device in devices if device.index == index)


def choose_rate(
    sounddevice: ModuleType,
    microphone: SoundDevice,
    loudspeaker: SoundDevice,
    num_channels: int,
    wanted: int | None,
    model_rate: int,
) -> int:
    """Return a sample rate in Hz that both devices take: the one asked for, or that of the model if possible.

    Raises:
        InputError: a device has fewer channels, or the rate asked for (or any common one) is not possible.
    """
    sides: tuple[tuple[Kind, SoundDevice], ...] = (("input", microphone), ("output", loudspeaker))
    for kind, device in sides:
        if num_channels > device.num_channels(kind):
            raise InputError(
                f"--channels {num_channels}: {device.name!r} has {device.num_channels(kind)} {kind} channels; give at "
                "most as many, or name another device"
            )
    rates = dict.fromkeys([model_rate, microphone.sample_rate, loudspeaker.sample_rate, *_COMMON_RATES])
    problem: Exception | None = None
    for rate in rates if wanted is None else [wanted]:
        try:
            for kind, device in sides:
                check = getattr(sounddevice, f"check_{kind}_settings")
                check(device=device.index, channels=num_channels, dtype="float32", samplerate=rate)
            return rate
        except (ValueError, sounddevice.PortAudioError) as error:
            problem = error
    what = f"--rate {wanted}" if wanted is not None else f"any of the rates {', '.join(map(str, rates))} Hz"
    raise InputError(
        f"{what}: cannot be used with {names_of(microphone, loudspeaker)} and {num_channels} channels "
        f"({shorten(problem)}); usual rates are {microphone.sample_rate} and {loudspeaker.sample_rate} Hz"
    )


def names_of(microphone: SoundDevice, loudspeaker: SoundDevice, word: str = "and") -> str:
    """Return the names of both devices, or of one that is both.

    >>> names_of(SoundDevice(0, "Line in", 2, 0, 48000), SoundDevice(1, "USB", 0, 2, 48000))
    "'Line in' and 'USB'"
    """
    names = dict.fromkeys(repr(shorten(device.name, 60)) for device in (microphone, loudspeaker))
    return f" {word} ".join(names)


@contextmanager
def opening(sounddevice: ModuleType, microphone: SoundDevice, loudspeaker: SoundDevice) -> Iterator[None]:
    """Turn PortAudio's errors of the block, which opens and starts devices, into one line."""
    devices = names_of(microphone, loudspeaker)
    remedy = "; close other programs that use them, or name others with --input and --output"
    with _one_line(sounddevice, f"{devices} cannot be opened", remedy):
        yield


@contextmanager
def _one_line(sounddevice: ModuleType, what: str, remedy: str = "") -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, sounddevice.PortAudioError) as error:
        raise WesepError(f"{what} ({shorten(error)}){remedy}") from error


def _default(sounddevice: ModuleType, kind: Kind | str) -> int | None:
    """Return the number of the default device; `None` if there is none."""
    try:
        row: Any = sounddevice.query_devices(None, kind)
    except (ValueError, sounddevice.PortAudioError):
        return None
    return int(row["index"])


def _listing(devices: Sequence[SoundDevice], most: int = 8) -> str:
    names = ", ".join(f"{device.index} {shorten(device.name, 40)!r}" for device in devices[:most])
    return names + (f" and {len(devices) - most} more" if len(devices) > most else "")
