"""The extractor: enroll a voice, extract it from recordings.

```
load(model) ─► Extractor                                                   model_loading.py
                 .enroll(recordings)        ─► Voice                       voice_enrollment.py, voice_print.py
                 .extract(mixture, Voice)   ─► Result                      below, and result.py
                 .stream(Voice)             ─► Stream                      stream.py, stream_engine.py

extract:  read ─► resample to the model's rate ─► network, whole or by blocks ─► level ─► resample back ─► Result
```

From file to file, also for recordings that do not fit into memory, see `wesep_py.inference.file_extraction`.
"""

from __future__ import annotations

import logging
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wesep_py.common.errors import InputError, WesepError
from wesep_py.inference.enrolling.enrollment import (
    EnrollmentAudio,
    check_min_speech,
    load_reported,
    require_speech,
    split_sources,
)
from wesep_py.inference.enrolling.mixed_enrollment import EnrollmentVoices, encode_voices, require_voice_counting
from wesep_py.inference.enrolling.speech_activity import MAX_ENROLLMENT_S, VAD, check_enrollment_limit
from wesep_py.inference.enrolling.voice_enrollment import (
    add_negative,
    enroll_each_voice,
    enroll_voice,
    find_voice_layout,
    negative_recordings,
)
from wesep_py.inference.enrolling.voice_print import Voice, VoiceLayout, require_model
from wesep_py.inference.inputs_outputs.inputs import EnrollmentSource, Source, read_source
from wesep_py.inference.long_recordings.blocks import Blocks, is_constant
from wesep_py.inference.long_recordings.overlap_add import extract_averaged, run_network
from wesep_py.inference.presence_decision.presence import SILENT_LOGIT, UNCALIBRATED, Calibration, presence_of_channels
from wesep_py.inference.presence_decision.presence_verifier import PresenceVerifier
from wesep_py.inference.presence_decision.repair import Repair, check_repair, repaired
from wesep_py.inference.pretrained import PretrainedModel
from wesep_py.inference.result import Result, Verify, level_gain, make_result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from wesep_py.inference.live_stream.stream import Stream
    from wesep_py.network.extraction_network import TargetSpeakerExtractor

log = logging.getLogger(__name__)


class Extractor(PretrainedModel):
    """A network ready for use: extracts enrolled voices from recordings of any rate, length and number of channels.

    Args:
        network: the model, in any mode; it is put in evaluation mode on `device`.
        device: `"cpu"`, `"cuda"`, … .
        name: of the model, for messages.
        model_hash: hash of its checkpoint; if not given, it is computed from the weights.
        calibration: of its presence head (`presence.Calibration`); if not given, the head's own probabilities count.
        max_enrollment_s: maximum duration of an enrollment in seconds, all its recordings together, that enters the
            network: the segments with the most speech. 1 or more.
        shifts: number of shifted copies of a mixture whose estimates are averaged (`overlap_add.extract_averaged`), 1
            to 16 and at most the network's stride. `None` is the model's own (`ModelConfig.shifts`). Each costs the
            time of one extraction. A causal network that streams has 1.
        verifier: decides, with the presence head, whether a voice is in a recording; `None`: the head decides alone.
        live_calibration: as `calibration`, of the presence head of the live mode.
        repair: what is done if an extraction seems to hold the wrong voice (module `repair`): `none`;
            `requery` extracts again, from the residual; `swap`, for recordings of two speakers, takes the residual.

    Attributes:
        repair: see above.

    Raises:
        InputError: `max_enrollment_s` or `shifts` is not such a number; `shifts` above 1 for a network that streams; a
            `repair` without an encoder to compare voices with.

    >>> import numpy as np
    >>> from wesep_py import load
    >>> time_s = np.arange(32000) / 16000
    >>> alice = np.sin(2 * np.pi * 220 * time_s) * (np.sin(6 * np.pi * time_s) > 0)  # a tone stands for speech here
    >>> mixture = 0.5 * alice + 0.5 * np.sin(2 * np.pi * 330 * time_s)
    >>> extractor = load()
    >>> voice = extractor.enroll((alice, 16000))              # or files: enroll("alice1.wav", "alice2.wav")
    >>> result = extractor.extract((mixture, 16000), voice)   # or a file: extract("meeting.wav", voice)
    >>> result.waveform.shape
    (32000,)
    """

    def __init__(
        self,
        network: TargetSpeakerExtractor,
        device: str | torch.device = "cpu",
        name: str = "model",
        model_hash: str | None = None,
        calibration: Calibration | None = None,
        max_enrollment_s: float = MAX_ENROLLMENT_S,
        shifts: int | None = None,
        verifier: PresenceVerifier | None = None,
        live_calibration: Calibration | None = None,
        repair: Repair = "none",
    ) -> None:
        from wesep_py.inference.long_recordings.streaming import check_shifts

        self.device = device
        self.max_enrollment_s = check_enrollment_limit(max_enrollment_s)
        self._shifts = check_shifts(network, shifts)
        self.name = name
        self.calibration, self.verifier = calibration or UNCALIBRATED, verifier
        # A causal network has one head.
        self.live_calibration = live_calibration or (
            self.calibration if network.live_presence is None else UNCALIBRATED
        )
        self.repair = check_repair(repair, network, verifier, name)
        self._network = network.to(device).eval()
        self._model_hash = model_hash
        self._warned_of: set[str] = set()

    @property
    def network(self) -> TargetSpeakerExtractor:
        """The model, in evaluation mode on `device`."""
        return self._network

    @property
    def mode(self) -> Literal["offline", "live"]:
        """`live` for what `live()` returns of a model with two modes, else `offline`."""
        return "live" if self._network.is_live else "offline"

    @property
    def has_live_presence(self) -> bool:
        """True if a stream of the model knows the presence of the voice."""
        return self._network.live().presence is not None

    @property
    def sample_rate(self) -> int:
        """Sample rate of the model in Hz; recordings are resampled to it and back."""
        return int(self._network.sample_rate)

    @property
    def embedding_dim(self) -> int | None:
        """Size of the embedding, computed elsewhere, that the model takes of a voice; `None` if it takes none."""
        return self._network.external_embedding_dim

    @property
    def takes_negative(self) -> bool:
        """True if the model takes a negative enrollment, of persons who are not meant."""
        return bool(self._network.takes_negative)

    @property
    def shifts(self) -> int:
        """Number of shifted copies of a mixture whose estimates are averaged."""
        return self._shifts

    @cached_property
    def model_hash(self) -> str:
        """Hash of the model's checkpoint (`checkpoint.fingerprint`); a voice print is valid for one such hash."""
        if self._model_hash:
            return self._model_hash
        from safetensors.torch import save

        from wesep_py.checkpoint import fingerprint
        from wesep_py.common.config import dump_yaml

        weights = {key: value.detach().cpu().contiguous() for key, value in self._network.state_dict().items()}
        return fingerprint(save(weights), dump_yaml(self._network.config))

    def enroll(
        self,
        *sources: EnrollmentSource,
        vad: VAD = "energy",
        min_speech_s: float = 0.0,
        like: Voice | None = None,
        max_enrollment_s: float | None = None,
        negative: EnrollmentSource | list[EnrollmentSource] | None = None,
    ) -> Voice:
        """Enroll a voice from one or more recordings of one person, speaking alone or as one of several.

        Embeddings of several recordings are averaged, weighted by their seconds of speech; a recording that differs
        from the others has a tenth of its weight. Tensors that the network takes frame by frame are joined in time.

        Args:
            sources: paths, or pairs `(waveform, sample_rate)`. Of several channels the loudest is used. A path may
                name a segment: `meeting.wav@12.3-17.8`, in seconds or as `[h:]mm:ss`. A model with an `embedding_dim`
                takes `alice.npy`, or an array `[embedding_dim]`, instead of recordings or beside them.
            vad: voice activity detection: `energy`, or `silero` (needs the package silero-vad).
            min_speech_s: minimum of speech in all recordings together, in seconds.
            like: a voice print of the person, of this model: of each recording, the voice nearest to it is enrolled.
            max_enrollment_s: maximum duration in seconds of all recordings together that enters the network: the
                segments with the most speech. `None` is that of the extractor. If there is more, it is logged.
            negative: a recording of a person who is not meant (the voice that the result is confused with), or a list
                of recordings of one or several; for a model that `takes_negative`.

        Returns:
            The voice; `voice.quality` says how good the enrollment is, `voice.save("alice.voice")` stores it.

        Raises:
            AudioError: a recording is missing, damaged, silent or shorter than 0.1 s.
            InputError: no source at all; not what the model takes; less speech than `min_speech_s`; no such `vad`; a
                negative enrollment for a model that takes none; with `like`, a model that cannot separate the voices of
                a recording, or is steered by more than embeddings.
        """
        check_min_speech(min_speech_s)
        self._require_negative(negative)
        if not sources:
            raise InputError("no enrollment was given; at least one recording of the voice is needed")

        # Recordings: the loudest channel of each at the model's rate, of long ones the segments with most speech.
        recordings, embeddings = split_sources(sources, self._network, self.name)
        enrollments = self._load_enrollments(recordings, vad, max_enrollment_s)
        if enrollments and min_speech_s > 0:
            require_speech(enrollments, min_speech_s)
        if like is not None:
            self._check_voice(like)
            require_voice_counting(self._network, self.name)
        voice = enroll_voice(self, enrollments, embeddings, like)
        return voice if negative is None else self.with_negative(voice, negative, vad, max_enrollment_s)

    def with_negative(
        self,
        voice: Voice,
        negative: EnrollmentSource | list[EnrollmentSource],
        vad: VAD = "energy",
        max_enrollment_s: float | None = None,
    ) -> Voice:
        """Return a voice with another negative enrollment: recordings of persons who are not meant.

        Args:
            voice: from `enroll` of this model, or a voice print; it is not changed.
            negative: a recording, or a list of them, as for `enroll`.
            vad, max_enrollment_s: as for `enroll`; the limit is that of all negative recordings together.

        Raises:
            InputError, AudioError: as `enroll`.
        """
        self._require_negative(negative)
        self._check_voice(voice)
        recordings = self._load_enrollments(negative_recordings(negative), vad, max_enrollment_s)
        return add_negative(self, voice, recordings)

    def _require_negative(self, negative: object) -> None:
        """Refuse a negative enrollment if the model takes none."""
        if negative is not None and not self.takes_negative:
            raise InputError(
                f"{self.name}: takes no negative enrollment; leave out --enroll-not (negative), or use a model trained "
                "with negative: true"
            )

    def voices(
        self, source: Source, vad: VAD = "energy", min_speech_s: float = 0.0, prints: bool = True
    ) -> tuple[EnrollmentVoices, list[Voice]]:
        """Count the voices in a recording, and enroll each.

        Args:
            source: a path, or a pair `(waveform, sample_rate)`.
            vad, min_speech_s: as `enroll`.
            prints: enroll the voices; without, any model will do whose encoder counts voices.

        Returns:
            The voices, and the voice prints in the same order (none with `prints=False`).

        Raises:
            InputError: the model's encoder gives one voice per recording, or the model is steered by more than
                embeddings, so that no print can be made; or as `enroll`.
            AudioError: as `enroll`.
        """
        check_min_speech(min_speech_s)
        require_voice_counting(self._network, self.name)
        (enrollment,) = self._load_enrollments([source], vad)
        if min_speech_s > 0:
            require_speech([enrollment], min_speech_s)
        voices = encode_voices(self._network, enrollment.waveform, str(self.device))
        return voices, enroll_each_voice(self, enrollment, voices) if prints else []

    def live(self) -> Extractor:
        """Return an extractor of the same model in its live mode: without the layers that look ahead.

        It takes the same voices. Its results are those of `stream`, for whole recordings. A causal model returns
        itself; its `extract` sets the level of the whole recording, which `stream` cannot know.

        Raises:
            ConfigError: the model works on whole recordings only.
        """
        network = self._network.live()
        if network is self._network:
            return self
        calibration = self.live_calibration
        extractor = Extractor(network, self.device, self.name, self.model_hash, calibration, self.max_enrollment_s)
        extractor._whole = self
        return extractor

    @classmethod
    def _load_folder(cls, folder: Path, device: str, **options: Any) -> Extractor:
        from wesep_py.inference.model_loading import load

        return load(folder, device, **options)

    def stream(
        self,
        voices: Voice | Sequence[Voice],
        sample_rate: int | None = None,
        num_channels: int = 1,
        constant_delay: bool = False,
    ) -> Stream:
        """Extract voices from a live signal, block by block.

        Args:
            voices: from `enroll` of this model; a sequence for several at once.
            sample_rate: of the signal in Hz; `None` is the model's.
            num_channels: of the signal.
            constant_delay: whether every block returns as many samples as it gets (`Stream`).

        Raises:
            ConfigError: the model cannot stream; the message says which part of it looks ahead.
            InputError: a voice of another model, or a rate or number of channels that is not allowed.

        >>> stream = wesep_py.load("my-live-model").stream(voice, sample_rate=48000)        # doctest: +SKIP
        >>> stream.process(block).shape                                                     # doctest: +SKIP
        """
        from wesep_py.inference.live_stream.stream import Stream
        from wesep_py.inference.live_stream.stream_engine import TorchEngine

        return Stream(TorchEngine(self, self._check_voice), voices, sample_rate, num_channels, constant_delay)

    def extract(
        self,
        mixture: Source,
        voice: Voice,
        blocks: Blocks | None = None,
        shifts: int | None = None,
        repair: bool | Repair | None = None,
    ) -> Result:
        """Extract a voice from a recording.

        Every channel is extracted by itself; one gain for all channels brings the estimate to the level that the voice
        has in the recording (`wesep_py.inference.result`). A recording longer than a block goes through the network
        block by block; `long_files.LongExtraction` does the same from file to file, without holding the recording.

        Args:
            mixture: a path, a pair `(waveform, sample_rate)` with [samples] or [channels, samples], or the result of
                `read_source`, so that it is read once for several voices.
            voice: from `enroll` of this model.
            blocks: lengths of the blocks of a long recording; `None` is blocks of 30 s.
            shifts: as `Extractor`; `None` is that of the extractor.
            repair: as `Extractor`, with one decision for the recording; true is `requery`, `None` that of the
                extractor. `result.repaired` says whether something was repaired.

        Returns:
            The waveform in the rate, length, channels and shape of the mixture.

        Raises:
            AudioError: the recording is missing, damaged, or holds NaN.
            InputError: the voice belongs to another model; the network does not allow that number of shifts; there is
                no encoder to repair by.
            WesepError: the network returned samples that are not finite.
        """
        from wesep_py.inference.long_recordings.streaming import make_runner

        self._check_voice(voice)
        shifts, kind = self.check_shifts(shifts), self.check_repair(repair)
        if blocks is not None and not isinstance(blocks, Blocks):
            raise InputError(f"blocks: is {type(blocks).__name__}; a Blocks is needed")
        network, rate = self._network, self.sample_rate
        recording = read_source(mixture)
        samples = recording.at_rate(rate)

        # The network: [channels, samples] → estimates and presence logits of one voice.
        grid = (blocks or Blocks()).grid(rate, network.backbone.stride)
        if samples.shape[1] <= grid.block:
            tensors = {name: tensor.to(self.device) for name, tensor in voice.tensors.items()}
            estimates, logits = run_network(network, self.device, samples, [tensors], shifts)
        else:
            runner = make_runner(network, self.device, [voice], grid, len(samples), shifts)
            outputs = [*runner.push(samples), *runner.finish()]
            estimates = np.concatenate([output.estimates for output in outputs], axis=-1)
            parts = [output.logits for output in outputs if output.logits is not None]
            logits = np.concatenate(parts, axis=-1) if parts else None
        if not np.isfinite(estimates).all():
            raise WesepError(f"{recording.name}: {self.name} returned samples that are not finite (NaN)")
        tracks, frame_s = None if logits is None else logits[0], network.backbone.stride / rate
        verify = None if tracks is None else self.verification(voice)
        result = make_result(recording, rate, estimates[0], tracks, frame_s, network.level, self.calibration, verify)
        return result if kind == "none" else repaired(self, recording, voice, result, kind, blocks, shifts)

    def extract_batch(
        self, recordings: Sequence[tuple[np.ndarray, int]], voices: Sequence[Voice], shifts: int | None = None
    ) -> list[Result]:
        """Extract from several recordings at once, each its own voice: as `extract`, but faster on a GPU.

        Args:
            recordings: pairs `(waveform, sample_rate)`, all `[samples]` of one length, at the model's rate.
            voices: one per recording, from `enroll` of this model; their tensors have to be of one shape. Those of
                frame-level cues are so only for enrollments of one length.
            shifts: as `extract`.

        Raises:
            InputError: other lengths, channels or rates; a voice of another model; voices of different shapes; as
                `extract`.
            WesepError: the network returned samples that are not finite.
        """
        import torch

        network, rate = self._network, self.sample_rate
        if not recordings:
            raise InputError("no recordings were given; at least one is needed")
        sources = [read_source(recording) for recording in recordings]
        lengths = {source.num_samples for source in sources}
        if len(lengths) != 1 or not all(source.mono_array and source.sample_rate == rate for source in sources):
            raise InputError(f"a batch is of single channels of one length at {rate} Hz; extract them one by one")
        for voice in voices:
            self._check_voice(voice)
        shapes = [{key: tensor.shape for key, tensor in voice.tensors.items()} for voice in voices]
        if len(voices) != len(sources) or any(shape != shapes[0] for shape in shapes):
            raise InputError("a batch needs a voice for each recording, of one shape; extract them one by one")

        if self.repair != "none":
            return [self.extract(source, voice, None, shifts) for source, voice in zip(sources, voices, strict=True)]
        mixtures = np.stack([source.waveform[0] for source in sources])
        tensors = {key: torch.cat([v.tensors[key] for v in voices]).to(self.device) for key in voices[0].tensors}
        batch = torch.from_numpy(mixtures).to(self.device)
        estimates, logits = extract_averaged(network, batch, tensors, self.check_shifts(shifts))
        # As in `run_network`: nobody speaks in a recording that is silent or constant.
        silent = np.array([is_constant(mixture) for mixture in mixtures])
        estimates[silent] = 0.0
        if logits is not None:
            logits[silent] = SILENT_LOGIT
        if not np.isfinite(estimates).all():
            raise WesepError(f"{self.name} returned samples that are not finite (NaN)")

        results = []
        for i, (estimate, mixture) in enumerate(zip(estimates, mixtures, strict=True)):
            waveform = estimate * np.float32(level_gain(estimate[None], mixture[None], network.level))
            detection = None
            if logits is not None:
                detection = presence_of_channels([logits[i]], network.backbone.stride / rate, self.calibration)
                if detection is not None and (verify := self.verification(voices[i])) is not None:
                    detection = verify(detection, waveform[None], mixture[None])
            probability = None if detection is None else detection.probability
            results.append(Result(waveform, rate, probability, detection=detection))
        return results

    def check_shifts(self, shifts: int | None) -> int:
        """Return a number of shifts that the network allows; for `None`, that of the extractor.

        Raises:
            InputError: the network does not allow that number.
        """
        from wesep_py.inference.long_recordings.streaming import check_shifts

        return self.shifts if shifts is None else check_shifts(self._network, shifts)

    def check_repair(self, repair: bool | str | None) -> Repair:
        """Return a kind of repair that the model can do; for `None`, that of the extractor.

        Raises:
            InputError: an unknown kind, or no encoder to compare voices with.
        """
        return self.repair if repair is None else check_repair(repair, self._network, self.verifier, self.name)

    def _load_enrollments(
        self, sources: Sequence[Source], vad: VAD, max_enrollment_s: float | None = None
    ) -> list[EnrollmentAudio]:
        """Load the part of the recordings that enters the network; log it if that is not all."""
        limit_s = self.max_enrollment_s if max_enrollment_s is None else max_enrollment_s
        return load_reported(sources, self.sample_rate, vad, check_enrollment_limit(limit_s), self._warned_of)

    def verifier_embedding(self, voice: Voice) -> NDArray[np.float32] | None:
        """Return the embedding of a voice for the verifier; `None`, with a warning, if the voice was enrolled without.

        Without a verifier it is `None`, too.
        """
        if self.verifier is None:
            return None
        stored = voice.verifier
        if stored is not None and stored.encoder_hash == self.verifier.encoder_hash:
            return stored.values
        what = voice.source or "a voice"
        reason = "without" if stored is None else f"with {stored.encoder}, not with"
        message = "%s: was enrolled %s the verifier %s, so the presence head decides alone; enroll the voice again"
        level = logging.INFO if what in self._warned_of else logging.WARNING
        self._warned_of.add(what)
        log.log(level, message, what, reason, self.verifier.name)
        return None

    def verification(self, voice: Voice) -> Verify | None:
        """Return the function that completes the presence of a voice by the decision of the verifier, if there is one.

        Its arguments are the presence, the estimate and the mixture, `[channels, samples]` each, at the model's rate.
        """
        verifier, embedding = self.verifier, self.verifier_embedding(voice)
        return None if verifier is None or embedding is None else partial(verifier.verified, embedding)

    def _check_voice(self, voice: Voice) -> None:
        """Refuse an object that is no voice, a voice of another model, or tensors that do not fit this model."""
        if not isinstance(voice, Voice):
            raise InputError(f"the voice is {type(voice).__name__}; what `enroll` or `Voice.load` returned is needed")
        if voice.library != "torch":
            raise InputError(
                f"the voice was enrolled with {voice.library} instead of torch; save it, and read it with `Voice.load`"
            )
        require_model(voice, self.model_hash, self.name)
        if voice.source is not None and (problem := self._voice_layout.problem(voice.tensors)) is not None:
            raise InputError(f"{voice.source}: does not fit {self.name} ({problem}); enroll the voice again")

    @cached_property
    def _voice_layout(self) -> VoiceLayout:
        """Shapes of this model's voice prints."""
        return find_voice_layout(self)
