"""Waveforms of a trial: the mixture to extract from, the references to score against, and the enrollment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wesep_py.audio.reading import read_mono, read_mono_segment
from wesep_py.common.errors import InputError, nearest
from wesep_py.data.embedding_files import Embeddings
from wesep_py.data.mixture_lists import MixtureNoise, MixtureSource
from wesep_py.data.trials import Trial
from wesep_py.simulation.noise import loop_recording
from wesep_py.simulation.rendering import mix

Condition = Literal["clean", "noisy"]
CONDITIONS: dict[str, str] = {
    "clean": "speakers only (LibriMix mix_clean)",
    "noisy": "speakers and noise (LibriMix mix_both)",
}

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class TrialAudio:
    """Waveforms of a trial, float32 at one sample rate.

    Attributes:
        mixture: `[samples]`.
        reference: the target as it is in the mixture, `[samples]`; `None` if it is absent.
        interferers: the other sources as they are in the mixture, `[sources, samples]`.
        noise: `[samples]`; zero in the clean condition.
        enrollment: `[its own samples]`.
        sample_rate: in Hz.
        embedding: precomputed embedding of the enrollment, `[dim]`, or `None`.
        negative: negative enrollment, `[its own samples]`, or `None`.
    """

    mixture: Waveform
    reference: Waveform | None
    interferers: Waveform
    noise: Waveform
    enrollment: Waveform
    sample_rate: int
    embedding: Waveform | None = None
    negative: Waveform | None = None

    @property
    def enrollment_sources(self) -> tuple[tuple[Waveform, int] | Waveform, ...]:
        """Arguments of `Extractor.enroll`: the recording with its sample rate, and the embedding if there is one."""
        recording = (self.enrollment, self.sample_rate)
        return (recording,) if self.embedding is None else (recording, self.embedding)


def render_trial(
    trial: Trial, condition: Condition = "clean", sample_rate: int = 16000, embeddings: Embeddings | None = None
) -> TrialAudio:
    """Render a trial from its sources, or read its rendered files.

    Every source is read, cut to the shortest ("min" mode) and multiplied by its gain. The clean mixture is their sum;
    the noisy mixture adds the noise, from its offset on, looped if it is too short. If the mixture has been rendered,
    its file is read instead; its sources are then the rendered images.

    Args:
        trial: from `wesep_py.data.read_trials`.
        condition: `clean` or `noisy`.
        sample_rate: rate of the result in Hz.
        embeddings: precomputed embeddings, for the result to have that of the enrollment; `None`: it has none.

    Raises:
        AudioError: a recording is missing, damaged or empty.
        InputError: an unknown condition, `noisy` for a mixture without noise, or a rendered mixture that is
            shorter than its sources.

    >>> audio = render_trial(trials[0], "noisy")                                  # doctest: +SKIP
    >>> np.allclose(audio.mixture, audio.reference + audio.interferers.sum(0) + audio.noise)  # doctest: +SKIP
    True
    """
    if condition not in CONDITIONS:
        raise InputError(f"condition: is {condition!r}; {nearest(str(condition), CONDITIONS)}")
    images = _read_sources(trial.sources, sample_rate)
    noise = np.zeros(images.shape[-1], dtype=np.float32)
    if condition == "noisy":
        if trial.noise is not None:
            noise = _read_noise(trial.noise, images.shape[-1], sample_rate)
        elif condition not in trial.rendered:
            raise InputError(f"mixture {trial.mixture_id!r}: has no noise; evaluate it with --condition clean")
    mixture = mix(images, noise)
    if condition in trial.rendered:
        mixture = read_mono(trial.rendered[condition], sample_rate)
        if mixture.size < images.shape[-1]:
            raise InputError(
                f"{trial.rendered[condition]}: has {mixture.size} samples and its sources {images.shape[-1]}; "
                f"render the tree again"
            )
        mixture = mixture[: images.shape[-1]]
    index = trial.target_index
    return TrialAudio(
        mixture=mixture,
        reference=None if index is None else images[index],
        interferers=images if index is None else np.delete(images, index, axis=0),
        noise=noise,
        enrollment=_read_enrollment(trial, sample_rate),
        sample_rate=sample_rate,
        embedding=None if embeddings is None else embeddings.of_trial(trial),
        negative=None if trial.negative is None else read_mono(trial.negative, sample_rate),
    )


def _read_sources(sources: Sequence[MixtureSource], sample_rate: int) -> Waveform:
    waveforms = [read_mono(source.path, sample_rate) for source in sources]
    shortest = min(waveform.size for waveform in waveforms)
    gains = [np.float32(source.gain) for source in sources]
    return np.stack([waveform[:shortest] * gain for waveform, gain in zip(waveforms, gains, strict=True)])


def _read_noise(noise: MixtureNoise, num_samples: int, sample_rate: int) -> Waveform:
    recording = read_mono(noise.path, sample_rate)
    return loop_recording(recording, round(noise.offset_s * sample_rate), num_samples) * np.float32(noise.gain)


def _read_enrollment(trial: Trial, sample_rate: int) -> Waveform:
    """Read the enrollment; if it is a source of an unrendered mixture, cut it as that mixture does."""
    enrollment = read_mono_segment(trial.enrollment, sample_rate)
    mates = [read_mono(mate.path, sample_rate).size for mate in trial.enrollment_sources]
    return enrollment[: min(mates, default=enrollment.size)]
