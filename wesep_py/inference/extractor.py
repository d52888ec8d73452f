"""From a name, a checkpoint or an experiment folder to an extractor on a device."""

from __future__ import annotations

import logging
from functools import cached_property, partial
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from wesep_py import audio
from wesep_py.common.errors import InputError, WesepError, shorten
from wesep_py.inference.enrollment import (
    EnrollmentAudio,
    assess_enrollment,
    load_enrollments,
    require_speech,
    split_sources,
)
from wesep_py.inference.enrollment_quality import VoiceQuality
from wesep_py.inference.inputs import EnrollmentSource, Source, read_source
from wesep_py.inference.mixed_enrollment import (
    VoiceMatch,
    EnrollmentVoices,
    encode_voices,
    nearest_voice,
    require_embedding_cues,
    require_voice_counting,
    with_embedding,
)
from wesep_py.inference.overlap_add import Blocks
from wesep_py.inference.presence import UNCALIBRATED, Calibration, read_calibration
from wesep_py.inference.result import Result, level_gain
from wesep_py.inference.speech_activity import MAX_ENROLLMENT_S, VAD, check_enrollment_limit
from wesep_py.inference.voice_print import Voice, VoiceLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from wesep_py.network.extraction_network import TargetSpeakerExtractor


# ----------------------------------------
# Extraction: any file or array in, the enrolled voice out in the same form.

log = logging.getLogger(__name__)
LAYOUT_LENGTHS_S = 1.0, 1.6
"""Of two enrollments that show which axes of a voice print grow with the enrollment."""


class Extractor:
    """A network made ready for use: takes recordings of any rate, length and channel count.

    Args:
        network: the model, in any mode; it is put in evaluation mode on `device`.
        device: `"cpu"`, `"cuda"`, … .
        name: what to call the model in messages.
        model_hash: of its checkpoint; computed from the weights where not given.
        calibration: of its presence head (`presence.Calibration`); the head's own probabilities where not given.
        max_enrollment_s: seconds of an enrollment, all its recordings together, that enter the network: those with
            the most speech. 1 or more.

    Raises:
        InputError: a `max_enrollment_s` that is none.

    >>> extractor = wesep_py.load("exp/mine")                               # doctest: +SKIP
    >>> voice = extractor.enroll("alice1.wav", "alice2.wav")                # doctest: +SKIP
    >>> extractor.extract("meeting.wav", voice).save("alice_only.wav")      # doctest: +SKIP
    """

    def __init__(
        self,
        network: TargetSpeakerExtractor,
        device: str | torch.device = "cpu",
        name: str = "model",
        model_hash: str | None = None,
        calibration: Calibration | None = None,
        max_enrollment_s: float = MAX_ENROLLMENT_S,
    ) -> None:
        self.device = device
        self.max_enrollment_s = check_enrollment_limit(max_enrollment_s)
        self._said: set[str] = set()
        self.name = name
        self.calibration = calibration or UNCALIBRATED
        self._network = network.to(device).eval()
        self._given_hash = model_hash

    @property
    def network(self) -> TargetSpeakerExtractor:
        """The model, in evaluation mode on `device`."""
        return self._network

    @property
    def sample_rate(self) -> int:
        """The rate the model works at, in Hz; recordings are resampled to it and back."""
        return int(self._network.sample_rate)

    @property
    def embedding_dim(self) -> int | None:
        """Size of the embedding, computed elsewhere, that the model wants of a voice; `None` where it wants none."""
        return self._network.external_embedding_dim

    @cached_property
    def model_hash(self) -> str:
        """What ties a voice print to the model: the hash of its checkpoint (`checkpoint.fingerprint`)."""
        if self._given_hash:
            return self._given_hash
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
    ) -> Voice:
        """A voice from one or more recordings of one person speaking alone, or of one among others.

        Embeddings of several recordings are averaged by their seconds of speech; a recording that sounds unlike the
        others counts a tenth. What is fed to the network frame by frame is joined in time.

        Args:
            sources: paths, or pairs `(waveform, sample_rate)`. Of several channels the loudest is used. A path may
                name a stretch: `meeting.wav@12.3-17.8`, in seconds or as `[h:]mm:ss`. What a model with an
                `embedding_dim` takes, instead of recordings or beside them: `alice.npy`, or an array `[embedding_dim]`.
            vad: what tells speech from pauses: `energy`, or `silero` (needs the package silero-vad).
            min_speech_s: least speech in all of them together, in seconds.
            like: a print of the person, of this model: of each recording, the voice that is nearest to it is taken.
            max_enrollment_s: seconds of all recordings together that enter the network, those with the most speech;
                `None`: those of the extractor. Where there is more, a line of the log says so.

        Returns:
            The voice; `voice.quality` says how good the enrollment is, `voice.save("alice.voice")` keeps it for later.

        Raises:
            AudioError: a recording is missing, damaged, silent or shorter than 0.1 s.
            InputError: no source at all; not what the model takes; less speech than `min_speech_s`; no such `vad`; with
                `like`, a model that cannot tell the voices of a recording, or is steered by more than embeddings.
        """
        import torch

        check_number("min_speech_s", min_speech_s)
        if not sources:
            raise InputError("no enrollment was given; at least one recording of the voice is needed")
        recordings, embeddings = split_sources(sources, self._network, self.name)
        heard = self._hear(recordings, vad, self.max_enrollment_s if max_enrollment_s is None else max_enrollment_s)
        if heard and min_speech_s > 0:
            require_speech(heard, min_speech_s)
        prepared = [self._prepare(one, *embeddings) for one in heard] or [self._prepare(None, e) for e in embeddings]
        chosen: list[VoiceMatch | None] = [None] * len(heard)
        if like is not None:
            self._check_print(like)
            require_voice_counting(self._network, self.name)
            for i, one in enumerate(heard):
                require_embedding_cues(self._network, prepared[i], self.name)
                voices = encode_voices(self._network, one.waveform, str(self.device))
                chosen[i] = taken = nearest_voice(voices, like)
                prepared[i] = with_embedding(prepared[i], voices.embeddings[taken.number - 1])
        report = partial(assess_enrollment, self._network, heard, chosen, str(self.device)) if heard else None
        tensors, enrolled_s = prepared[0], sum(one.duration_s for one in heard)
        if len(prepared) > 1:
            weights = None
            if report is not None:
                quality = report()
                weights, report = [one.weight for one in quality.recordings], partial(_given, quality)
            with torch.inference_mode():
                tensors = self._network.combine(prepared, weights)
        return self._as_voice(tensors, enrolled_s, report)

    def voices(
        self, source: Source, vad: VAD = "energy", min_speech_s: float = 0.0, prints: bool = True
    ) -> tuple[EnrollmentVoices, list[Voice]]:
        """The voices that are heard in a recording, and a print of each.

        Args:
            source: a path, or a pair `(waveform, sample_rate)`.
            vad, min_speech_s: as `enroll`.
            prints: make them; without, any model will do whose encoder hears several voices.

        Returns:
            What is heard, and the prints in its order (none, where they were not asked for).

        Raises:
            InputError: the model's encoder hears one voice a recording, or the model is steered by more than
                embeddings, so that no print can be made; or as `enroll`.
            AudioError: as `enroll`.
        """
        check_number("min_speech_s", min_speech_s)
        require_voice_counting(self._network, self.name)
        (heard,) = self._hear([source], vad, self.max_enrollment_s)
        if min_speech_s > 0:
            require_speech([heard], min_speech_s)
        found = encode_voices(self._network, heard.waveform, str(self.device))
        if not prints:
            return found, []
        prepared = self._prepare(heard)
        require_embedding_cues(self._network, prepared, self.name)
        made = []
        for number, embedding in enumerate(found.embeddings, start=1):
            report = partial(
                assess_enrollment, self._network, [heard], [VoiceMatch(len(found), number)], str(self.device)
            )
            made.append(self._as_voice(with_embedding(prepared, embedding), heard.duration_s, report))
        return found, made

    def extract(self, mixture: Source, voice: Voice, blocks: Blocks | None = None) -> Result:
        """The voice out of a recording.

        Every channel is extracted by itself; one gain for all brings the result to the level that the voice
        has in the recording, if the network did not (`wesep_py.inference.result`). What is longer than a block goes
        through the network block by block; `recording.long.LongExtraction` does the same from file to file, without
        holding the recording.

        Args:
            mixture: a path, a pair `(waveform, sample_rate)` with [samples] or [channels, samples], or what
                `read_source` made of one, so that it is read once for several voices.
            voice: from `enroll` of this model.
            blocks: how a long recording is cut; `None` is blocks of 30 s.

        Returns:
            The waveform in the rate, length, channels and shape of the mixture.

        Raises:
            AudioError: the recording is missing, damaged, or holds NaN.
            InputError: the voice belongs to another model.
            WesepError: the network returned samples that are not finite.
        """
        self._check_print(voice)
        if blocks is not None and not isinstance(blocks, Blocks):
            raise InputError(f"blocks: is {type(blocks).__name__}; a Blocks is needed")
        recording = read_source(mixture)
        at_model_rate = recording.at_rate(self.sample_rate)
        from wesep_py.inference.streaming import run_channels

        estimate, presence = run_channels(
            self._network, self.device, at_model_rate, voice, blocks or Blocks(), self.calibration
        )
        if not np.isfinite(estimate).all():
            raise WesepError(f"{recording.name}: {self.name} returned samples that are not finite (NaN)")
        estimate = estimate * np.float32(level_gain(estimate, at_model_rate, self._network.level))
        estimate = audio.resample(estimate, self.sample_rate, recording.sample_rate)
        waveform = _fit(estimate.astype(np.float32), recording.num_samples)
        return Result(
            waveform[0] if recording.mono_array else waveform,
            recording.sample_rate,
            None if presence is None else presence.probability,
            file_format=recording.file_format,
            subtype=recording.subtype,
            detection=presence,
        )

    def extract_batch(self, recordings: Sequence[tuple[np.ndarray, int]], voices: Sequence[Voice]) -> list[Result]:
        """Several recordings at a time, each with its own voice: what `extract` returns, faster on a GPU.

        Args:
            recordings: pairs `(waveform, sample_rate)`, all `[samples]` of one length, at the model's rate.
            voices: one a recording, from `enroll` of this model; their tensors have to be of one shape, which those
                of frame-level cues are only for enrollments of one length.

        Raises:
            InputError: other lengths, channels or rates; a voice of another model; voices of different shapes.
            WesepError: the network returned samples that are not finite.
        """
        from wesep_py.inference.streaming import run_together

        if not recordings:
            raise InputError("no recordings were given; at least one is needed")
        sources = [read_source(recording) for recording in recordings]
        recordings = [(one.waveform[0] if one.mono_array else one.waveform, one.sample_rate) for one in sources]
        waveforms = [waveform for waveform, _ in recordings]
        shapes = {waveform.shape for waveform in waveforms}
        if {rate for _, rate in recordings} != {self.sample_rate} or len(shapes) != 1 or len(min(shapes)) != 1:
            raise InputError(
                f"a batch is of single channels of one length at {self.sample_rate} Hz; extract them one by one"
            )
        for voice in voices:
            self._check_print(voice)
        mixtures = np.stack(waveforms)
        estimates, presences = run_together(self._network, self.device, mixtures, voices, self.calibration)
        if not np.isfinite(estimates).all():
            raise WesepError(f"{self.name} returned samples that are not finite (NaN)")
        gains = [
            np.float32(level_gain(one[None], mixture[None], self._network.level))
            for one, mixture in zip(estimates, mixtures, strict=True)
        ]
        probabilities = [None if presence is None else presence.probability for presence in presences]
        return [
            Result(estimate * gain, self.sample_rate, probability, detection=presence)
            for estimate, gain, probability, presence in zip(estimates, gains, probabilities, presences, strict=True)
        ]

    def _hear(self, sources: Sequence[Source], vad: VAD, max_s: float) -> list[EnrollmentAudio]:
        """What of the recordings enters the network; said where that is not all."""
        heard = load_enrollments(sources, self.sample_rate, vad, check_enrollment_limit(max_s))
        used_s, longest = sum(one.duration_s for one in heard), [one.name for one in heard if one.whole_s is not None]
        if not longest and len(heard) == len(sources):
            return heard
        of = longest[0] if len(sources) == 1 else f"the {len(sources)} recordings of the voice"
        given = f" of {heard[0].whole_s:.1f} s" if len(sources) == 1 else f", of {len(heard)} of them,"
        # Once as a warning, for each name: an evaluation enrolls thousands of arrays.
        level = logging.INFO if of in self._said else logging.WARNING
        self._said.add(of)
        log.log(
            level,
            "%s: the %.1f s%s with the most speech are enrolled; --enroll-max (max_enrollment_s) changes how many",
            of,
            used_s,
            given,
        )
        return heard

    def _prepare(self, heard: EnrollmentAudio | None, *embedding: NDArray[np.float32]) -> dict[str, torch.Tensor]:
        """What the network keeps of a recording, if there is one, and of the embedding, where it takes one."""
        import torch

        recorded = np.zeros(0, dtype=np.float32) if heard is None else heard.waveform
        waveform, *given = (torch.from_numpy(array)[None].to(self.device) for array in (recorded, *embedding))
        lengths = torch.tensor([waveform.shape[1]], device=self.device)
        with torch.inference_mode():
            prepared = self._network.prepare(waveform, lengths, *given)
        if heard is not None:
            log.info("enrolled %.1f s of %s", heard.duration_s, heard.name)
        return prepared

    def _as_voice(
        self, tensors: dict[str, torch.Tensor], enrolled_s: float, report: Callable[[], VoiceQuality] | None
    ) -> Voice:
        return Voice({key: tensor.cpu() for key, tensor in tensors.items()}, self.model_hash, enrolled_s, report)

    def _check_print(self, voice: Voice) -> None:
        """Refuse what is no voice, or one that another model enrolled, or whose tensors are not those of this one."""
        if not isinstance(voice, Voice):
            raise InputError(f"the voice is {type(voice).__name__}; what `enroll` or `Voice.load` returned is needed")
        if voice.model_hash != self.model_hash:
            raise InputError(
                f"the voice was enrolled with another model (hash {shorten(voice.model_hash[:12])}, {self.name} is "
                f"{self.model_hash[:12]}); enroll it again with this one"
            )
        if voice.source is not None and (problem := self._voice_layout.problem(voice.tensors)) is not None:
            raise InputError(f"{voice.source}: does not fit {self.name} ({problem}); enroll the voice again")

    @cached_property
    def _voice_layout(self) -> VoiceLayout:
        """How voices of this model look: those of noise of two lengths."""
        import torch

        noise, dim = np.random.default_rng(0), self.embedding_dim
        embedding = None if dim is None else torch.from_numpy(noise.standard_normal((1, dim), np.float32))
        layouts = []
        for length_s in LAYOUT_LENGTHS_S:
            samples = round(length_s * self.sample_rate)
            waveform = torch.from_numpy(noise.standard_normal((1, samples), np.float32)).to(self.device)
            given = () if embedding is None else (embedding.to(self.device),)
            with torch.inference_mode():
                prepared = self._network.prepare(waveform, torch.tensor([samples], device=self.device), *given)
            layouts.append({name: tensor.cpu() for name, tensor in prepared.items()})
        return VoiceLayout(*layouts)


def check_number(name: str, value: object) -> None:
    """Refuse what is no finite number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < float("inf"):
        raise InputError(f"{name}: is {shorten(repr(value), 60)}; a number of 0 or more is needed")


def _given(quality: VoiceQuality) -> VoiceQuality:
    return quality


def _fit(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut or zero-padded at the end: resampling there and back may differ by a sample."""
    if waveform.shape[1] >= num_samples:
        return np.ascontiguousarray(waveform[:, :num_samples])
    return np.pad(waveform, ((0, 0), (0, num_samples - waveform.shape[1])))


def load(
    model: str | PathLike[str] | None = None, device: str = "auto", max_enrollment_s: float = MAX_ENROLLMENT_S
) -> Extractor:
    """An extractor.

    Args:
        model: a checkpoint folder or an experiment folder (its averaged checkpoint, else the best, else the
            last); or the name of a bundled model (`wesep_py.models`); `None` is the bundled default.
            Weights stored in half precision compute as float32.
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
        max_enrollment_s: as `Extractor`.

    Raises:
        CheckpointError: there is no such model, or its checkpoint is incomplete or damaged.
        InputError: there is no such device, or no bundled model.

    >>> load("exp/mine", device="cpu").sample_rate  # doctest: +SKIP
    16000
    """
    from wesep_py import checkpoint, models
    from wesep_py.network.extraction_network import load_network

    name, path = models.find(model)
    chosen = pick_device(device)
    folder = checkpoint.resolve(path)
    saved = checkpoint.load(folder)
    return Extractor(
        load_network(folder),
        chosen,
        name,
        saved.hash,
        read_calibration(saved.provenance, str(folder / checkpoint.PROVENANCE)),
        max_enrollment_s,
    )


def pick_device(device: str = "auto") -> str:
    """The device's name, checked to be there; `"auto"` is the first GPU, or the CPU.

    Raises:
        InputError: no such device; the message lists those there are.
    """
    import torch

    if not isinstance(device, str):
        raise InputError(f"the device is {type(device).__name__}; a text such as 'cpu' or 'cuda:0' is needed")
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.cuda.is_available():
        there.insert(1, "cuda")
    if torch.backends.mps.is_available():
        there.append("mps")
    if device == "auto":
        return next((name for name in ("cuda", "mps") if name in there), "cpu")
    if device not in there:
        raise InputError(f"device {shorten(device, 60)!r} is not there; choose among auto, {', '.join(there)}")
    return device
