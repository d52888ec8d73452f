"""Find out when an enrolled voice speaks, without extracting it: a personal VAD, or a presence head alone.

```
load_detector(model) ─► PersonalDetector    of a checkpoint of `task: presence`
                        HeadDetector        of an extractor whose live (or only) presence head needs no estimate
    .enroll(recordings)         ─► Voice
    .detect(recording, voices)  ─► Presence of each voice
```

Recordings are read and computed in blocks, so their length does not matter to memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wesep_py import audio, checkpoint, models
from wesep_py.audio.reading import resample_blocks
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.inference.enrolling.enrollment import load_reported
from wesep_py.inference.enrolling.speech_activity import MAX_ENROLLMENT_S, VAD, check_enrollment_limit
from wesep_py.inference.enrolling.voice_print import Voice, require_model
from wesep_py.inference.extractor import Extractor
from wesep_py.inference.inputs_outputs.inputs import EnrollmentSource, Source, read_embedding, read_source
from wesep_py.inference.model_loading import load as load_extractor
from wesep_py.inference.model_loading import pick_device
from wesep_py.inference.presence_decision.presence import (
    SILENT_LOGIT,
    UNCALIBRATED,
    Calibration,
    Presence,
    presence_of_channels,
    read_calibration,
)
from wesep_py.network.personal_vad import PersonalVAD, is_personal_vad, load_personal_vad, target_logits
from wesep_py.network.streaming_network import StreamingNetwork, StreamState

if TYPE_CHECKING:
    from wesep_py.network.cues import PreparedEnrollment

READ_S = 10.0
"""Seconds that are read from a file at a time."""
BLOCK_S, CONTEXT_S = 60.0, 5.0
"""Seconds of frames that a personal VAD computes at a time, and those before and after that it sees besides."""
Blocks = Iterator[NDArray[np.float32]]
"""Blocks `[channels, samples]` of a recording at the model's rate."""


class PresenceDetector(ABC):
    """Says when enrolled voices speak in recordings of any rate, length and number of channels.

    Attributes:
        name: of the model, for messages.
        model_hash: a voice print is valid for one such hash.
        sample_rate: of the model, in Hz.
        frame_s: seconds from one frame to the next.
        calibration: of the logits.
    """

    name: str
    model_hash: str
    sample_rate: int
    frame_s: float
    calibration: Calibration

    @abstractmethod
    def enroll(self, *sources: EnrollmentSource, vad: VAD = "energy") -> Voice:
        """Enroll a voice from one or more recordings of one person; arguments and errors as `Extractor.enroll`."""

    @abstractmethod
    def track(self, blocks: Blocks, voice: Voice) -> Iterator[NDArray[np.float32]]:
        """Yield the logits `[channels, frames]` of the frames of a recording, block by block."""

    def detect(self, recording: Source, voice: Voice, progress: Callable[[float], None] | None = None) -> Presence:
        """Return the presence of a voice in a recording, of the channel with the highest score.

        Args:
            recording: a path, or a pair `(waveform, sample_rate)` with `[samples]` or `[channels, samples]`.
            voice: from `enroll` of this model.
            progress: called after each block with the seconds that are read.

        Raises:
            AudioError: the recording is missing or damaged.
            InputError: a voice of another model.
        """
        require_model(voice, self.model_hash, self.name)
        reading = _Reading(_blocks_of(recording, self.sample_rate), self.sample_rate, progress)
        logits = np.concatenate(list(self.track(iter(reading), voice)), axis=1)
        # A silent channel does not count, unless all are silent.
        silent = reading.lowest == reading.highest
        logits[silent] = SILENT_LOGIT
        channels = [int(i) for i in np.flatnonzero(~silent)] or list(range(len(logits)))
        presence = presence_of_channels([logits[i] for i in channels], self.frame_s, self.calibration, channels)
        assert presence is not None, "a recording has a channel"
        return presence


class PersonalDetector(PresenceDetector):
    """A personal VAD, ready for use.

    Args:
        network: put into evaluation mode on `device`.
        device: `cpu`, `cuda`, …
        name: of the model, for messages.
        model_hash: of its checkpoint.
        calibration: of its logits.
    """

    def __init__(
        self,
        network: PersonalVAD,
        device: str = "cpu",
        name: str = "model",
        model_hash: str = "unsaved",
        calibration: Calibration | None = None,
    ) -> None:
        self.network, self.device = network.to(device).eval(), device
        self.name, self.model_hash, self.calibration = name, model_hash, calibration or UNCALIBRATED
        self.sample_rate, self.frame_s = network.sample_rate, network.hop_length / network.sample_rate
        self.max_enrollment_s = MAX_ENROLLMENT_S

    def enroll(self, *sources: EnrollmentSource, vad: VAD = "energy") -> Voice:
        if not sources:
            raise InputError("no enrollment was given; at least one recording of the voice is needed")
        if any(read_embedding(source) is not None for source in sources):
            raise InputError(f"{self.name}: takes recordings of a voice, no embedding")
        limit_s = check_enrollment_limit(self.max_enrollment_s)
        recordings = load_reported(sources, self.sample_rate, vad, limit_s, set())  # type: ignore[arg-type]
        with torch.inference_mode():
            prepared = [self.network.prepare(self._tensor(each.waveform[None])) for each in recordings]
            tensors = self.network.combine(prepared, [max(0.1, each.speech_s) for each in recordings])
        tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
        return Voice(tensors, self.model_hash, sum(each.duration_s for each in recordings))

    def track(self, blocks: Blocks, voice: Voice) -> Iterator[NDArray[np.float32]]:
        prepared = {name: tensor.to(self.device) for name, tensor in voice.tensors.items()}
        return self._causal(blocks, prepared) if self.network.causal else self._in_blocks(blocks, prepared)

    def _causal(self, blocks: Blocks, prepared: PreparedEnrollment) -> Iterator[NDArray[np.float32]]:
        network, states, waiting = self.network, None, None
        for block, last in _with_last(blocks):
            if waiting is None:
                waiting, states = np.zeros((len(block), network.before), np.float32), [None] * len(block)
            waiting = np.concatenate([waiting, block], axis=1)
            if last:
                missing = -(waiting.shape[1] - network.before) % network.hop_length
                waiting = np.pad(waiting, ((0, 0), (0, missing + network.after)))
            count = (waiting.shape[1] - network.before - network.after) // network.hop_length
            if count < 1:
                continue
            size = count * network.hop_length
            segments = waiting[:, : size + network.before + network.after]
            rows = []
            with torch.inference_mode():
                for channel, segment in enumerate(segments):
                    logits, states[channel] = network.classify(self._tensor(segment[None]), prepared, states[channel])
                    rows.append(target_logits(logits)[0].cpu().numpy())
            waiting = waiting[:, size:]
            yield np.stack(rows)

    def _in_blocks(self, blocks: Blocks, prepared: PreparedEnrollment) -> Iterator[NDArray[np.float32]]:
        # Frames `start` to `stop` are computed from the frames around them, as far as the recording has them:
        #
        #   | context | start … stop | context |
        #   the samples before the context are dropped; a context begins at a multiple of the network's grid
        network, grid = self.network, self.network.grid
        hop, block, context = network.hop_length, round(BLOCK_S / self.frame_s), round(CONTEXT_S / self.frame_s)
        samples: NDArray[np.float32] | None = None
        first = start = 0  # first frame in `samples`; next frame to compute
        for chunk, last in _with_last(blocks):
            samples = chunk if samples is None else np.concatenate([samples, chunk], axis=1)
            while True:
                available = first + (network.num_frames(samples.shape[1]) if last else samples.shape[1] // hop)
                # The rest joins the last block, so that no block is shorter than the context.
                stop = available if last and available <= start + block + context else start + block
                if start >= stop or available < stop or (not last and available < stop + context):
                    break
                begin, end = max(0, start - context) // grid * grid, min(available, stop + context)
                segment = samples[:, (begin - first) * hop : (end - first) * hop]
                with torch.inference_mode():
                    rows = [network(self._tensor(row[None]), prepared)[0] for row in segment]
                yield torch.stack([target_logits(row[start - begin : stop - begin]) for row in rows]).cpu().numpy()
                start = stop
                drop = max(0, start - context) // grid * grid - first
                samples, first = samples[:, drop * hop :], first + drop
                if last and start >= available:
                    break

    def _tensor(self, samples: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(samples)).to(self.device)


class HeadDetector(PresenceDetector):
    """The presence head of an extractor that streams, without its masks and its synthesis.

    Args:
        extractor: causal, or with a live mode; its (live) presence head needs no estimate.

    Raises:
        ConfigError: the extractor cannot stream.
        InputError: it has no presence head for streams.
    """

    def __init__(self, extractor: Extractor) -> None:
        live = extractor.network.live()
        if live.presence is None:
            raise InputError(
                f"{extractor.name}: has no presence head that works without an estimate; use `wesep extract --timeline`"
            )
        self.extractor, self.step = extractor, DetectionStep(live).eval()
        self.name, self.model_hash = extractor.name, extractor.model_hash
        self.sample_rate, self.frame_s = extractor.sample_rate, live.backbone.stride / extractor.sample_rate
        self.calibration = extractor.live_calibration

    def enroll(self, *sources: EnrollmentSource, vad: VAD = "energy") -> Voice:
        return self.extractor.enroll(*sources, vad=vad)

    def track(self, blocks: Blocks, voice: Voice) -> Iterator[NDArray[np.float32]]:
        device, step = self.extractor.device, self.step
        state: StreamState | None = None
        num_samples = num_frames = 0
        for block, last in _with_last(blocks):
            prepared = {k: v.to(device).expand(len(block), *v.shape[1:]) for k, v in voice.tensors.items()}
            with torch.inference_mode():
                samples = torch.from_numpy(np.ascontiguousarray(block)).to(device)
                output = step(samples, step.initial_state(len(block)) if state is None else state, prepared)
                state, found = output.state, [output.presence_logits]
                num_samples += block.shape[1]
                num_frames += 0 if found[0] is None else found[0].shape[1]
                if last:  # the frames that reach beyond the end see zeros there
                    missing = int(step.network.backbone.num_frames(torch.tensor(num_samples))) - num_frames
                    size = step.span.size + (missing - 1) * step.stride
                    segment = torch.nn.functional.pad(state.samples, (0, max(0, size - state.samples.shape[1])))
                    found.append(step.run_frames(segment, None, state, prepared)[1] if missing > 0 else None)
            if logits := [each.cpu().numpy() for each in found if each is not None]:
                yield np.concatenate(logits, axis=1)


class DetectionStep(StreamingNetwork):
    """One step of a causal network that ends at its presence head: no mask, no synthesis."""

    def run_frames(
        self, segment: Tensor, level: Tensor | None, state: StreamState, prepared: PreparedEnrollment
    ) -> tuple[Tensor, Tensor | None, tuple[Any, Any], Tensor, Tensor | None]:
        """Return zeros in place of the estimate, and otherwise what `StreamingNetwork.run_frames` returns."""
        network_state = (None, None) if state.network is None else (state.network.backbone, state.network.presence)
        num_frames = (segment.shape[1] - self.span.size) // self.stride + 1
        if num_frames < 1:
            return segment[:, :0], None, network_state, state.overlap, state.weight
        analysis = self.network.backbone.analyse_frames(segment)
        latent, encoder_state = self.network.encode(analysis, prepared, network_state[0])
        presence, presence_state = self.network.detect(latent, analysis, prepared, None, network_state[1])
        done = torch.zeros_like(segment[:, : num_frames * self.stride])
        return done, presence, (encoder_state, presence_state), state.overlap, state.weight


def load_detector(model: str | PathLike[str] | None = None, device: str = "auto") -> PresenceDetector:
    """Load a model that says when a voice speaks.

    Args:
        model: a checkpoint of `task: presence`, or of an extractor; as for `load`.
        device: as for `load`.

    Raises:
        CheckpointError, InputError: as `load`; an extractor without a presence head that works without an estimate.
    """
    name, path = models.find_model(model)
    folder = checkpoint.resolve(path)
    saved = checkpoint.load(folder)
    if not is_personal_vad(saved.config):
        extractor = load_extractor(model, device, verify="none")
        try:
            return HeadDetector(extractor)
        except ConfigError as error:
            raise InputError(
                f"{name}: works on whole recordings and estimates only ({error}); use `wesep extract --timeline`"
            ) from error
    calibration = read_calibration(saved.provenance, str(folder / checkpoint.PROVENANCE))
    return PersonalDetector(load_personal_vad(folder), pick_device(device), name, saved.hash, calibration)


class _Reading:
    """Blocks of a recording, of whose channels the extremes are noted."""

    def __init__(self, blocks: Iterable[NDArray[np.float32]], sample_rate: int, progress: Any) -> None:
        self._blocks, self._rate, self._progress = blocks, sample_rate, progress
        self.lowest = self.highest = np.zeros(0, np.float32)

    def __iter__(self) -> Blocks:
        done = 0
        for block in self._blocks:
            lowest, highest = block.min(axis=1), block.max(axis=1)
            self.lowest = np.minimum(self.lowest, lowest) if done else lowest
            self.highest = np.maximum(self.highest, highest) if done else highest
            done += block.shape[1]
            yield block
            if self._progress is not None:
                self._progress(done / self._rate)


def _blocks_of(recording: Source, sample_rate: int) -> Iterable[NDArray[np.float32]]:
    """Return the blocks `[channels, samples]` of a recording, at a rate in Hz."""
    if isinstance(recording, (str, PathLike)):
        about = audio.info(recording)
        blocks = audio.read_blocks(recording, round(READ_S * about.sample_rate))
        return resample_blocks(blocks, about.sample_rate, sample_rate, about.num_channels)
    return [read_source(recording).at_rate(sample_rate)]


def _with_last(blocks: Blocks) -> Iterator[tuple[NDArray[np.float32], bool]]:
    """Yield each block, and whether it is the last."""
    previous = next(blocks, None)
    if previous is None:
        raise InputError("the recording has no samples")
    for block in blocks:
        yield previous, False
        previous = block
    yield previous, True
