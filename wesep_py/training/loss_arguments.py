"""What the training of an extractor gives to losses that ask for it (`losses.Loss`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from wesep_py.cues import EmbeddingCue
from wesep_py.errors import ConfigError
from wesep_py.extractor import TargetSpeakerExtractor
from wesep_py.speaker.losses import build_speaker_loss


def loss_arguments(network: TargetSpeakerExtractor, num_speakers: Callable[[], int]) -> dict[str, Callable[[], Any]]:
    """Makers of `sample_rate`, `num_speakers` and `speaker_loss`, for `Criterion`.

    Args:
        network: that is trained.
        num_speakers: counts those of the training set; asked only if a loss wants them.
    """

    def speaker_loss() -> Callable[[Any], nn.Module]:
        dim = _learned_embedding_dim(network)
        return lambda config: build_speaker_loss(
            [config] if isinstance(config, Mapping) else config, dim, num_speakers(), "speaker_margin.loss"
        )

    return {"sample_rate": lambda: network.sample_rate, "num_speakers": num_speakers, "speaker_loss": speaker_loss}


def _learned_embedding_dim(network: TargetSpeakerExtractor) -> int:
    if network.encoder is None or not any(isinstance(cue, EmbeddingCue) for cue in network.cues):
        raise ConfigError(
            "loss: 'speaker_margin' needs the embedding of a speaker encoder; give the model a key 'speaker' and the "
            "cue 'embedding'"
        )
    if network.encoder.mode == "frozen":
        raise ConfigError(
            "loss: 'speaker_margin' trains the speaker encoder, and speaker.mode is 'frozen'; use joint or finetune"
        )
    return network.encoder.embedding_dim
