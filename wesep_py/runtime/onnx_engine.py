"""The network of a `Stream` in ONNX: one step of the exported graph at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.inference.enrolling.voice_print import Voice
from wesep_py.inference.presence_decision.presence import UNCALIBRATED, Calibration
from wesep_py.runtime.model_folder import Arrays, ModelFolder
from wesep_py.runtime.runtime_voice import RuntimeVoice

Samples = NDArray[np.float32]
# Names in the graph.
_FIRST, _LOW = "state.high_pass.first", "state.high_pass.low"
_SAMPLES, _OVERLAP, _WEIGHT, _LEVEL = "state.samples", "state.overlap", "state.weight", "state.level"


class OnnxState(NamedTuple):
    """State of a stream.

    Attributes:
        pending: `[channels, samples]` that are fewer than the next call of the graph needs.
        channels: tensors of the graph for each channel; empty before the first call.
    """

    pending: Samples
    channels: tuple[Arrays, ...]


class OnnxEngine:
    """A `StreamEngine` that runs the graph `stream` of an exported model.

    The graph takes `first_block` samples first, and whole strides from then on; what is left waits in the state.

    Args:
        folder: the exported model.
        check_voice: refuses what is no voice of the model.
        calibration: of the presence of each frame.

    Raises:
        InputError: the folder has no such graph.
    """

    def __init__(
        self, folder: ModelFolder, check_voice: Callable[[Any], None], calibration: Calibration = UNCALIBRATED
    ) -> None:
        if folder.stream is None:
            raise InputError(
                f"{folder.path}: was exported without a graph for streams; export the model again with "
                "`wesep export MODEL --stream`"
            )
        self.folder, self.about, self.check_voice = folder, folder.stream, check_voice
        self.calibration = calibration
        self.model, self.model_hash, self.sample_rate = folder.name, folder.model_hash, folder.sample_rate
        self.latency, self.max_delay = self.about.latency, self.about.max_delay
        self.num_leading = self.about.num_leading
        self._prepared: dict[int, tuple[Voice, Arrays]] = {}

    def initial_state(self, num_channels: int) -> OnnxState:
        """Return the state before the first sample."""
        return OnnxState(np.zeros((num_channels, 0), np.float32), ())

    def step(self, samples: Samples, state: OnnxState, voice: Voice) -> tuple[Samples, Samples | None, OnnxState]:
        """Take samples `[channels, samples]`; see `StreamEngine`."""
        pending = np.concatenate([state.pending, samples], axis=1)
        first, stride = 0 if state.channels else self.about.first_block, self.folder.stride
        count = pending.shape[1] - first
        if count < (0 if first else stride):
            return pending[:, :0], None, OnnxState(pending, state.channels)
        stop = first + count // stride * stride
        finished, logits, channels = self._run(pending[:, :stop], state.channels, voice)
        if logits is not None:
            scale, offset = self.calibration.frame_scale, self.calibration.frame_offset
            logits = np.float32(scale) * logits + np.float32(offset)
        return finished, logits, OnnxState(pending[:, stop:], channels)

    def finish(self, num_samples: int, num_out: int, state: OnnxState, voice: Voice) -> Samples:
        """Return all samples after the first `num_out` of `num_samples` and the leading ones."""
        return self.end(num_samples, num_out, state, voice)[0]

    def end(self, num_samples: int, num_out: int, state: OnnxState, voice: Voice) -> tuple[Samples, Samples | None]:
        """Return what `finish` returns, and the presence logits of the last frames, if there are any."""
        about, stride = self.about, self.folder.stride
        num_left = about.num_leading + num_samples - num_out
        if num_samples == 0 or num_left <= 0:
            return np.zeros((len(state.pending), 0), np.float32), None
        # The frames that reach beyond the end see zeros there, as offline: samples that the high-pass makes zeros.
        finished, logits, channels = np.zeros((len(state.pending), 0), np.float32), None, state.channels
        num_frames = self.folder.num_frames(num_samples) - num_out // stride
        if num_frames > 0:
            needed = num_frames * stride if channels else about.first_block + (num_frames - 1) * stride
            padding = max(0, needed - state.pending.shape[1])
            silence = np.repeat(self._silence(state)[:, None], padding, axis=1)
            segment = np.concatenate([state.pending, silence], axis=1)[:, :needed]
            finished, logits, channels = self._run(segment, channels, voice)
        # No frame follows: what the last frames have left is finished.
        tails = [self._tail(tensors) for tensors in channels]
        ended = np.concatenate([finished, np.concatenate(tails)], axis=1)[:, :num_left] if tails else finished
        return np.pad(ended, ((0, 0), (0, num_left - ended.shape[1]))), logits

    def pack(self, state: OnnxState) -> Any:
        """Return the state as arrays, lists and dictionaries."""
        return {"pending": state.pending, "channels": [dict(tensors) for tensors in state.channels]}

    def unpack(self, packed: Any) -> OnnxState:
        """Undo `pack`.

        Raises:
            InputError: it is the state of a stream that runs in torch.
        """
        if not isinstance(packed, dict) or packed.keys() != {"pending", "channels"}:
            raise InputError("the state is of a stream that runs in torch; restore it there")
        return OnnxState(packed["pending"], tuple(dict(tensors) for tensors in packed["channels"]))

    def _run(
        self, samples: Samples, channels: tuple[Arrays, ...], voice: Voice
    ) -> tuple[Samples, Samples | None, tuple[Arrays, ...]]:
        """Run the graph on each channel; return estimate, presence logits and the next tensors."""
        prepared, results = self._tensors(voice), []
        for channel, row in enumerate(samples):
            tensors = channels[channel] if channels else self._initial(row[0])
            results.append(self.folder.run("stream", {"samples": row[None], **tensors, **prepared}))
        has_presence = "presence_logits" in results[0]
        return (
            np.concatenate([result["estimate"] for result in results]),
            np.concatenate([result["presence_logits"] for result in results]) if has_presence else None,
            tuple({spec.input: result[spec.output] for spec in self.about.state} for result in results),
        )

    def _initial(self, first_sample: float) -> Arrays:
        """Return the tensors of a channel before its first sample."""
        values = {"zeros": 0.0, "ones": 1.0, "first_sample": first_sample}
        return {spec.input: np.full(spec.shape, values[spec.initial], spec.dtype) for spec in self.about.state}

    def _silence(self, state: OnnxState) -> Samples:
        """Return for each channel the sample `[channels]` that the high-pass makes zero, as often as it is repeated.

        The high-pass subtracts `low[n] = a · low[n−1] + (1 − a) · (x[n] − first)` from `x[n] − first`. That is zero if
        `x[n]` is `first + low[n−1]`, and then `low` stays as it is. The pending samples come before.
        """
        pending = state.pending.astype(np.float64)
        if self.about.high_pass_hz is None:
            return np.zeros(len(pending), np.float32)
        if state.channels:
            first, low = (
                np.array([tensors[name].item() for tensors in state.channels])[:, None] for name in (_FIRST, _LOW)
            )
        else:
            first, low = pending[:, :1], np.zeros((len(pending), 1))
        decay, count = math.exp(-2 * math.pi * self.about.high_pass_hz / self.sample_rate), pending.shape[1]
        weights = (1 - decay) * decay ** np.arange(count - 1, -1, -1)
        low = decay**count * low + ((pending - first) * weights).sum(axis=1, keepdims=True)
        return np.asarray((first + low)[:, 0], np.float32)

    def _tail(self, tensors: Arrays) -> Samples:
        """Return the samples `[1, n]` to which only the frames until now contribute."""
        tail = tensors[_OVERLAP]
        if _WEIGHT in tensors:
            tail = tail / np.maximum(tensors[_WEIGHT], np.float32(self.about.min_weight))
        tail = tail + np.float32(self.about.offset)
        if _LEVEL in tensors:
            # The history of the level begins with that of the samples, the tail later by the same as the first frame.
            num_before = next(spec.shape[1] for spec in self.about.state if spec.input == _SAMPLES)
            levels = tensors[_LEVEL][:, num_before - self.num_leading :][:, : tail.shape[1]]
            tail = tail * np.pad(levels, ((0, 0), (0, tail.shape[1] - levels.shape[1])), constant_values=1.0)
        return np.asarray(tail, np.float32)

    def _tensors(self, voice: Voice) -> Arrays:
        """Return the tensors of a voice under the names of the graph."""
        known = self._prepared.get(id(voice))
        if known is None or known[0] is not voice:
            if len(self._prepared) > 16:  # voices that were changed are not kept for ever
                self._prepared.clear()
            known = voice, {f"cue.{key}": array for key, array in RuntimeVoice.of(voice).tensors.items()}
            self._prepared[id(voice)] = known
        return known[1]
