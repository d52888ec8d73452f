"""From microphone to loudspeaker: the sound card's callback, a worker thread with the network, a thread that records.

    microphone ─► callback ─► queue ─► worker: Stream.process ─► finished blocks ─► callback ─► loudspeaker
                      │                                                                 │
                      └────────────────────► queue ─► recorder ◄───────────────────────┘

The callback never computes: it copies a block in and takes a finished one out. Blocks have the number of their first
sample; the callback at sample n plays sample n − `lead`, so that the worker has the time of `LEAD_BLOCKS` blocks. What
is not finished by then is played as silence and counted as a drop, and is not computed any more: the delay stays the
same, and a worker that was late for a moment is in time again.

    callback at sample     n          n + B       n + 2B
    plays                  n − lead   …           n, if the worker was done in time
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.common.errors import WesepError
from wesep_py.common.files import check_writable, write_together
from wesep_py.inference.live_stream.sound_card import SoundDevice, names_of, opening
from wesep_py.inference.live_stream.stream import Stream

LEAD_BLOCKS = 2
"""Blocks that the worker may take to compute one: sound cards ask for several in a row."""
MAX_WAITING_S = 0.5
"""Longest queue of blocks for the worker, in seconds; blocks that arrive when it is full are dropped."""
SILENT_AFTER_S = 2.0
"""Seconds without a callback after which a device counts as unplugged."""
LEVEL_S = 0.3
"""Length of the levels shown, in seconds."""
RECORDED = "microphone.wav", "voice.wav"
"""Files of a recording: what the microphone gave, and what was played."""
_LARGEST_WAV_BYTES = 2**32 - 65536
_WARM_UP_S = 0.2


@dataclass(frozen=True)
class LiveStatus:
    """Report the state of a live session.

    Attributes:
        duration_s: seconds since its start, by the samples of the sound card.
        input_dbfs, output_dbfs: RMS levels of the last 0.3 s; −inf is silence.
        algorithm_ms: algorithmic latency of the network, with resampling.
        buffer_ms: time that whole frames and the worker's lead take.
        device_ms: latency of both devices, as PortAudio reports it.
        presence: probability that the voice speaks now; `None` without a presence head.
        drops: blocks that were played as silence because they were late, and those that the devices lost.
    """

    duration_s: float
    input_dbfs: float
    output_dbfs: float
    algorithm_ms: float
    buffer_ms: float
    device_ms: float
    presence: float | None
    drops: int

    def line(self) -> str:
        """Return the status as one line.

        >>> LiveStatus(75.3, -23.4, float("-inf"), 32.0, 48.0, 21.3, 0.931, 2).line()
        '1:15  in  -23 dBFS  out -inf dBFS  latency 32 + 48 + 21 = 101 ms  presence 0.93  drops 2'
        """
        parts = [self.algorithm_ms, self.buffer_ms, self.device_ms]
        presence = "" if self.presence is None else f"  presence {self.presence:.2f}"
        whole = int(self.duration_s)
        return (
            f"{whole // 60}:{whole % 60:02d}  in {self.input_dbfs:4.0f} dBFS  out {self.output_dbfs:4.0f} dBFS  "
            f"latency {' + '.join(f'{part:.0f}' for part in parts)} = {sum(parts):.0f} ms{presence}  drops {self.drops}"
        )


class Recorder:
    """Writer of both sides of a session into a folder, in a thread of its own.

    The files appear when the recorder is closed. A recording that reaches 4 GiB ends there.

    Args:
        folder: made if its parent exists.
        sample_rate: in Hz.
        num_channels: of each file.
        overwrite: replace files that exist.

    Raises:
        InputError, OutputExistsError: the folder or the files cannot be written.
    """

    def __init__(self, folder: Path, sample_rate: int, num_channels: int, overwrite: bool = False) -> None:
        self.paths = [check_writable(folder / name, overwrite) for name in RECORDED]
        self.error: Exception | None = None
        self.is_full = False
        self.num_samples = 0
        self._form = sample_rate, num_channels
        self._overwrite = overwrite
        self._most_samples = _LARGEST_WAV_BYTES // (4 * num_channels)
        self._blocks: queue.SimpleQueue[tuple[NDArray[np.float32], ...] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def put(self, microphone: NDArray[np.float32], voice: NDArray[np.float32]) -> None:
        """Record a block `[channels, samples]` of each side; returns at once."""
        self._blocks.put((microphone, voice))

    def close(self) -> list[Path]:
        """Finish the files and return them; none if nothing was recorded.

        Raises:
            WesepError: they could not be written.
        """
        self._blocks.put(None)
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self.paths if self.num_samples else []

    def _run(self) -> None:
        try:
            if (first := self._blocks.get()) is None:
                return
            with write_together(), ExitStack() as stack:
                writers = [
                    stack.enter_context(audio.AudioWriter(path, *self._form, overwrite=self._overwrite))
                    for path in self.paths
                ]
                block: tuple[NDArray[np.float32], ...] | None = first
                while block is not None:
                    if self.num_samples + block[0].shape[1] <= self._most_samples:
                        for writer, samples in zip(writers, block, strict=True):
                            writer.write(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0))
                        self.num_samples += block[0].shape[1]
                    else:
                        self.is_full = True
                    block = self._blocks.get()
        except Exception as error:  # raised by `close` in the thread that waits for it
            self.error = error


class LiveSession:
    """A running extraction from microphone to loudspeaker; a context manager.

    Args:
        sounddevice: the module (`sound_card.import_sounddevice`).
        stream: with a constant delay, of one voice; its rate and channels are those of the devices.
        microphone, loudspeaker: the devices.
        block_samples: samples of a block.
        recorder: receives both sides.

    Raises:
        WesepError: the devices cannot be opened.
    """

    def __init__(
        self,
        sounddevice: ModuleType,
        stream: Stream,
        microphone: SoundDevice,
        loudspeaker: SoundDevice,
        block_samples: int,
        recorder: Recorder | None = None,
    ) -> None:
        self.stream, self.block_samples, self.recorder = stream, block_samples, recorder
        self.lead = LEAD_BLOCKS * block_samples
        self._sounddevice, self._devices = sounddevice, (microphone, loudspeaker)
        most = max(2 * LEAD_BLOCKS, round(MAX_WAITING_S * stream.sample_rate / block_samples))
        self._waiting: queue.Queue[tuple[int, NDArray[np.float32]] | None] = queue.Queue(most)
        self._finished: deque[tuple[int, NDArray[np.float32]]] = deque()
        # (energy of the input, energy of the output) of the last blocks, per sample.
        self._energies: deque[tuple[float, float]] = deque(
            maxlen=max(1, round(LEVEL_S * stream.sample_rate / block_samples))
        )
        self._position = 0
        self._num_late = self._num_lost = 0
        self._presence: float | None = None
        self._error: Exception | None = None
        self._is_stopping = False
        self._ended = threading.Event()
        self._last_callback_s = math.inf
        self._worker = threading.Thread(target=self._work, name="extraction", daemon=True)
        self._device_stream: Any = None
        self._device_s = 0.0

    def __enter__(self) -> LiveSession:
        self._warm_up()
        microphone, loudspeaker = self._devices
        with opening(self._sounddevice, microphone, loudspeaker):
            self._device_stream = self._sounddevice.Stream(
                samplerate=self.stream.sample_rate,
                blocksize=self.block_samples,
                device=(microphone.index, loudspeaker.index),
                channels=(self.stream.num_channels, self.stream.num_channels),
                dtype="float32",
                latency="low",
                callback=self._callback,
                finished_callback=self._on_finished,
            )
            self._worker.start()
            try:
                self._last_callback_s = time.monotonic()
                self._device_stream.start()
                self._device_s = float(sum(self._device_stream.latency))
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def wait(self, seconds: float) -> None:
        """Wait, at most as long as the session works.

        Raises:
            WesepError: a device was unplugged or failed, or the network or the recorder did.
        """
        self._ended.wait(seconds)
        if self._error is not None:
            raise self._error
        if self.recorder is not None and self.recorder.error is not None:
            raise self.recorder.error
        silent_s = time.monotonic() - self._last_callback_s
        if self._ended.is_set() or silent_s > SILENT_AFTER_S:
            raise WesepError(
                f"the sound stopped after {self.status().duration_s:.1f} s: {names_of(*self._devices, 'or')} was "
                "unplugged or failed; connect it and start again (`wesep live --list-devices` shows what is there)"
            )

    def status(self) -> LiveStatus:
        """Return what the session does now."""
        energies = self._energies.copy()
        levels = [sum(pair[side] for pair in energies) / max(1, len(energies)) for side in (0, 1)]
        input_dbfs, output_dbfs = (10 * math.log10(level) if level > 1e-20 else -math.inf for level in levels)
        sample_ms = 1000 / self.stream.sample_rate
        return LiveStatus(
            self._position / self.stream.sample_rate,
            input_dbfs,
            output_dbfs,
            self.stream.latency * sample_ms,
            (self.stream.delay - self.stream.latency + self.lead) * sample_ms,
            1000 * self._device_s,
            self._presence,
            self._num_late + self._num_lost,
        )

    def _warm_up(self) -> None:
        """Run the network on silence: the first blocks of a process take much longer than later ones."""
        silence = np.zeros((self.stream.num_channels, self.block_samples), np.float32)
        for _ in range(max(1, round(_WARM_UP_S * self.stream.sample_rate / self.block_samples))):
            self.stream.process(silence)
        self.stream.reset()

    # The thread of the sound card.

    def _callback(
        self, indata: NDArray[np.float32], outdata: NDArray[np.float32], frames: int, at: Any, flags: Any
    ) -> None:
        """Take a block from the microphone, `[samples, channels]`, and give one to the loudspeaker."""
        try:
            self._last_callback_s = time.monotonic()
            microphone = np.array(indata.T, np.float32)
            played, num_missing = self._take(self._position - self.lead, frames)
            outdata[:] = played.T
            with suppress(queue.Full):  # its samples will be missing when they are due, and are counted then
                self._waiting.put_nowait((self._position, microphone))
            self._num_late += num_missing > 0
            self._num_lost += bool(flags.input_overflow) + bool(flags.output_underflow)
            self._energies.append((_energy(microphone), _energy(played)))
            if self.recorder is not None:
                self.recorder.put(microphone, played)
            self._position += frames
        except Exception as error:  # PortAudio would print a traceback
            self._error = error
            self._ended.set()
            outdata.fill(0)
            raise self._sounddevice.CallbackAbort from error

    def _take(self, start: int, count: int) -> tuple[NDArray[np.float32], int]:
        """Return `count` samples from sample `start` on, and how many are silence: those are not finished."""
        played = np.zeros((self.stream.num_channels, count), np.float32)
        num_missing = count - min(count, max(0, -start))  # before the recording there is silence
        while self._finished:
            first, samples = self._finished[0]
            begin, end = max(first, start), min(first + samples.shape[1], start + count)
            if begin < end:
                played[:, begin - start : end - start] = samples[:, begin - first : end - first]
                num_missing -= end - begin
            if first + samples.shape[1] > start + count:
                break
            self._finished.popleft()  # played, or too late
        return played, num_missing

    def _on_finished(self) -> None:
        """Note that the device plays no more: it was stopped, or it is gone."""
        if not self._is_stopping:
            self._ended.set()

    # The thread of the network.

    def _work(self) -> None:
        try:
            while (item := self._waiting.get()) is not None:
                first, samples = item
                if first + samples.shape[1] > self._position - self.lead:  # else it was due before
                    self._finished.append((first, self.stream.process(samples)))
                    presence = self.stream.presence
                    self._presence = presence if isinstance(presence, float) else None
                self._waiting.task_done()
        except Exception as error:
            self._error = error
            self._ended.set()

    # The main thread.

    def _stop(self) -> None:
        """Stop the device and the worker; an unplugged device makes PortAudio fail, which changes nothing here."""
        self._is_stopping = True
        if self._device_stream is not None:
            with suppress(self._sounddevice.PortAudioError):
                self._device_stream.abort()
            with suppress(self._sounddevice.PortAudioError):
                self._device_stream.close()
            self._device_stream = None
        if self._worker.is_alive():
            with suppress(queue.Empty):  # what waits would not be heard any more
                while True:
                    self._waiting.get_nowait()
            self._waiting.put(None)
            self._worker.join()


def _energy(samples: NDArray[np.float32]) -> float:
    """Return the mean square of the finite samples."""
    square = float(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0
    return square if math.isfinite(square) else 0.0
