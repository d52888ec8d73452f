"""The extractor without torch: load an exported model, enroll a voice, extract it from recordings and streams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError, WesepError
from wesep_py.inference.enrolling.enrollment import (
    assess_recordings,
    check_min_speech,
    load_reported,
    require_speech,
)
from wesep_py.inference.enrolling.enrollment_quality import VoiceQuality
from wesep_py.inference.enrolling.speech_activity import MAX_ENROLLMENT_S, VAD, check_enrollment_limit
from wesep_py.inference.enrolling.voice_print import Voice, require_model
from wesep_py.inference.inputs_outputs.inputs import EnrollmentSource, Source, read_embedding, read_source
from wesep_py.inference.live_stream.stream import Stream
from wesep_py.inference.long_recordings.blocks import BlockRunner, Blocks, Estimates, extract_channels
from wesep_py.inference.presence_decision.presence import UNCALIBRATED
from wesep_py.inference.result import Result, make_result
from wesep_py.runtime.model_folder import Arrays, ModelFolder
from wesep_py.runtime.onnx_engine import OnnxEngine
from wesep_py.runtime.runtime_voice import RuntimeVoice

log = logging.getLogger(__name__)
# Samples of a long recording that go through the graph of a stream at once.
_PIECE = 160_000


def load(
    folder: str | PathLike[str], max_enrollment_s: float = MAX_ENROLLMENT_S, threads: int | None = None
) -> RuntimeExtractor:
    """Load an exported model and return an extractor.

    Args:
        folder: that `wesep export MODEL -o FOLDER` wrote; with `--stream` if streams are needed.
        max_enrollment_s: as `wesep_py.Extractor`.
        threads: processor threads of the network; `None` is one for a stream, and all for recordings.

    Raises:
        InputError: it is no such folder; damaged; of another format version. Or onnxruntime is not installed.

    >>> load("base_onnx").sample_rate                                                           # doctest: +SKIP
    16000
    """
    return RuntimeExtractor(ModelFolder(folder, threads), max_enrollment_s)


class RuntimeExtractor:
    """An exported model ready for use: as `wesep_py.Extractor`, without torch.

    It has no `live` (`stream` works live), no `voices`, no `extract_batch` and no shifted copies.

    Args:
        folder: the exported model.
        max_enrollment_s: maximum duration of an enrollment in seconds that enters the network. 1 or more.

    Raises:
        InputError: `max_enrollment_s` is not such a number.
    """

    def __init__(self, folder: ModelFolder, max_enrollment_s: float = MAX_ENROLLMENT_S) -> None:
        self.folder, self.max_enrollment_s = folder, check_enrollment_limit(max_enrollment_s)
        self.calibration = folder.calibration or UNCALIBRATED
        self._warned_of: set[str] = set()

    @property
    def name(self) -> str:
        """Name of the model, for messages."""
        return self.folder.name

    @property
    def model_hash(self) -> str:
        """Hash of the checkpoint that was exported; a voice print is valid for one such hash."""
        return self.folder.model_hash

    @property
    def sample_rate(self) -> int:
        """Sample rate of the model in Hz; recordings are resampled to it and back."""
        return self.folder.sample_rate

    @property
    def latency(self) -> int | None:
        """Algorithmic latency of a stream in samples at the model's rate; `None` without the graph of a stream."""
        return None if self.folder.stream is None else self.folder.stream.latency

    @property
    def has_live_presence(self) -> bool:
        """True if a stream of the model knows the presence of the voice."""
        return self.folder.stream is not None and self.folder.has_presence("stream")

    def enroll(
        self,
        *sources: EnrollmentSource,
        vad: VAD = "energy",
        min_speech_s: float = 0.0,
        max_enrollment_s: float | None = None,
    ) -> RuntimeVoice:
        """Enroll a voice from one or more recordings of one person, as `wesep_py.Extractor.enroll`.

        Args:
            sources: paths, also of segments (`meeting.wav@12.3-17.8`), or pairs `(waveform, sample_rate)`.
            vad: voice activity detection; `energy` only, since `silero` needs torch.
            min_speech_s: minimum of speech in all recordings together, in seconds.
            max_enrollment_s: maximum duration in seconds of all recordings together that enters the network.

        Raises:
            AudioError: a recording is missing, damaged, silent or shorter than 0.1 s.
            InputError: no source at all; not a recording; less speech than `min_speech_s`; another `vad`.
        """
        check_min_speech(min_speech_s)
        if not sources:
            raise InputError("no enrollment was given; at least one recording of the voice is needed")
        if vad == "silero":
            raise InputError("vad: is 'silero', which needs torch; an exported model takes 'energy'")
        if any(read_embedding(source) is not None for source in sources):
            raise InputError(f"{self.name}: takes recordings of a voice, no embedding; give a file")
        limit_s = check_enrollment_limit(self.max_enrollment_s if max_enrollment_s is None else max_enrollment_s)
        recordings: list[Source] = list(sources)  # type: ignore[arg-type]
        enrollments = load_reported(recordings, self.sample_rate, vad, limit_s, self._warned_of)
        if min_speech_s > 0:
            require_speech(enrollments, min_speech_s)
        prepared = [self._prepare(enrollment.waveform) for enrollment in enrollments]
        assess: Callable[[], VoiceQuality] = lambda: assess_recordings(enrollments, self._embed)  # noqa: E731
        tensors = prepared[0]
        if len(prepared) > 1:
            quality = assess()
            tensors = self._combine(prepared, [recording.weight for recording in quality.recordings])
            assess = lambda: quality  # noqa: E731
        enrolled_s = sum(enrollment.duration_s for enrollment in enrollments)
        return RuntimeVoice(_as_any(tensors), self.model_hash, enrolled_s, assess)

    def extract(self, mixture: Source, voice: Voice, blocks: Blocks | None = None) -> Result:
        """Extract a voice from a recording, as `wesep_py.Extractor.extract`.

        A recording longer than a block goes through the network block by block; that of a causal model through the
        graph of the stream, if there is one.

        Args:
            mixture: a path, or a pair `(waveform, sample_rate)` with [samples] or [channels, samples].
            voice: of this model, enrolled here or with torch.
            blocks: lengths of the blocks of a long recording; `None` is blocks of 30 s.

        Returns:
            The waveform in the rate, length, channels and shape of the mixture.

        Raises:
            AudioError: the recording is missing, damaged, or holds NaN.
            InputError: the voice belongs to another model.
            WesepError: the network returned samples that are not finite.
        """
        tensors = self._checked(voice).tensors
        if blocks is not None and not isinstance(blocks, Blocks):
            raise InputError(f"blocks: is {type(blocks).__name__}; a Blocks is needed")
        folder, recording = self.folder, read_source(mixture)
        samples = recording.at_rate(folder.sample_rate)
        grid = (blocks or Blocks()).grid(folder.sample_rate, folder.stride)

        def run(block: NDArray[np.float32]) -> Estimates:
            return self._extract_block(block, _as_any(tensors))

        if samples.shape[1] <= grid.block:
            estimates, logits = run(samples)
        elif folder.is_causal and folder.stream is not None:
            estimates, logits = self._extract_causal(samples, voice)
        else:
            runner = BlockRunner(run, grid, 1, len(samples), match_levels=folder.level == "fitted")
            outputs = [*runner.push(samples), *runner.finish()]
            estimates = np.concatenate([output.estimates for output in outputs], axis=-1)
            parts = [output.logits for output in outputs if output.logits is not None]
            logits = np.concatenate(parts, axis=-1) if parts else None
        if not np.isfinite(estimates).all():
            raise WesepError(f"{recording.name}: {self.name} returned samples that are not finite (NaN)")
        tracks, frame_s = None if logits is None else logits[0], folder.stride / folder.sample_rate
        return make_result(recording, folder.sample_rate, estimates[0], tracks, frame_s, folder.level, self.calibration)

    def stream(
        self,
        voices: Voice | Sequence[Voice],
        sample_rate: int | None = None,
        num_channels: int = 1,
        constant_delay: bool = False,
    ) -> Stream:
        """Extract voices from a live signal, block by block, as `wesep_py.Extractor.stream`.

        Args:
            voices: of this model; a sequence for several at once.
            sample_rate: of the signal in Hz; `None` is the model's.
            num_channels: of the signal.
            constant_delay: whether every block returns as many samples as it gets (`Stream`).

        Raises:
            InputError: the model was exported without `--stream`; a voice of another model, or a rate or number of
                channels that is not allowed.
        """
        engine = OnnxEngine(self.folder, self._checked, self.folder.live_calibration)
        return Stream(engine, voices, sample_rate, num_channels, constant_delay)

    def _extract_block(self, block: NDArray[np.float32], tensors: Arrays) -> Estimates:
        folder = self.folder
        prepared = {f"cue.{key}": array for key, array in tensors.items()}

        def extract(samples: NDArray[np.float32], voice: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
            outputs = folder.run("extract", {"mixture": np.ascontiguousarray(samples[None], np.float32), **prepared})
            logits = outputs.get("presence_logits")
            return outputs["estimate"][0], None if logits is None else logits[0]

        num_frames = folder.num_frames(block.shape[1]) if folder.has_presence("extract") else None
        return extract_channels(block, 1, extract, num_frames)

    def _extract_causal(self, samples: NDArray[np.float32], voice: Voice) -> Estimates:
        """Return the estimate of a long recording by a causal network, whose state is carried along."""
        folder, engine = self.folder, OnnxEngine(self.folder, self._checked)

        def extract(row: NDArray[np.float32], _: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
            state, parts, tracks = engine.initial_state(1), [], []
            for start in range(0, len(row), _PIECE):
                finished, logits, state = engine.step(row[None, start : start + _PIECE], state, voice)
                parts.append(finished)
                tracks += [] if logits is None else [logits]
            last, logits = engine.end(len(row), sum(part.shape[1] for part in parts), state, voice)
            tracks += [] if logits is None else [logits]
            estimate = np.concatenate([*parts, last], axis=1)[0, engine.num_leading :]
            return estimate, np.concatenate(tracks, axis=1)[0] if tracks else None

        num_frames = folder.num_frames(samples.shape[1]) if folder.has_presence("stream") else None
        return extract_channels(samples, 1, extract, num_frames)

    def _prepare(self, waveform: NDArray[np.float32]) -> Arrays:
        """Return the network's tensors of a recording `[samples]`."""
        outputs = self.folder.run("enroll", {"enrollment": np.ascontiguousarray(waveform[None], np.float32)})
        return {name.removeprefix("cue."): array for name, array in outputs.items()}

    def _embed(self, windows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32] | None:
        """Return embeddings `[windows, dim]`; `None` if the model's cues need none."""
        key = next((spec.name for spec in self.folder.cues if spec.name.endswith(".embedding")), None)
        if key is None:
            return None
        return np.concatenate([self._prepare(window)[key.removeprefix("cue.")] for window in windows])

    def _combine(self, prepared: Sequence[Arrays], weights: Sequence[float]) -> Arrays:
        """Combine the tensors of several recordings of one voice, as the description says for each."""
        shares = np.asarray(weights, np.float32) / np.sum(weights, dtype=np.float32)
        combined: Arrays = {}
        for name, rule in self.folder.combinations.items():
            key = name.removeprefix("cue.")
            arrays = [tensors[key] for tensors in prepared]
            if rule["combine"] == "concatenate":
                combined[key] = np.concatenate(arrays, axis=rule["axis"])
                continue
            stacked = np.stack(arrays)
            share = shares.reshape(-1, *(1,) * (stacked.ndim - 1))
            if rule["combine"] == "mean":
                combined[key] = (stacked * share).sum(axis=0, dtype=np.float32)
                continue
            # `mean_direction`: the mean of the directions times the mean of the lengths.
            norms = np.maximum(np.linalg.norm(stacked, axis=-1, keepdims=True), 1e-8)
            combined[key] = ((stacked / norms * share).sum(axis=0) * (norms * share).sum(axis=0)).astype(np.float32)
        return combined

    def _checked(self, voice: Any) -> RuntimeVoice:
        """Return a voice with arrays; refuse what is no voice, or does not fit this model."""
        if not isinstance(voice, Voice):
            raise InputError(f"the voice is {type(voice).__name__}; what `enroll` or `Voice.load` returned is needed")
        require_model(voice, self.model_hash, self.name)
        voice = RuntimeVoice.of(voice)
        specs, sizes = {spec.name.removeprefix("cue."): spec for spec in self.folder.cues}, {}
        if voice.tensors.keys() != specs.keys():
            problem: str | None = f"it holds {', '.join(sorted(voice.tensors))}; {', '.join(sorted(specs))} are needed"
        else:
            checks = (spec.problem(voice.tensors[key], sizes) for key, spec in specs.items())
            problem = next((text for text in checks if text is not None), None)
        if problem is not None:
            raise InputError(f"{voice.source or 'the voice'}: does not fit {self.name} ({problem}); enroll it again")
        return voice


def _as_any(tensors: Any) -> Any:
    """Return arrays where the annotation of `Voice` names tensors."""
    return tensors
