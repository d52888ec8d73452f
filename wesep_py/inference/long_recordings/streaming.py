"""Causal networks along a recording of any length: the state is carried from block to block, so nothing overlaps.

`make_runner` returns the runner that a network allows: `StreamingRunner`, whose result is that of the whole recording,
for a causal network, and `overlap_add.OverlapAddRunner` for all others. `check_shifts` returns the
number of shifted copies to average: a network that streams allows only one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.common.errors import InputError, shorten
from wesep_py.inference.long_recordings.blocks import BlockGrid, BlockOutput
from wesep_py.inference.long_recordings.overlap_add import OverlapAddRunner, num_frames
from wesep_py.network.extraction_network import Analysis
from wesep_py.network.model_config import MAX_SHIFTS

if TYPE_CHECKING:
    from wesep_py.inference.enrolling.voice_print import Voice
    from wesep_py.network.extraction_network import TargetSpeakerExtractor


def make_runner(
    network: TargetSpeakerExtractor,
    device: str | torch.device,
    voices: Sequence[Voice],
    grid: BlockGrid,
    num_channels: int,
    shifts: int = 1,
) -> StreamingRunner | OverlapAddRunner:
    """Return what takes the network through a recording in blocks.

    Arguments as `OverlapAddRunner`; `shifts` from `check_shifts`.
    """
    if supports_streaming(network):
        return StreamingRunner(network, device, voices, grid, num_channels)
    return OverlapAddRunner(network, device, voices, grid, num_channels, shifts)


def supports_streaming(network: TargetSpeakerExtractor) -> bool:
    """Return whether the network can continue from a state, so that blocks give the result of the whole recording."""
    if getattr(network, "latency", None) is None:
        return False
    return not any(cue.looks_ahead or cue.needs_speaker_frames or cue.stage == "waveform" for cue in network.cues)


def check_shifts(network: TargetSpeakerExtractor, shifts: int | None) -> int:
    """Return the number of shifted copies of a mixture that an extraction averages (`overlap_add.extract_averaged`).

    Args:
        network: its configuration has a number of its own (`ModelConfig.shifts`).
        shifts: a number that was asked for; `None` is the network's own, and 1 if the network supports streaming: a
            shift does not fit the state that is carried from block to block.

    Raises:
        InputError: not an integer from 1 to 16 and to the network's stride, or more than 1 for a network that supports
            streaming.
    """
    if shifts is None:
        return 1 if supports_streaming(network) else int(getattr(network, "shifts", 1))
    most = min(MAX_SHIFTS, network.backbone.stride)
    if isinstance(shifts, bool) or not isinstance(shifts, Integral) or not 1 <= shifts <= most:
        raise InputError(f"shifts is {shorten(repr(shifts), 60)}; a whole number from 1 to {most} is allowed")
    if shifts > 1 and supports_streaming(network):
        raise InputError(f"shifts is {shifts}; a causal network that streams allows 1 only, so leave it out")
    return int(shifts)


class StreamingRunner:
    """Run a causal network block by block, each from the state in which the block before ended.

    The result is that of the whole recording. The high-pass and the level tracker of the network are causal too: their
    state is carried from one `push` to the next, so every sample passes them once.

    Args:
        network, device, voices, num_channels: as `OverlapAddRunner`.
        grid: lengths in samples, of which `step`, `stride` and `frame` are used.
    """

    # A frame is computed from a window of samples, and a sample of the result from all frames whose windows hold it. So
    # a block reads `margin` samples on either side, and its result lags behind the frames that it computes:
    #
    #   samples read        |margin|---------- step ----------|margin|
    #   frames computed            |----------- block --------|
    #   samples finished    |---- by this block ------|  these need frames of the next block
    #
    # The last frames of a block are kept (`past`) to finish those samples with the next one.

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
        assert network.latency is not None, "the network has to support streaming"
        # At least a window, in whole frames: no frame depends on samples farther away.
        stride, span = self.grid.stride, network.backbone.span
        window = max(network.latency + 2, 0 if span is None else span.size)
        self.margin = stride * (-(-window // stride) + 1)
        # From sample number `_buffer_start` on: the mixture as it came; after high-pass and division by the level; and
        # that level.
        self._mixture, self._buffer_start = np.zeros((num_channels, 0), np.float32), 0
        self._filtered, self._level = self._mixture, self._mixture
        self._front_end_state: Any = None
        # Of the next block: its number, and the state of the network for each voice and channel.
        self._index = 0
        self._states: dict[str, Any] = {}

    def push(self, samples: NDArray[np.float32]) -> Iterator[BlockOutput]:
        """Take the next samples `[channels, samples]` at the network's rate; yield the blocks that they complete."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(samples)).to(self.device)
            filtered, level, self._front_end_state = self.network.preprocess.forward_block(batch, self._front_end_state)
        levels = np.broadcast_to(level.cpu().numpy() if isinstance(level, torch.Tensor) else level, samples.shape)
        self._mixture = np.concatenate([self._mixture, samples], axis=1)
        self._filtered = np.concatenate([self._filtered, filtered.cpu().numpy()], axis=1)
        self._level = np.concatenate([self._level, levels], axis=1, dtype=np.float32)
        self._drop()
        while self._end > (self._index + 1) * self.grid.step + self.margin:
            yield self._run_block(last=False)
            self._drop()

    def finish(self) -> Iterator[BlockOutput]:
        """Yield the last block, after all samples were pushed."""
        if self._end:
            yield self._run_block(last=True)

    def resume(self, index: int, tail: NDArray[np.float32], state: Any) -> None:
        """Continue after the block `index` with the state after it; samples are pushed from the first one nevertheless.

        The high-pass runs over the samples of the finished blocks once more, so its state is not needed.
        """
        self._index = index + 1
        self._states = {key: unpack_state(value, self.device) for key, value in state.items()}

    def state(self) -> dict[str, Any]:
        """Return what `resume` needs, as tensors on the CPU, lists and dictionaries."""
        return {key: pack_state(value) for key, value in self._states.items()}

    @property
    def _end(self) -> int:
        return self._buffer_start + self._mixture.shape[1]

    def _finished_before(self, index: int) -> int:
        """Return the number of samples that are finished before the block `index`: whole frames of energies."""
        lag = -(-(self.margin + self.grid.stride) // self.grid.frame) * self.grid.frame
        return max(0, index * self.grid.step - lag)

    def _drop(self) -> None:
        """Drop the buffered samples that no later block reads."""
        needed_from = min(self._finished_before(self._index), self._index * self.grid.step - self.margin)
        count = min(max(0, needed_from - self._buffer_start), self._mixture.shape[1])
        self._mixture, self._filtered = self._mixture[:, count:], self._filtered[:, count:]
        self._level = self._level[:, count:]
        self._buffer_start += count

    def _run_block(self, last: bool) -> BlockOutput:
        stride, step, end = self.grid.stride, self.grid.step, self._end
        start = self._index * step
        # Samples read, and of the frames in them those of this block: frame t is centred on sample t · stride.
        read_from, read_to = max(0, start - self.margin), end if last else start + step + self.margin
        count = num_frames(self.network, end) - start // stride if last else step // stride
        first = (start - read_from) // stride
        # Samples finished.
        done, finished = self._finished_before(self._index), end if last else self._finished_before(self._index + 1)

        estimates = np.zeros((*self.shape, finished - done), dtype=np.float32)
        tracks: list[list[NDArray[np.float32]]] = [[] for _ in self.prepared]
        for channel, row in enumerate(self._filtered):
            samples = torch.from_numpy(row[read_from - self._buffer_start : read_to - self._buffer_start].copy())[None]
            with torch.inference_mode():
                analysis = self.network.backbone.analyse(samples.to(self.device)).frames(first, first + count)
                for voice, tensors in enumerate(self.prepared):
                    estimates[voice, channel], logits = self._run_frames(
                        f"{voice}.{channel}", analysis, tensors, start, done, finished, last
                    )
                    if logits is not None:
                        tracks[voice].append(logits)
        finished_part = slice(done - self._buffer_start, finished - self._buffer_start)
        estimates *= self._level[:, finished_part]
        mixture = self._mixture[:, finished_part]
        output = BlockOutput(
            self._index,
            mixture,
            estimates,
            tail=np.zeros((*self.shape, 0), np.float32),
            logits=np.array(tracks) if tracks[0] else None,
            last=last,
            voice_changed=[False] * self.shape[0],
        )
        self._index += 1
        return output

    def _run_frames(
        self,
        key: str,
        analysis: Analysis,
        tensors: dict[str, torch.Tensor],
        start: int,
        done: int,
        finished: int,
        last: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Run the network on the frames of a block, for one voice in one channel.

        Args:
            key: of the voice and channel, in the states.
            analysis: the frames of the block.
            tensors: of the voice.
            start: first sample of the block.
            done, finished: the samples to return are those from `done` to `finished`.
            last: true for the last block.

        Returns:
            Samples `[finished - done]`, and the presence logits of the frames.
        """
        network, stride = self.network, self.grid.stride
        axis, past = network.backbone.frame_axis, self._states.get(key)
        latent, state = network.encode(analysis, tensors, None if past is None else past["state"])
        presence, presence_state = network.detect(
            latent, analysis, tensors, state=None if past is None else past["detected"]
        )
        # Put the last frames of the block before in front. Synthesis of both gives samples from the first of these
        # frames on; those at the beginning lack the frames before them, and were finished by the block before.
        #
        #   frames      |-- past --|------- block -------|
        #   samples   first    done |----- returned -----| finished
        first_sample = start
        if past is not None:
            first_sample -= past["latent"].shape[axis] * stride
            latent = torch.cat([past["latent"], latent], dim=axis)
            analysis = past["heard"].followed_by(analysis)
        length = finished - first_sample if last else (analysis.num_frames - 1) * stride
        samples = network.backbone.synthesise(latent, analysis, length)[0][
            0, done - first_sample : finished - first_sample
        ]
        # Frames that the samples from `finished` on depend on: back to `finished` (at most margin + frame + stride
        # before the end of the block) and a margin more.
        num_kept = min(analysis.num_frames, (2 * self.margin + self.grid.frame) // stride + 2)
        self._states[key] = {
            "latent": latent.narrow(axis, latent.shape[axis] - num_kept, num_kept).clone(),
            "heard": analysis.frames(-num_kept),
            "state": state,
            "detected": presence_state,
        }
        return samples.float().cpu().numpy(), None if presence is None else presence[0].float().cpu().numpy()


def pack_state(value: Any) -> Any:
    """Return a state of tensors on the CPU, lists and dictionaries, which `torch.load` reads with `weights_only`."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Analysis):
        return {"analysis": {field.name: pack_state(getattr(value, field.name)) for field in fields(value)}}
    if isinstance(value, dict):
        return {key: pack_state(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(pack_state(item) for item in value)
    return value


def unpack_state(value: Any, device: str | torch.device) -> Any:
    """Undo `pack_state`, on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict) and set(value) == {"analysis"}:
        return Analysis(**{key: unpack_state(item, device) for key, item in value["analysis"].items()})
    if isinstance(value, dict):
        return {key: unpack_state(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(unpack_state(item, device) for item in value)
    return value
