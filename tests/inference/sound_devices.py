"""Stand-in for the package `sounddevice`: the same names and callback protocol, without a sound card."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class PortAudioError(Exception):
    pass


class CallbackAbort(Exception):
    pass


def device(name: str, num_inputs: int, num_outputs: int, rate: float = 48000.0) -> dict[str, Any]:
    return {
        "name": name,
        "max_input_channels": num_inputs,
        "max_output_channels": num_outputs,
        "default_samplerate": rate,
    }


class SoundDevices(ModuleType):
    """The module.

    Args:
        devices: those of the machine; a headset and a virtual cable by default.
        signal: what the microphone hears, `[samples, channels]`; then silence.
        pace: called after each block, on the thread of the sound card; by default it waits for the real time.
        num_blocks: blocks after which the device is unplugged; `None` is never.
        says_so: whether PortAudio notices that it is unplugged.
        rates: sample rates in Hz that the devices take.
    """

    PortAudioError, CallbackAbort = PortAudioError, CallbackAbort

    def __init__(
        self,
        devices: list[dict[str, Any]] | None = None,
        signal: np.ndarray | None = None,
        pace: Callable[[], Any] | None = None,
        num_blocks: int | None = None,
        says_so: bool = True,
        rates: tuple[int, ...] = (16000, 44100, 48000),
        open_error: str = "",
    ) -> None:
        super().__init__("sounddevice")
        self.devices = [device("Headset", 1, 2), device("Virtual cable", 2, 2)] if devices is None else devices
        self.signal = np.zeros((0, 1), np.float32) if signal is None else signal
        self.pace, self.num_blocks, self.says_so = pace, num_blocks, says_so
        self.rates, self.open_error = rates, open_error
        self.played: list[np.ndarray] = []
        self.flags = SimpleNamespace(input_overflow=False, output_underflow=False)
        self.Stream = lambda **options: DuplexStream(self, **options)

    def query_devices(self, asked: int | str | None = None, kind: str | None = None) -> Any:
        rows = [{**row, "index": number} for number, row in enumerate(self.devices)]
        if asked is None and kind is None:
            return tuple(rows)
        usable = [row for row in rows if row[f"max_{kind}_channels"] > 0]
        if asked is None:
            if not usable:
                raise PortAudioError("Error querying device -1")
            return usable[0]
        if isinstance(asked, int):
            if asked >= len(rows):
                raise PortAudioError(f"Error querying device {asked}")
            if rows[asked] not in usable:
                raise ValueError(f"Not an {kind} device: {rows[asked]['name']!r}")
            return rows[asked]
        matching = [row for row in usable if asked.lower() in row["name"].lower()]
        if len(matching) != 1:
            raise ValueError(f"{'Multiple' if matching else 'No'} {kind} device matching {asked!r}")
        return matching[0]

    def check_input_settings(self, device: int, channels: int, dtype: str, samplerate: int) -> None:
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")

    check_output_settings = check_input_settings


class DuplexStream:
    """A stream whose callback is called by a thread."""

    latency = 0.01, 0.02

    def __init__(
        self,
        module: SoundDevices,
        *,
        samplerate: int,
        blocksize: int,
        device: tuple[int, int],
        channels: tuple[int, int],
        dtype: str,
        latency: str,
        callback: Callable[..., None],
        finished_callback: Callable[[], None],
    ) -> None:
        if module.open_error:
            raise PortAudioError(module.open_error)
        self.module, self.size, self.rate, self.channels = module, blocksize, samplerate, channels
        self.callback, self.finished_callback = callback, finished_callback
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def abort(self) -> None:
        self.stopping.set()
        self.thread.join()
        if self.module.num_blocks is not None:
            raise PortAudioError("Unanticipated host error [PaErrorCode -9999]")

    def close(self) -> None:
        assert not self.thread.is_alive()

    def _run(self) -> None:
        number = 0
        while not self.stopping.is_set() and number != self.module.num_blocks:
            heard = np.zeros((self.size, self.channels[0]), np.float32)
            part = self.module.signal[number * self.size : (number + 1) * self.size]
            heard[: len(part)] = part
            played = np.full((self.size, self.channels[1]), np.nan, np.float32)
            try:
                self.callback(heard, played, self.size, None, self.module.flags)
            except CallbackAbort:
                break
            self.module.played.append(played)
            number += 1
            if self.module.pace is not None:
                self.module.pace()
            else:
                self.stopping.wait(self.size / self.rate)
        if self.stopping.is_set() or self.module.says_so:
            self.finished_callback()
