"""From the recordings of a person to a `Voice`: what `Extractor.enroll`, `with_negative` and `voices` compute.

```
recordings, loaded ─► network.prepare of each ─► with `like`: the embedding of the nearest of several voices
                                                   ▼
                           Voice ◄─ quality, verifier embedding ◄─ network.combine, weighted by quality
```

The recordings are loaded by the module `enrollment`. The result, and the file it is stored in, are those of
`voice_print`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from wesep_py.common.errors import InputError
from wesep_py.inference.enrolling.enrollment import EnrollmentAudio, assess_enrollment
from wesep_py.inference.enrolling.mixed_enrollment import (
    ChosenVoice,
    EnrollmentVoices,
    encode_voices,
    nearest_voice,
    replace_embedding,
    require_embedding_cues,
)
from wesep_py.inference.enrolling.voice_print import VerifierEmbedding, Voice, VoiceLayout
from wesep_py.inference.inputs_outputs.inputs import EnrollmentSource, Source, read_embedding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from wesep_py.inference.enrolling.enrollment_quality import VoiceQuality
    from wesep_py.inference.extractor import Extractor

log = logging.getLogger(__name__)
LAYOUT_LENGTHS_S = 1.0, 1.6
"""Lengths of two enrollments, in seconds: axes of the prepared tensors that differ between them are axes of time."""


def enroll_voice(
    extractor: Extractor,
    enrollments: Sequence[EnrollmentAudio],
    embeddings: Sequence[NDArray[np.float32]] = (),
    like: Voice | None = None,
) -> Voice:
    """Return the voice of one or more recordings of a person, or of an embedding alone.

    Args:
        extractor: the model.
        enrollments: the recordings, as they enter the network; none for an embedding alone.
        embeddings: computed elsewhere; one where the model takes one, else none.
        like: a voice print of the person, of this model: of each recording, the voice nearest to it is enrolled.

    Raises:
        InputError: with `like`, the model is steered by more than embeddings.
    """
    import torch

    # Each recording goes through the network, once. Of an embedding alone there is no recording.
    network, device = extractor.network, str(extractor.device)
    if enrollments:
        prepared = [_prepare(extractor, enrollment, *embeddings) for enrollment in enrollments]
    else:
        prepared = [_prepare(extractor, None, embedding) for embedding in embeddings]

    # With `like`, the embedding of one of the voices in a recording takes the place of that of the whole.
    chosen: list[ChosenVoice | None] = [None] * len(enrollments)
    if like is not None:
        for i, enrollment in enumerate(enrollments):
            require_embedding_cues(network, prepared[i], extractor.name)
            voices = encode_voices(network, enrollment.waveform, device)
            nearest = nearest_voice(voices, like)
            prepared[i] = replace_embedding(prepared[i], voices.embeddings[nearest.number - 1])
            chosen[i] = nearest

    # The embedding for the verifier, unless one of several voices was chosen: it would be of all of them.
    verifier = None
    if extractor.verifier is not None and enrollments and like is None:
        weights = [max(0.1, enrollment.speech_s) for enrollment in enrollments]
        values = extractor.verifier.embed_voice([enrollment.waveform for enrollment in enrollments], weights)
        verifier = VerifierEmbedding(extractor.verifier.name, extractor.verifier.encoder_hash, values)

    # Several recordings are weighted by their quality; of a single one the quality is computed when it is read.
    report = partial(assess_enrollment, network, enrollments, chosen, device, verifier=extractor.verifier)
    assess: Callable[[], VoiceQuality] | None = report if enrollments else None
    tensors = prepared[0]
    if len(prepared) > 1:
        weights = None
        if enrollments:
            quality = report()
            weights, assess = [recording.weight for recording in quality.recordings], lambda: quality
        with torch.inference_mode():
            tensors = network.combine(prepared, weights)
    return _as_voice(extractor, tensors, sum(enrollment.duration_s for enrollment in enrollments), assess, verifier)


def enroll_each_voice(extractor: Extractor, enrollment: EnrollmentAudio, voices: EnrollmentVoices) -> list[Voice]:
    """Return a voice print of each voice in a recording, in their order.

    Args:
        extractor: the model; steered by embeddings alone.
        enrollment: the recording.
        voices: found in it by `mixed_enrollment.encode_voices`.

    Raises:
        InputError: the model is steered by more than embeddings.
    """
    prepared = _prepare(extractor, enrollment)
    require_embedding_cues(extractor.network, prepared, extractor.name)
    voice_prints = []
    for number, embedding in enumerate(voices.embeddings, start=1):
        chosen = ChosenVoice(len(voices), number)
        assess = partial(assess_enrollment, extractor.network, [enrollment], [chosen], str(extractor.device))
        tensors = replace_embedding(prepared, embedding)
        voice_prints.append(_as_voice(extractor, tensors, enrollment.duration_s, assess))
    return voice_prints


def negative_recordings(negative: EnrollmentSource | list[EnrollmentSource]) -> list[Source]:
    """Return the recordings of a negative enrollment, which is one or a list of them.

    Raises:
        InputError: an empty list, or an embedding.
    """
    sources = negative if isinstance(negative, list) else [negative]
    if not sources:
        raise InputError("negative: is an empty list; name a recording of the person who is not meant, or none")
    if any(read_embedding(source) is not None for source in sources):
        raise InputError("negative: takes recordings of the person who is not meant, no embedding")
    return sources  # type: ignore[return-value]


def add_negative(extractor: Extractor, voice: Voice, recordings: Sequence[EnrollmentAudio]) -> Voice:
    """Return a voice with the tensors of another negative enrollment.

    Args:
        extractor: the model; it takes negative enrollments.
        voice: of this model; it is not changed.
        recordings: of persons who are not meant, one or more.
    """
    import torch

    with torch.inference_mode():
        prepared = [
            extractor.network.prepare_negative(torch.from_numpy(recording.waveform)[None].to(extractor.device))
            for recording in recordings
        ]
        tensors = extractor.network.combine_negatives(prepared)
    return replace(
        voice,
        tensors=voice.tensors | {key: tensor.cpu() for key, tensor in tensors.items()},
        negative_s=sum(recording.duration_s for recording in recordings),
    )


def find_voice_layout(extractor: Extractor) -> VoiceLayout:
    """Return the shapes of a model's voice prints, seen from enrollments of noise of two lengths."""
    import torch

    noise, dim = np.random.default_rng(0), extractor.embedding_dim
    network, device = extractor.network, extractor.device
    embedding = None if dim is None else torch.from_numpy(noise.standard_normal((1, dim), np.float32))
    layouts = []
    for length_s in LAYOUT_LENGTHS_S:
        samples = round(length_s * extractor.sample_rate)
        waveform = torch.from_numpy(noise.standard_normal((1, samples), np.float32)).to(device)
        embeddings = () if embedding is None else (embedding.to(device),)
        with torch.inference_mode():
            prepared = network.prepare(waveform, torch.tensor([samples], device=device), *embeddings)
            if extractor.takes_negative:
                prepared |= network.prepare_negative(waveform[:, : samples // 2])
        layouts.append({name: tensor.cpu() for name, tensor in prepared.items()})
    return VoiceLayout(*layouts)


def _prepare(
    extractor: Extractor, enrollment: EnrollmentAudio | None, *embedding: NDArray[np.float32]
) -> dict[str, torch.Tensor]:
    """Return the network's tensors of a recording, if there is one, and of an embedding, if it takes one."""
    import torch

    samples = np.zeros(0, dtype=np.float32) if enrollment is None else enrollment.waveform
    waveform, *embeddings = (torch.from_numpy(array)[None].to(extractor.device) for array in (samples, *embedding))
    lengths = torch.tensor([waveform.shape[1]], device=extractor.device)
    with torch.inference_mode():
        prepared = extractor.network.prepare(waveform, lengths, *embeddings)
    if enrollment is not None:
        log.info("enrolled %.1f s of %s", enrollment.duration_s, enrollment.name)
    return prepared


def _as_voice(
    extractor: Extractor,
    tensors: dict[str, torch.Tensor],
    enrolled_s: float,
    assess: Callable[[], VoiceQuality] | None,
    verifier: VerifierEmbedding | None = None,
) -> Voice:
    tensors = {key: tensor.cpu() for key, tensor in tensors.items()}
    return Voice(tensors, extractor.model_hash, enrolled_s, assess, verifier=verifier)
