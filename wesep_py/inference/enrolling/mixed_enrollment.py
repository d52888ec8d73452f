"""Enrollments in which several people speak: how many voices there are, an embedding of each, and which one is meant.

This needs a speaker encoder that counts voices (pooling `recursive`) and a model that is steered by embeddings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.inference.enrolling.enrollment_quality import VoiceQuality

if TYPE_CHECKING:
    from torch import Tensor

    from wesep_py.inference.enrolling.voice_print import Voice
    from wesep_py.network.extraction_network import TargetSpeakerExtractor

EMBEDDING = "embedding"
"""Prepared tensors have the keys `CUE_INDEX.NAME`; this is the name of an embedding."""


@dataclass(frozen=True)
class EnrollmentVoices:
    """Voices that the speaker encoder finds in a recording, one or more.

    Attributes:
        embeddings: `[voices, embedding_dim]`.
        probabilities: of each voice that it exists, 0 to 1; the first is taken for granted (1).
    """

    embeddings: NDArray[np.float32]
    probabilities: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def cosines(self) -> NDArray[np.float32]:
        """Cosine of each voice to each, `[voices, voices]`."""
        unit = _unit(self.embeddings)
        return unit @ unit.T


@dataclass(frozen=True)
class ChosenVoice:
    """Voice of a recording that was enrolled.

    Attributes:
        count: number of voices in the recording.
        number: of the enrolled voice, from 1.
        cosine: to the voice print that it should match; `None` without one.
        next_cosine: to that print, of the second nearest voice; `None` without one.
    """

    count: int
    number: int
    cosine: float | None = None
    next_cosine: float | None = None


def counts_voices(network: TargetSpeakerExtractor) -> bool:
    """Return whether the network's speaker encoder can find more than one voice in a recording."""
    return getattr(getattr(network, "encoder", None), "max_voices", 1) > 1


def require_voice_counting(network: TargetSpeakerExtractor, name: str) -> None:
    """Refuse a model that cannot separate the voices of a recording.

    Raises:
        InputError: its encoder gives one embedding per recording, or it has no encoder.
    """
    if not counts_voices(network):
        raise InputError(
            f"{name}: its speaker encoder finds one voice per recording; to separate several, use a model whose "
            "encoder has the pooling 'recursive' (recipes/speaker/recursive.yaml)"
        )


def require_embedding_cues(network: TargetSpeakerExtractor, prepared: dict[str, Tensor], name: str) -> None:
    """Refuse a model that is steered by more than embeddings: the frames of a mixture hold all of its voices.

    Raises:
        InputError: a cue prepares something other than an embedding.
    """
    for key in prepared:
        index, _, kind = key.partition(".")
        if kind != EMBEDDING:
            cue = network.config["cues"][int(index)]["name"]
            raise InputError(
                f"{name}: its cue {cue!r} takes an enrollment frame by frame, and the frames of one voice cannot be "
                "separated from another's; use a model steered by 'embedding' only, or cut the recording to where one "
                "person speaks"
            )


def encode_voices(network: TargetSpeakerExtractor, waveform: NDArray[np.float32], device: str) -> EnrollmentVoices:
    """Return the voices of a recording `[samples]` at the model's rate, as its speaker encoder finds them."""
    import torch

    encoder = network.encoder
    assert encoder is not None, "the network counts voices"
    with torch.inference_mode():
        inputs = encoder_input(network, [waveform], device)
        voices = encoder.voices_of_features(*inputs) if encoder.front_end == "backbone" else encoder.voices(*inputs)
    count = int(voices.count[0])
    probabilities = voices.existence_logits[0, 1:count].sigmoid().tolist()
    return EnrollmentVoices(voices.embeddings[0, :count].cpu().numpy(), (1.0, *probabilities))


def nearest_voice(voices: EnrollmentVoices, like: Voice) -> ChosenVoice:
    """Return the voice with the highest cosine to a voice print.

    Raises:
        InputError: the print holds no embedding.
    """
    prints = [tensor for key, tensor in like.tensors.items() if key.partition(".")[2] == EMBEDDING]
    if not prints:
        raise InputError("the voice print holds no embedding to compare with; make it with a model that has one")
    cosines = _unit(voices.embeddings) @ _unit(prints[0][0].float().numpy())
    order = np.argsort(-cosines)
    second = float(cosines[order[1]]) if len(order) > 1 else None
    return ChosenVoice(len(voices), int(order[0]) + 1, float(cosines[order[0]]), second)


def replace_embedding(prepared: dict[str, Tensor], embedding: NDArray[np.float32]) -> dict[str, Tensor]:
    """Return prepared tensors with the embedding `[embedding_dim]` of one voice in place of the whole recording's."""
    import torch

    row = torch.from_numpy(np.array(embedding))[None]
    return {key: row.to(tensor.device, tensor.dtype) for key, tensor in prepared.items()}


def add_voice_counts(
    quality: VoiceQuality, counts: Sequence[int], chosen: Sequence[ChosenVoice | None]
) -> VoiceQuality:
    """Return a report with the number of voices in each recording, and the one that was enrolled.

    The count also decides on `second_voice`, in place of the similarity of windows.
    """
    recordings = []
    for recording, count, voice in zip(quality.recordings, counts, chosen, strict=True):
        recording = replace(recording, voices=count, second_voice=count > 1)
        if voice is not None:
            recording = replace(
                recording, chosen=voice.number, cosine_to_print=voice.cosine, next_cosine=voice.next_cosine
            )
        recordings.append(recording)
    return replace(quality, recordings=tuple(recordings))


def encoder_input(
    network: TargetSpeakerExtractor, waveforms: Sequence[NDArray[np.float32]], device: str
) -> tuple[Tensor, Tensor]:
    """Return the input of the speaker encoder for waveforms `[samples]`, preprocessed as an enrollment is.

    Returns:
        Padded waveforms `[waveforms, samples]` and their lengths; for an encoder on the backbone's features, these and
        their mask `[waveforms, frames]`.
    """
    import torch

    encoder = network.encoder
    assert encoder is not None, "checked by the callers"
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(np.array(waveform)) for waveform in waveforms], True)
    padded, lengths = padded.to(device), lengths.to(device)
    padded, level = network.preprocess(padded, lengths)
    if encoder.front_end != "backbone":
        return padded * level if encoder.takes_own_level else padded, lengths
    features = network.backbone.analyse(padded).features
    frames = torch.arange(features.shape[-1], device=padded.device)
    return features, frames[None] < network.backbone.num_frames(lengths)[:, None]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
