"""The network of a `Stream` in torch: one step of `StreamingNetwork` at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from wesep_py.features.high_pass import HighPassState
from wesep_py.features.level_tracker import LevelState
from wesep_py.features.stft import MIN_OVERLAP
from wesep_py.inference.enrolling.voice_print import Voice
from wesep_py.inference.long_recordings.streaming import pack_state, unpack_state
from wesep_py.network.extraction_network import NetworkState
from wesep_py.network.preprocessing import FrontEndState
from wesep_py.network.streaming_network import StreamingNetwork, StreamState

if TYPE_CHECKING:
    from wesep_py.inference.extractor import Extractor


class TorchEngine:
    """A `StreamEngine` that runs a network in torch.

    Args:
        extractor: a causal model, or one with a live mode.
        check_voice: refuses what is no voice of the model.

    Raises:
        ConfigError: the model cannot stream; the message says which part looks ahead.
    """

    def __init__(self, extractor: Extractor, check_voice: Callable[[Any], None]) -> None:
        self.network = StreamingNetwork(extractor.network).eval()
        self.model, self.model_hash, self.device = extractor.name, extractor.model_hash, extractor.device
        self.sample_rate, self.calibration = extractor.sample_rate, extractor.live_calibration
        latency = self.network.network.latency
        assert latency is not None, "StreamingNetwork refuses networks that look ahead without bound"
        self.latency, self.max_delay = latency, self.network.max_delay
        self.num_leading = self.network.num_leading
        self.check_voice = check_voice
        # The tensors of a voice on the device, for the voices in use.
        self._prepared: dict[int, tuple[Voice, dict[str, torch.Tensor]]] = {}

    def initial_state(self, num_channels: int) -> StreamState:
        """Return the state before the first sample."""
        return self.network.initial_state(num_channels)

    def step(
        self, samples: NDArray[np.float32], state: StreamState, voice: Voice
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, StreamState]:
        """Take samples `[channels, samples]`; see `StreamEngine`."""
        if not samples.shape[1]:
            return samples, None, state
        with torch.inference_mode():
            block = torch.from_numpy(np.ascontiguousarray(samples)).to(self.device)
            output = self.network(block, state, self._tensors(voice, len(samples)))
        logits = output.presence_logits
        if logits is not None:
            logits = self.calibration.frame_scale * logits + self.calibration.frame_offset
        return _array(output.waveform), None if logits is None else _array(logits), output.state

    def finish(self, num_samples: int, num_out: int, state: StreamState, voice: Voice) -> NDArray[np.float32]:
        """Return all samples after the first `num_out` of `num_samples` and the leading ones."""
        network, stride = self.network, self.network.stride
        num_left = network.num_leading + num_samples - num_out
        if num_samples == 0 or num_left <= 0:
            return np.zeros((len(state.samples), 0), np.float32)
        # The frames that reach beyond the end see zeros there, as offline.
        num_frames = int(network.network.backbone.num_frames(torch.tensor(num_samples))) - num_out // stride
        needed = network.span.size + (num_frames - 1) * stride if num_frames > 0 else state.samples.shape[1]
        with torch.inference_mode():
            padding = (0, max(0, needed - state.samples.shape[1]))
            segment = F.pad(state.samples, padding)
            level = None if state.level is None else F.pad(state.level, (*padding,), value=1.0)
            tensors = self._tensors(voice, len(segment))
            finished, _, _, overlap, weight = network.run_frames(segment, level, state, tensors)
            # No frame follows: what the last frames have left is finished.
            tail = overlap if weight is None else overlap / weight.clamp_min(MIN_OVERLAP)
            tail = tail + network.network.backbone.synthesis_offset()
            if level is not None:
                first = network.span.synthesis_start - network.span.start + finished.shape[1]
                rest = level[:, first : first + tail.shape[1]]
                tail = tail * F.pad(rest, (0, tail.shape[1] - rest.shape[1]), value=1.0)
            ended = torch.cat([finished, tail], dim=1)[:, :num_left]
            return _array(F.pad(ended, (0, num_left - ended.shape[1])))

    def pack(self, state: StreamState) -> Any:
        """Return the state as arrays, numbers, lists and dictionaries."""
        return _as_numpy(pack_state(_plain(state)))

    def unpack(self, packed: Any) -> StreamState:
        """Undo `pack`."""
        values = unpack_state(_as_torch(packed), self.device)
        network = values["network"]
        if network is not None:
            high_pass, level = network["front_end"]
            front_end = FrontEndState(
                None if high_pass is None else HighPassState(*high_pass), None if level is None else LevelState(*level)
            )
            network = NetworkState(network["backbone"], network["presence"], front_end)
        return StreamState(values["samples"], values["level"], values["overlap"], values["weight"], network)

    def _tensors(self, voice: Voice, num_channels: int) -> dict[str, torch.Tensor]:
        """Return the tensors of a voice for a batch of channels."""
        known = self._prepared.get(id(voice))
        if known is None or known[0] is not voice:
            if len(self._prepared) > 16:  # voices that were changed are not kept for ever
                self._prepared.clear()
            known = voice, {key: tensor.to(self.device) for key, tensor in voice.tensors.items()}
            self._prepared[id(voice)] = known
        return {key: tensor.expand(num_channels, *tensor.shape[1:]) for key, tensor in known[1].items()}


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)


def _plain(state: StreamState) -> dict[str, Any]:
    """Return a state as a dictionary, in which named tuples are dictionaries and lists."""
    network = state.network
    if network is not None:
        front_end = [None if part is None else list(part) for part in network.front_end or (None, None)]
        network = {"backbone": network.backbone, "presence": network.presence, "front_end": front_end}
    return {**state._asdict(), "network": network}


def _as_numpy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: _as_numpy(item) for key, item in value.items()}
    return type(value)(_as_numpy(item) for item in value) if isinstance(value, (list, tuple)) else value


def _as_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: _as_torch(item) for key, item in value.items()}
    return type(value)(_as_torch(item) for item in value) if isinstance(value, (list, tuple)) else value
