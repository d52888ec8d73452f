"""A live stream: blocks of a mixture of any size in, the voice out as soon as it can be known.

    block ─► check, NaN → 0 ─► resample to the model's rate ─► engine, once per voice ─► resample back ─► block

A `Stream` does what has nothing to do with networks: rates, sample formats, channels, voices, delay. A `StreamEngine`
runs the network: the module `stream_engine` with torch, `wesep_py.runtime` with ONNX. This module needs NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.audio.live_resample import LiveResampler, ResamplerState
from wesep_py.common.errors import InputError, quoted

# Samples at the model's rate that the engine gets at once: a block of an hour then needs the memory of ten seconds.
_PIECE = 160_000
MAX_CHANNELS = 64
"""Largest number of channels of a stream; each is extracted by itself."""
MIN_RATE, MAX_RATE = 1_000, 768_000
"""Sample rates in Hz that a stream takes."""


class StreamEngine(Protocol):
    """A causal network, one step at a time.

    Attributes:
        model: name of the model, for messages.
        model_hash: hash of its checkpoint.
        sample_rate: Hz.
        latency: algorithmic latency in samples: output sample n depends on input samples up to n + latency.
        max_delay: largest number of samples that have arrived and are not finished.
        num_leading: samples at the start of the output of `step` that belong before the recording.
    """

    model: str
    model_hash: str
    sample_rate: int
    latency: int
    max_delay: int
    num_leading: int

    def check_voice(self, voice: Any) -> None:
        """Raise InputError for what is no voice, or a voice of another model."""

    def initial_state(self, num_channels: int) -> Any:
        """Return the state before the first sample of a recording."""

    def step(
        self, samples: NDArray[np.float32], state: Any, voice: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, Any]:
        """Take samples `[channels, samples]`; return finished samples `[channels, n]`, presence logits
        `[channels, frames]` (`None` without a head), and the new state."""

    def finish(self, num_samples: int, num_out: int, state: Any, voice: Any) -> NDArray[np.float32]:
        """Return all samples after the `num_out` that `step` returned, for a recording of `num_samples` samples."""

    def pack(self, state: Any) -> Any:
        """Return the state as arrays, numbers, lists and dictionaries."""

    def unpack(self, packed: Any) -> Any:
        """Undo `pack`."""


@dataclass(frozen=True)
class _VoiceState:
    """Hold the state of one voice in a stream; nothing in it is changed in place."""

    network: Any
    num_steps_out: int  # samples that the engine has returned, at the model's rate
    resampler: ResamplerState
    waiting: NDArray[np.float32]  # finished samples at the stream's rate that were not returned: `constant_delay`
    presence: float | None


@dataclass(frozen=True)
class _State:
    """Hold the state of a stream; it is replaced as a whole when a block is done, so an error changes nothing."""

    num_in: int
    num_replaced: int
    resampler: ResamplerState
    voices: tuple[_VoiceState, ...]


class Stream:
    """Extraction of one or several voices from a live signal.

    `process` takes blocks of any size, and returns the samples that are finished: concatenated, with those of `flush`,
    they are the estimate of the whole recording, sample for sample. A sample is finished `delay` samples after it
    arrived at the latest. With `constant_delay`, every call returns as many samples as it gets, `delay` samples late:
    for sound cards and frame-by-frame pipelines. The level of the voice is left as the network returns it.

    Args:
        engine: the network.
        voices: one voice, or a sequence of voices: the results then have a leading axis of voices.
        sample_rate: of the signal in Hz, 1,000 to 768,000; `None` is the model's.
        num_channels: of the signal, 1 to 64; each is extracted by itself.
        constant_delay: whether every block returns as many samples as it gets.

    Raises:
        InputError: a rate, number of channels or voice that is not allowed.

    >>> import wesep_py
    >>> stream = wesep_py.load("live-model").stream(voice)                                  # doctest: +SKIP
    >>> for block in microphone:                                                            # doctest: +SKIP
    ...     loudspeaker.write(stream.process(block))
    """

    def __init__(
        self,
        engine: StreamEngine,
        voices: Any,
        sample_rate: int | None = None,
        num_channels: int = 1,
        constant_delay: bool = False,
    ) -> None:
        self.engine, self.constant_delay = engine, constant_delay
        self.sample_rate = engine.sample_rate if sample_rate is None else _whole("sample_rate", sample_rate)
        if not MIN_RATE <= self.sample_rate <= MAX_RATE:
            raise InputError(f"sample_rate: is {sample_rate} Hz; {MIN_RATE} to {MAX_RATE} Hz is allowed")
        self.num_channels = _whole("num_channels", num_channels)
        if not 1 <= self.num_channels <= MAX_CHANNELS:
            raise InputError(f"num_channels: is {num_channels}; 1 to {MAX_CHANNELS} is allowed")
        self._has_voice_axis = isinstance(voices, Sequence)
        self._voices = list(voices) if self._has_voice_axis else [voices]
        if not self._voices:
            raise InputError("voices: is empty; a stream needs at least one voice")
        for voice in self._voices:
            engine.check_voice(voice)
        self._to_model = LiveResampler(self.sample_rate, engine.sample_rate, self.num_channels)
        self._from_model = LiveResampler(engine.sample_rate, self.sample_rate, self.num_channels)
        self._flushed = False
        self._num_axes = 1 if self.num_channels == 1 else 2  # of the last block
        self._state = self._initial_state()

    @property
    def latency(self) -> int:
        """Algorithmic latency in samples: output sample n depends on input samples up to n + latency.

        It is that of the network, and of the resamplers if the stream has another rate than the model.
        """
        resampling_s = self._to_model.delay_s + self._from_model.delay_s
        return math.ceil((self.engine.latency / self.engine.sample_rate + resampling_s) * self.sample_rate)

    @property
    def delay(self) -> int:
        """Largest number of samples that have arrived and are not returned yet, for blocks of any size."""
        if self._to_model.is_identity:
            return self.engine.max_delay
        model_s = (self.engine.max_delay + 1) / self.engine.sample_rate
        return math.ceil((model_s + self._to_model.delay_s + self._from_model.delay_s) * self.sample_rate) + 1

    @property
    def num_replaced(self) -> int:
        """Number of samples, over all channels, that were NaN or infinite and became 0."""
        return self._state.num_replaced

    @property
    def presence(self) -> float | list[float | None] | None:
        """Probability that the voice speaks now, 0 to 1; of several voices a list; `None` without a presence head.

        It is that of the last frame, and `None` too before the first.
        """
        values = [voice.presence for voice in self._state.voices]
        return values if self._has_voice_axis else values[0]

    def process(self, samples: ArrayLike, sample_rate: int | None = None) -> NDArray[Any]:
        """Take the next samples, and return those that are finished.

        Args:
            samples: `[samples]` for one channel, or `[channels, samples]`; float, −1 to 1, or 16-bit integers. Any
                number of samples, also none. NaN and infinite samples become 0, and are counted.
            sample_rate: if given, it has to be that of the stream.

        Returns:
            An array of the same type and number of axes, with a leading axis of voices if the stream has several.

        Raises:
            InputError: another type, shape or rate, or the stream was flushed. The stream is as it was before.
        """
        if self._flushed:
            raise InputError("the stream was flushed; call reset() before the next recording")
        if sample_rate is not None and sample_rate != self.sample_rate:
            raise InputError(
                f"sample_rate: is {quoted(sample_rate)} Hz, and the stream began at {self.sample_rate} Hz; make "
                "another stream for another rate"
            )
        block = np.asarray(samples)
        waveform, num_replaced = self._as_float(block)
        parts, state = [], replace(self._state, num_replaced=self._state.num_replaced + num_replaced)
        # The model's rate decides how much is computed at once.
        piece = max(1, _PIECE * self.sample_rate // self.engine.sample_rate)
        for start in range(0, max(1, waveform.shape[1]), piece):
            outputs, state = self._advance(waveform[:, start : start + piece], state)
            parts.append(outputs)
        finished = np.concatenate(parts, axis=2)
        if self.constant_delay:
            finished, state = self._delayed(finished, state, waveform.shape[1])
        self._state = state
        return self._as_block(finished, block)

    def flush(self) -> NDArray[np.float32]:
        """End the recording: return all samples that `process` has not returned, as float32.

        Afterwards the stream takes no more samples until `reset`.
        """
        state = self._state
        if self._flushed:
            return self._as_block(np.zeros((len(self._voices), self.num_channels, 0), np.float32), None)
        rest = self._to_model.finish(state.resampler)
        outputs, advanced = self._run(rest, replace(state, resampler=self._to_model.initial_state()))
        num_model = state.resampler.num_out + rest.shape[1]
        parts = []
        for voice, finished, old, new in zip(self._voices, outputs, state.voices, advanced.voices, strict=True):
            last = self.engine.finish(num_model, new.num_steps_out, new.network, voice)
            last = self._without_leading(last, new.num_steps_out)
            pushed, resampler = self._from_model.push(np.concatenate([finished, last], axis=1), old.resampler)
            ended = np.concatenate([old.waiting, pushed, self._from_model.finish(resampler)], axis=1)
            remaining = state.num_in - (old.resampler.num_out - old.waiting.shape[1])
            parts.append(_fitted(ended, remaining))
        self._state, self._flushed = advanced, True
        return self._as_block(np.stack(parts), None)

    def reset(self) -> None:
        """Begin a new recording with the same voices."""
        self._state, self._flushed = self._initial_state(), False

    def change_voice(self, voice: Any, index: int = 0) -> None:
        """Extract another voice from now on; the network keeps what it knows of the recording.

        Args:
            voice: of this model.
            index: of the voice that is replaced, in a stream of several.

        Raises:
            InputError: no voice, a voice of another model, or no such index.
        """
        self.engine.check_voice(voice)
        if not 0 <= index < len(self._voices):
            raise InputError(f"index: is {quoted(index)}; the stream has {len(self._voices)} voices")
        self._voices[index] = voice

    def state(self) -> dict[str, Any]:
        """Return the state of the stream as arrays, numbers, lists and dictionaries; voices are not in it."""
        state = self._state
        return {
            "model_hash": self.engine.model_hash,
            "sample_rate": self.sample_rate,
            "constant_delay": self.constant_delay,
            "flushed": self._flushed,
            "num_in": state.num_in,
            "num_replaced": state.num_replaced,
            "resampler": list(state.resampler),
            "voices": [
                {
                    "network": self.engine.pack(voice.network),
                    "num_steps_out": voice.num_steps_out,
                    "resampler": list(voice.resampler),
                    "waiting": voice.waiting,
                    "presence": voice.presence,
                }
                for voice in state.voices
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that a stream of the same model, rate, channels and number of voices returned.

        Raises:
            InputError: it is the state of another kind of stream.
        """
        own = {"model_hash": self.engine.model_hash, "sample_rate": self.sample_rate}
        own |= {"constant_delay": self.constant_delay}
        if different := [name for name, value in own.items() if state.get(name) != value]:
            raise InputError(f"the state is of a stream with another {different[0]}; make a stream like that one")
        voices = state["voices"]
        if len(voices) != len(self._voices) or len(state["resampler"][0]) != self.num_channels:
            raise InputError("the state is of a stream with other channels or voices; make a stream like that one")
        self._state = _State(
            int(state["num_in"]),
            int(state["num_replaced"]),
            ResamplerState(*state["resampler"]),
            tuple(
                _VoiceState(
                    self.engine.unpack(voice["network"]),
                    int(voice["num_steps_out"]),
                    ResamplerState(*voice["resampler"]),
                    voice["waiting"],
                    voice["presence"],
                )
                for voice in voices
            ),
        )
        self._flushed = bool(state["flushed"])

    def _initial_state(self) -> _State:
        waiting = np.zeros((self.num_channels, self.delay if self.constant_delay else 0), np.float32)
        voices = tuple(
            _VoiceState(
                self.engine.initial_state(self.num_channels), 0, self._from_model.initial_state(), waiting, None
            )
            for _ in self._voices
        )
        return _State(0, 0, self._to_model.initial_state(), voices)

    def _advance(self, waveform: NDArray[np.float32], state: _State) -> tuple[NDArray[np.float32], _State]:
        """Take samples at the stream's rate; return finished ones `[voices, channels, n]` at that rate."""
        block, resampler = self._to_model.push(waveform, state.resampler)
        num_in = state.num_in + waveform.shape[1]
        outputs, state = self._run(block, replace(state, num_in=num_in, resampler=resampler))
        results, voices = [], []
        for finished, voice in zip(outputs, state.voices, strict=True):
            result, resampled = self._from_model.push(finished, voice.resampler)
            results.append(result)
            voices.append(replace(voice, resampler=resampled))
        return np.stack(results), replace(state, voices=tuple(voices))

    def _run(self, block: NDArray[np.float32], state: _State) -> tuple[list[NDArray[np.float32]], _State]:
        """Take samples at the model's rate; return the finished ones `[channels, n]` of each voice at that rate."""
        results, voices = [], []
        for voice, before in zip(self._voices, state.voices, strict=True):
            finished, logits, network = self.engine.step(block, before.network, voice)
            results.append(self._without_leading(finished, before.num_steps_out))
            presence = before.presence
            if logits is not None and logits.shape[1]:
                presence = 1 / (1 + math.exp(-float(logits[:, -1].max())))
            num_out = before.num_steps_out + finished.shape[1]
            voices.append(replace(before, network=network, num_steps_out=num_out, presence=presence))
        return results, replace(state, voices=tuple(voices))

    def _without_leading(self, finished: NDArray[np.float32], num_before: int) -> NDArray[np.float32]:
        """Drop the samples before the recording from an output that `num_before` samples precede."""
        return finished[:, max(0, self.engine.num_leading - num_before) :]

    def _delayed(self, finished: NDArray[np.float32], state: _State, count: int) -> tuple[NDArray[np.float32], _State]:
        """Return `count` samples of each voice, and keep the rest for later."""
        results, voices = [], []
        for samples, voice in zip(finished, state.voices, strict=True):
            queue = np.concatenate([voice.waiting, samples], axis=1)
            results.append(queue[:, :count])
            voices.append(replace(voice, waiting=queue[:, count:]))
        return np.stack(results), replace(state, voices=tuple(voices))

    def _as_float(self, block: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
        """Return a block as float32 `[channels, samples]`, and the number of samples that were not finite."""
        if block.dtype.kind != "f" and block.dtype != np.int16:
            if block.size:
                raise InputError(f"samples: are of type {block.dtype}; float or int16 is needed")
            block = block.astype(np.float32)
        rows = block[None] if block.ndim == 1 and self.num_channels == 1 else block
        if rows.ndim != 2 or len(rows) != self.num_channels:
            wanted = "[samples] or [1, samples]" if self.num_channels == 1 else f"[{self.num_channels}, samples]"
            raise InputError(f"samples: have the shape {list(block.shape)}; {wanted} is needed")
        if rows.dtype == np.int16:
            return rows.astype(np.float32) / 32768, 0
        with np.errstate(over="ignore"):
            waveform = rows.astype(np.float32)
        is_finite = np.isfinite(waveform)
        num_replaced = int(waveform.size - np.count_nonzero(is_finite))
        return (np.where(is_finite, waveform, np.float32(0)) if num_replaced else waveform), num_replaced

    def _as_block(self, finished: NDArray[np.float32], like: NDArray[Any] | None) -> NDArray[Any]:
        """Return samples `[voices, channels, n]` in the type and axes of a block; `None`: of the last one, float32."""
        if like is not None:
            self._num_axes = like.ndim
            if like.dtype == np.int16:
                finished = np.clip(np.rint(finished * 32768), -32768, 32767)
            finished = finished.astype(like.dtype if like.dtype.kind == "f" or like.dtype == np.int16 else np.float32)
        if self._num_axes == 1:
            finished = finished[:, 0]
        return finished if self._has_voice_axis else finished[0]


def _whole(name: str, value: Any) -> int:
    """Return a whole number, or refuse what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{name}: is {quoted(value)}; a whole number is needed")
    return int(value)


def _fitted(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Cut samples `[channels, n]` to a length, or append zeros: resampling there and back may differ by a sample."""
    return np.pad(samples, ((0, 0), (0, max(0, length - samples.shape[1]))))[:, :length]
