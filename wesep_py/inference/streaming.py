"""The network on waveforms at its own rate: channel by channel, or several recordings together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.inference.overlap_add import (
    Blocks,
    BlockGrid,
    OverlapAddRunner,
    BlockOutput,
    is_constant,
    num_frames,
    run_network,
)
from wesep_py.inference.presence import SILENT_LOGIT, UNCALIBRATED, Calibration, Presence, presence_of_channels
from wesep_py.inference.voice_print import Voice
from wesep_py.network.extraction_network import Analysis, TargetSpeakerExtractor

if TYPE_CHECKING:
    from wesep_py.inference.voice_print import Voice
    from wesep_py.network.extraction_network import TargetSpeakerExtractor


# ----------------------------------------
# A causal network along a recording of any length: its state is carried from block to block, nothing overlaps.


def supports_streaming(network: TargetSpeakerExtractor) -> bool:
    """Whether a network can go on from a state, so that blocks give what the whole recording would."""
    if getattr(network, "latency", None) is None or network.normalise != "none":
        return False
    return not any(cue.looks_ahead or cue.needs_speaker_frames or cue.stage == "waveform" for cue in network.cues)


class StreamingRunner:
    """Blocks that begin with the state in which the one before ended: the result of the whole recording.

    A block's frames are computed from the samples around it; as much as a window reaches is added at both ends, and the
    frames that miss samples are thrown away. A sample is finished when all frames that it is made from are there.
    The network's high-pass is carried on as well: each sample passes it once, on its way into the buffer.

    Args:
        as `Overlapping`; of `grid` only the step counts.
    """

    def __init__(
        self,
        network: TargetSpeakerExtractor,
        device: str | torch.device,
        voices: Sequence[Voice],
        grid: BlockGrid,
        num_channels: int,
    ) -> None:
        self.network, self.device, self.grid = network, device, grid
        self.prepared = [{key: tensor.to(device) for key, tensor in voice.tensors.items()} for voice in voices]
        self.shape = (len(voices), num_channels)
        assert network.latency is not None, "asked for by `carries_state`"
        stride = self.grid.stride
        # Beyond a window on either side no frame knows of a sample.
        self.margin = stride * (-(-(network.latency + 2) // stride) + 1)
        # What came, and what the network hears of it; both begin at sample `_from`.
        self._mixture, self._from = np.zeros((num_channels, 0), np.float32), 0
        self._buffer = self._mixture
        self._index = 0
        self._states: dict[str, Any] = {}
        self._filtered: Any = None

    def push(self, samples: NDArray[np.float32]) -> Iterator[BlockOutput]:
        """As `Overlapping.push`."""
        self._mixture = np.concatenate([self._mixture, samples], axis=1)
        self._buffer = np.concatenate([self._buffer, self._heard(samples)], axis=1)
        self._drop()
        while self._from + self._buffer.shape[1] > (self._index + 1) * self.grid.step + self.margin:
            yield self._block(last=False)
            self._drop()

    def _heard(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(samples)).to(self.device)
            heard, self._filtered = self.network.preprocess_block(given, self._filtered)
        return heard.cpu().numpy()

    def finish(self) -> Iterator[BlockOutput]:
        """The last piece."""
        if self._from + self._buffer.shape[1]:
            yield self._block(last=True)

    def resume(self, index: int, tail: NDArray[np.float32], state: Any) -> None:
        """Go on after the block `index`, whose `state` was kept."""
        self._index = index + 1
        self._states = {key: _unpacked(one, self.device) for key, one in state.items()}

    def state(self) -> dict[str, Any]:
        """What `resume` needs, as tensors on the CPU, lists and dictionaries."""
        return {key: _packed(one) for key, one in self._states.items()}

    def _finished(self, index: int) -> int:
        """Samples that are finished before the block `index`."""
        behind = -(-(self.margin + self.grid.stride) // self.grid.frame) * self.grid.frame
        return max(0, index * self.grid.step - behind)

    def _drop(self) -> None:
        before = min(self._finished(self._index), self._index * self.grid.step - self.margin)
        count = min(max(0, before - self._from), self._buffer.shape[1])
        self._mixture, self._buffer, self._from = self._mixture[:, count:], self._buffer[:, count:], self._from + count

    def _block(self, last: bool) -> BlockOutput:
        start, end = self._index * self.grid.step, self._from + self._buffer.shape[1]
        stop = end if last else start + self.grid.step
        done, finished = self._finished(self._index), end if last else self._finished(self._index + 1)
        mixture = self._mixture[:, done - self._from : finished - self._from]
        estimates = np.zeros((*self.shape, finished - done), dtype=np.float32)
        rows: dict[tuple[int, int], NDArray[np.float32]] = {}
        first, upto = max(0, start - self.margin), end if last else stop + self.margin
        count = (
            num_frames(self.network, end) - start // self.grid.stride if last else self.grid.step // self.grid.stride
        )
        begin = (start - first) // self.grid.stride
        for channel in range(self.shape[1]):
            samples = torch.from_numpy(self._buffer[channel, first - self._from : upto - self._from].copy())[None]
            with torch.inference_mode():
                heard = self.network.backbone.analyse(samples.to(self.device)).frames(begin, begin + count)
                for voice, kept in enumerate(self.prepared):
                    made, logits = self._go_on(f"{voice}.{channel}", heard, kept, start, done, finished, last)
                    estimates[voice, channel] = made
                    if logits is not None:
                        rows[voice, channel] = logits
        logits = np.stack([rows[place] for place in sorted(rows)]).reshape(*self.shape, -1) if rows else None
        tail = np.zeros((*self.shape, 0), np.float32)
        piece = BlockOutput(self._index, mixture, estimates, tail, logits, last, [False] * self.shape[0])
        self._index += 1
        return piece

    def _go_on(
        self, key: str, heard: Analysis, kept: dict[str, torch.Tensor], start: int, done: int, finished: int, last: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The samples from `done` to `finished`, and the logits of the block's frames."""
        network, stride = self.network, self.grid.stride
        axis, past = network.backbone.frame_axis, self._states.get(key)
        latent, state = network.encode(heard, kept, None if past is None else past["state"])
        found, detected = network.detect(latent, heard, kept, state=None if past is None else past["detected"])
        logits = None if found is None else found[0].float().cpu().numpy()
        if past is not None:
            latent = torch.cat([past["latent"], latent], dim=axis)
            heard = past["heard"].followed_by(heard)
        first = start - (0 if past is None else past["latent"].shape[axis]) * stride
        length = finished - first if last else (heard.num_frames - 1) * stride
        made = network.backbone.synthesise(latent, heard, length)[0][0, done - first : finished - first]
        keep = min(heard.num_frames, (2 * self.margin + self.grid.frame) // stride + 2)
        size = latent.shape[axis]
        self._states[key] = {
            "latent": latent.narrow(axis, size - keep, keep).clone(),
            "heard": heard.frames(-keep),
            "state": state,
            "detected": detected,
        }
        return made.float().cpu().numpy(), logits


def make_runner(
    network: TargetSpeakerExtractor,
    device: str | torch.device,
    voices: Sequence[Voice],
    grid: BlockGrid,
    num_channels: int,
) -> StreamingRunner | OverlapAddRunner:
    """What takes a network through a recording in blocks, as the network allows; arguments as `Overlapping`."""
    kind = StreamingRunner if supports_streaming(network) else OverlapAddRunner
    return kind(network, device, voices, grid, num_channels)


def _packed(value: Any) -> Any:
    """Tensors on the CPU in lists and dictionaries, which `torch.load` reads without unpickling objects."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Analysis):
        return {"analysis": {one.name: _packed(getattr(value, one.name)) for one in fields(value)}}
    if isinstance(value, dict):
        return {key: _packed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_packed(item) for item in value)
    return value


def _unpacked(value: Any, device: str | torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict) and set(value) == {"analysis"}:
        return Analysis(**{key: _unpacked(item, device) for key, item in value["analysis"].items()})
    if isinstance(value, dict):
        return {key: _unpacked(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_unpacked(item, device) for item in value)
    return value


def run_channels(
    network: TargetSpeakerExtractor,
    device: str | torch.device,
    mixture: np.ndarray,
    voice: Voice,
    blocks: Blocks,
    calibration: Calibration = UNCALIBRATED,
) -> tuple[np.ndarray, Presence | None]:
    """The network on each channel: whole, or block by block where the mixture is longer than one block.

    Args:
        network: in evaluation mode.
        device: on which it is.
        mixture: `[channels, samples]` at the network's rate.
        voice: of this network.
        blocks: how long they are.
        calibration: of the presence head.

    Returns:
        Estimate of the same shape at any level, and the presence in the channel where it is surest.
    """
    grid = blocks.grid(network.sample_rate, network.backbone.stride)
    if mixture.shape[1] <= grid.block:
        prepared = {name: tensor.to(device) for name, tensor in voice.tensors.items()}
        estimates, logits = run_network(network, device, mixture, [prepared])
    else:
        runner = make_runner(network, device, [voice], grid, len(mixture))
        pieces = [*runner.push(mixture), *runner.finish()]
        estimates = np.concatenate([piece.estimates for piece in pieces], axis=-1)
        tracks = [piece.logits for piece in pieces if piece.logits is not None]
        logits = np.concatenate(tracks, axis=-1) if tracks else None
    frame_s = network.backbone.stride / network.sample_rate
    if logits is None:
        return estimates[0], None
    sounding = [one for one, channel in zip(logits[0], mixture, strict=True) if not is_constant(channel)]
    return estimates[0], presence_of_channels(sounding or list(logits[0]), frame_s, calibration)


def run_together(
    network: TargetSpeakerExtractor,
    device: str | torch.device,
    mixtures: np.ndarray,
    voices: Sequence[Voice],
    calibration: Calibration = UNCALIBRATED,
) -> tuple[np.ndarray, list[Presence | None]]:
    """The network on several recordings at a time.

    Args:
        network, device, calibration: as `run_channels`.
        mixtures: `[recordings, samples]`.
        voices: one a recording.

    Returns:
        Estimates of the same shape at any level, zero where the mixture is silent or constant, and the presence in
        each: nobody speaks in silence.

    Raises:
        InputError: the voices' tensors are not of one shape, or are not as many as the recordings.
    """
    shapes = [{key: tensor.shape for key, tensor in voice.tensors.items()} for voice in voices]
    if len(voices) != len(mixtures) or any(shape != shapes[0] for shape in shapes):
        raise InputError("a batch needs a voice for each recording, of one shape; extract them one by one")
    prepared = {key: torch.cat([v.tensors[key] for v in voices]).to(device) for key in voices[0].tensors}
    with torch.inference_mode():
        output = network.extract(torch.from_numpy(mixtures).to(device), prepared)
    estimates, logits = output.waveforms[0].float().cpu().numpy(), output.presence_logits
    sounding = np.array([not is_constant(mixture) for mixture in mixtures])
    estimates[~sounding] = 0.0
    if logits is None:
        return estimates, [None] * len(mixtures)
    frame_s, tracks = network.backbone.stride / network.sample_rate, logits.float().cpu().numpy()
    tracks[~sounding] = SILENT_LOGIT
    return estimates, [presence_of_channels([track], frame_s, calibration) for track in tracks]
