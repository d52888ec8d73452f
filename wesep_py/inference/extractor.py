"""Extraction: any file or array in, the enrolled voice out in the same form."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from wesep_py import audio
from wesep_py.errors import AudioError, InputError, WesepError
from wesep_py.inference.level import gain_onto
from wesep_py.inference.result import Result
from wesep_py.inference.sources import Recording, Source, read_source
from wesep_py.inference.voice import Voice

if TYPE_CHECKING:
    import torch

    from wesep_py.extractor import TargetSpeakerExtractor

log = logging.getLogger(__name__)

# A voice is taken to be present if it speaks for this long anywhere in the recording.
PRESENCE_S = 0.5
# Shorter enrollments say too little of a voice to be meant.
MIN_ENROLLMENT_S = 0.1


class Extractor:
    """A network made ready for use: takes recordings of any rate, length and channel count.

    Args:
        network: the model, in any mode; it is put in evaluation mode on `device`.
        device: `"cpu"`, `"cuda"`, … .
        name: what to call the model in messages.
        model_hash: of its checkpoint; computed from the weights where not given.

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
    ) -> None:
        self.device = device
        self.name = name
        self._network = network.to(device).eval()
        self._given_hash = model_hash

    @property
    def sample_rate(self) -> int:
        """The rate the model works at, in Hz; recordings are resampled to it and back."""
        return int(self._network.sample_rate)

    @cached_property
    def model_hash(self) -> str:
        """What ties a voice print to the model: the hash of its checkpoint (`checkpoint.fingerprint`)."""
        if self._given_hash:
            return self._given_hash
        from safetensors.torch import save

        from wesep_py.checkpoint import fingerprint
        from wesep_py.config import dump_yaml

        weights = {key: value.detach().cpu().contiguous() for key, value in self._network.state_dict().items()}
        return fingerprint(save(weights), dump_yaml(self._network.config))

    def enroll(self, *sources: Source) -> Voice:
        """A voice from one or more recordings of one person speaking alone.

        Args:
            sources: paths, or pairs `(waveform, sample_rate)`. Of several channels the loudest is used.

        Returns:
            The voice; `voice.save("alice.voice")` keeps it for later.

        Raises:
            AudioError: a recording is missing, damaged, silent or shorter than 0.1 s.
            InputError: no source at all.
        """
        import torch

        if not sources:
            raise InputError("no enrollment was given; at least one recording of the voice is needed")
        prepared, enrolled_s = [], 0.0
        for source in sources:
            recording = read_source(source)
            waveform = torch.from_numpy(self._enrollment_waveform(recording))[None].to(self.device)
            lengths = torch.tensor([waveform.shape[1]], device=self.device)
            with torch.inference_mode():
                prepared.append(self._network.prepare(waveform, lengths))
            enrolled_s += recording.duration_s
            log.info("enrolled %.1f s of %s", recording.duration_s, recording.name)
        with torch.inference_mode():
            tensors = prepared[0] if len(prepared) == 1 else self._network.combine(prepared)
        return Voice({key: tensor.cpu() for key, tensor in tensors.items()}, self.model_hash, enrolled_s)

    def extract(self, mixture: Source, voice: Voice) -> Result:
        """The voice out of a recording.

        Every channel is extracted by itself; one gain for all brings the result to the level that the voice
        has in the recording (`wesep_py.inference.level`).

        Args:
            mixture: a path, or a pair `(waveform, sample_rate)` with [samples] or [channels, samples].
            voice: from `enroll` of this model.

        Returns:
            The waveform in the rate, length, channels and shape of the mixture.

        Raises:
            AudioError: the recording is missing, damaged, or holds NaN.
            InputError: the voice belongs to another model.
            WesepError: the network returned samples that are not finite.
        """
        if voice.model_hash != self.model_hash:
            raise InputError(
                f"the voice was enrolled with another model (hash {voice.model_hash[:12]}, {self.name} is "
                f"{self.model_hash[:12]}); enroll it again with this one"
            )
        recording = read_source(mixture)
        at_model_rate = audio.resample(recording.waveform, recording.sample_rate, self.sample_rate)
        estimate, presence = self._run(at_model_rate, voice)
        if not np.isfinite(estimate).all():
            raise WesepError(f"{recording.name}: {self.name} returned samples that are not finite (NaN)")
        estimate = estimate * np.float32(gain_onto(estimate, at_model_rate))
        estimate = audio.resample(estimate, self.sample_rate, recording.sample_rate)
        waveform = _fit(estimate.astype(np.float32), recording.num_samples)
        return Result(
            waveform[0] if recording.mono_array else waveform,
            recording.sample_rate,
            presence,
            file_format=recording.file_format,
            subtype=recording.subtype,
        )

    def _enrollment_waveform(self, recording: Recording) -> np.ndarray:
        """The loudest channel at the model's rate, float32 [samples]."""
        if recording.duration_s < MIN_ENROLLMENT_S:
            raise AudioError(
                f"{recording.name}: lasts {recording.duration_s:.3f} s; an enrollment needs at least "
                f"{MIN_ENROLLMENT_S} s, and is better with 5 to 10 s"
            )
        energies = (recording.waveform.astype(np.float64) ** 2).sum(axis=1)
        if energies.max() <= 0.0:
            raise AudioError(f"{recording.name}: is silent; an enrollment needs a recording of the voice")
        channel = recording.waveform[int(energies.argmax())]
        return np.asarray(audio.resample(channel, recording.sample_rate, self.sample_rate), dtype=np.float32)

    def _run(self, mixture: np.ndarray, voice: Voice) -> tuple[np.ndarray, float | None]:
        """The network on each channel; a silent channel stays silent, for there is no voice in it.

        Args:
            mixture: [channels, samples] at the model's rate.

        Returns:
            Estimate of the same shape at any level, and the presence in the channel where it is surest.
        """
        import torch

        prepared = {name: tensor.to(self.device) for name, tensor in voice.tensors.items()}
        estimate = np.zeros_like(mixture, dtype=np.float32)
        presences = []
        for index, channel in enumerate(mixture):
            if not channel.any():
                continue
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(channel, dtype=np.float32))[None]
                output = self._network.extract(batch.to(self.device), prepared)
            estimate[index] = output.waveforms[0][0].float().cpu().numpy()
            if output.presence_logits is not None:
                presences.append(self._presence(output.presence_logits[0]))
        return estimate, max(presences) if presences else None

    def _presence(self, logits: torch.Tensor) -> float:
        """Mean probability of the `PRESENCE_S` of frames ([frames] logits) that are surest of the voice."""
        frames = max(1, round(PRESENCE_S * self.sample_rate / self._network.backbone.stride))
        surest = logits.float().sigmoid().sort(descending=True).values[:frames]
        return float(surest.mean())


def _fit(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut or zero-padded at the end: resampling there and back may differ by a sample."""
    if waveform.shape[1] >= num_samples:
        return np.ascontiguousarray(waveform[:, :num_samples])
    return np.pad(waveform, ((0, 0), (0, num_samples - waveform.shape[1])))
