"""The voices in an enrollment that is not clean: how many there are, each as a print, and which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.inference.enrollment_quality import VoiceQuality

if TYPE_CHECKING:
    from torch import Tensor

    from wesep_py.inference.voice_print import Voice
    from wesep_py.network.extraction_network import TargetSpeakerExtractor

EMBEDDING = "embedding"


@dataclass(frozen=True)
class EnrollmentVoices:
    """What the speaker encoder hears in a recording.

    Attributes:
        embeddings: `[voices, embedding_dim]`, of one voice or more.
        probabilities: of each, that it is there; the first is taken for granted (1).
    """

    embeddings: NDArray[np.float32]
    probabilities: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def cosines(self) -> NDArray[np.float32]:
        """Of each voice to each, `[voices, voices]`."""
        unit = _unit(self.embeddings)
        return unit @ unit.T


@dataclass(frozen=True)
class VoiceMatch:
    """Which voice of a recording was taken.

    Attributes:
        count: voices in it.
        number: of the voice, from 1.
        cosine: to the print that it should be like; `None` without one.
        next_cosine: of the voice that is nearest to the print but for it.
    """

    count: int
    number: int
    cosine: float | None = None
    next_cosine: float | None = None


def counts_voices(network: TargetSpeakerExtractor) -> bool:
    """Whether the network's speaker encoder hears more than one voice."""
    return getattr(getattr(network, "encoder", None), "max_voices", 1) > 1


def require_voice_counting(network: TargetSpeakerExtractor, name: str) -> None:
    """Refuse a model that cannot tell the voices of a recording.

    Raises:
        InputError: its encoder hears one voice, or it has none.
    """
    if not counts_voices(network):
        raise InputError(
            f"{name}: its speaker encoder hears one voice a recording; to tell several apart, use a model whose "
            "encoder has the pooling 'recursive' (recipes/speaker/recursive.yaml)"
        )


def require_embedding_cues(network: TargetSpeakerExtractor, prepared: dict[str, Tensor], name: str) -> None:
    """Refuse a model that is steered by more than embeddings: the frames of a mixture hold all of its voices.

    Raises:
        InputError: a cue keeps something else of an enrollment.
    """
    for key in prepared:
        index, _, kept = key.partition(".")
        if kept != EMBEDDING:
            cue = network.config["cues"][int(index)]["name"]
            raise InputError(
                f"{name}: its cue {cue!r} takes an enrollment frame by frame, and one voice's frames cannot be told "
                "from another's; use a model steered by 'embedding' only, or cut the recording to where one speaks"
            )


def encode_voices(network: TargetSpeakerExtractor, waveform: NDArray[np.float32], device: str) -> EnrollmentVoices:
    """The voices of a recording `[samples]` at the model's rate, at the level that the network brings it to."""
    import torch

    encoder = network.encoder
    assert encoder is not None, "the network tells voices"
    with torch.inference_mode():
        given = encoder_input(network, [waveform], device)
        found = encoder.voices_of_features(*given) if encoder.front_end == "backbone" else encoder.voices(*given)
    number = int(found.count[0])
    probabilities = found.existence_logits[0, 1:number].sigmoid().tolist()
    return EnrollmentVoices(found.embeddings[0, :number].cpu().numpy(), (1.0, *probabilities))


def nearest_voice(heard: EnrollmentVoices, like: Voice) -> VoiceMatch:
    """The voice that is most like a print.

    Raises:
        InputError: the print holds no embedding.
    """
    prints = [tensor for key, tensor in like.tensors.items() if key.partition(".")[2] == EMBEDDING]
    if not prints:
        raise InputError("the voice print holds no embedding to compare with; make it with a model that has one")
    cosines = _unit(heard.embeddings) @ _unit(prints[0][0].float().numpy())
    order = np.argsort(-cosines)
    second = float(cosines[order[1]]) if len(order) > 1 else None
    return VoiceMatch(len(heard), int(order[0]) + 1, float(cosines[order[0]]), second)


def with_embedding(prepared: dict[str, Tensor], embedding: NDArray[np.float32]) -> dict[str, Tensor]:
    """What was prepared of a recording, with the embedding `[embedding_dim]` of one voice in the place of its own."""
    import torch

    chosen = torch.from_numpy(np.array(embedding))[None]
    return {key: chosen.to(tensor.device, tensor.dtype) for key, tensor in prepared.items()}


def add_voice_counts(quality: VoiceQuality, counts: Sequence[int], chosen: Sequence[VoiceMatch | None]) -> VoiceQuality:
    """The report, with the number of voices that the encoder hears in each recording, and the one taken."""
    recordings = []
    for one, count, taken in zip(quality.recordings, counts, chosen, strict=True):
        told = replace(one, voices=count, second_voice=count > 1)
        if taken is not None:
            told = replace(told, chosen=taken.number, cosine_to_print=taken.cosine, next_cosine=taken.next_cosine)
        recordings.append(told)
    return replace(quality, recordings=tuple(recordings))


def encoder_input(
    network: TargetSpeakerExtractor, waveforms: Sequence[NDArray[np.float32]], device: str
) -> tuple[Tensor, Tensor]:
    """What the speaker encoder takes: padded waveforms and lengths, or the backbone's features and their mask.

    Each waveform is heard as the network hears an enrollment.
    """
    import torch

    encoder = network.encoder
    assert encoder is not None, "asked for by callers"
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(np.array(waveform)) for waveform in waveforms], True)
    padded, lengths = padded.to(device), lengths.to(device)
    padded, _ = network.preprocess(padded, lengths)
    if encoder.front_end != "backbone":
        return padded, lengths
    features = network.backbone.analyse(padded).features
    frames = torch.arange(features.shape[-1], device=padded.device)
    return features, frames[None] < network.backbone.num_frames(lengths)[:, None]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
