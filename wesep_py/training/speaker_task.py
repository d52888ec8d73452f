"""Training a speaker encoder alone: whose voice is in the mixture, judged by speaker verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wesep_py.errors import ConfigError
from wesep_py.simulation import Sample
from wesep_py.speaker import SpeakerEncoder, encoder_config
from wesep_py.speaker.losses import PermutationFreeLoss, SpeakerLoss, build_speaker_loss
from wesep_py.training.config import SpeakerTrainConfig
from wesep_py.training.data import stack_padded
from wesep_py.training.task import Item, Task
from wesep_py.training.verification import Verification
from wesep_py.training.voices import VoicesStep, collate_voices, voice_items


class SpeakerTask(Task):
    """A speaker encoder, from mixtures of one speaker (with all the noise and rooms of the simulation) to labels.

    With the pooling `recursive` there may be several speakers in a mixture, as many as its `max_voices` at most.
    Where the simulation gives enrollments too, they are further examples of the speaker: what losses that compare
    utterances of one speaker need.

    Args:
        config: the run's.
        num_speakers: of the training set.

    Raises:
        ConfigError: a part of the encoder or a loss is wrong, or mixtures have more speakers than it can tell.
        InputError: the manifest of the validation is missing or malformed.
    """

    def __init__(self, config: SpeakerTrainConfig, num_speakers: int) -> None:
        self.sample_rate = config.sample_rate
        if config.speaker.front_end == "backbone":
            raise ConfigError("speaker.front_end: is 'backbone', and there is none here; use 'filterbank'")
        self.network = SpeakerEncoder(config.speaker, config.sample_rate)
        several = self.network.max_voices > 1
        _check_batch(config, self.network)
        _check_num_speakers(config, self.network.max_voices)
        losses = [config.loss] if isinstance(config.loss, Mapping) else config.loss
        loss = build_speaker_loss(losses, self.network.embedding_dim, num_speakers, "loss")
        self.loss: SpeakerLoss | PermutationFreeLoss = loss
        weight = {} if config.existence_weight is None else {"existence_weight": config.existence_weight}
        if weight and not several:
            raise ConfigError("existence_weight: is for an encoder that counts voices, with the pooling 'recursive'")
        if several:
            try:
                self.loss = PermutationFreeLoss(loss, **weight)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            self.items, self.collate = voice_items, collate_voices
            self.step = VoicesStep(self.network, self.loss)
        else:
            self.items, self.collate = speaker_items, collate_speakers
            self.step = SpeakerStep(self.network, loss)
        self.checkpoint_config = encoder_config(config.speaker)
        self.title = (
            f"Speaker encoder, {config.sample_rate} Hz, {config.speaker.network['name']}, trained to tell "
            f"{num_speakers} speakers."
        )
        self.judge = None
        if config.validation is not None:
            counted = config.simulation if several else None
            self.judge = Verification(config.validation, config.data.root, config.sample_rate, counted)

    def begin_step(self, step: int) -> None:
        self.loss.update(step)


def _check_batch(config: SpeakerTrainConfig, network: SpeakerEncoder) -> None:
    examples = config.train.batch_size * (1 + config.simulation.enrollment.count)
    normalises = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    if examples == 1 and normalises:
        raise ConfigError("train.batch_size: is 1, and this network normalises over its batch; use 2 or more")


def _check_num_speakers(config: SpeakerTrainConfig, max_voices: int) -> None:
    most = max(count for count, weight in config.simulation.speaker_weights.items() if weight > 0)
    if most > max_voices == 1:
        raise ConfigError(
            "simulation.num_speakers: a mixture of several has no one speaker to tell; give 1, or let the network hear "
            "all of them: speaker.network.pooling: {name: recursive}"
        )
    if most > max_voices:
        raise ConfigError(
            f"simulation.num_speakers: mixtures have up to {most}, and the network's pooling looks for {max_voices}; "
            f"give speaker.network.pooling: {{name: recursive, max_voices: {most}}}"
        )


def speaker_items(sample: Sample, labels: Mapping[str, int]) -> list[Item]:
    """The mixture, and the enrollment if there is one, as `{mixture: float32 [samples], speaker: its label}`."""
    (source,) = sample.recipe.sources
    waveforms = [sample.mixture, *(one for one in sample.enrollments if len(one))]
    return [{"mixture": waveform, "speaker": labels[source.speaker_id]} for waveform in waveforms]


def collate_speakers(mixtures: Sequence[list[Item]]) -> dict[str, Tensor]:
    """`mixture` `[B, longest]`, `lengths` `[B]` in samples, `speaker` `[B]`."""
    items = [item for mixture in mixtures for item in mixture]
    return {
        "mixture": stack_padded([item["mixture"] for item in items]),
        "lengths": torch.tensor([len(item["mixture"]) for item in items]),
        "speaker": torch.tensor([item["speaker"] for item in items]),
    }


class SpeakerStep(nn.Module):
    """An encoder and its loss as one module: what a device computes in a step."""

    def __init__(self, network: SpeakerEncoder, loss: SpeakerLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`loss`, the parts of it, and `accuracy` among the training speakers where the loss classifies."""
        embedding = self.network(batch["mixture"], batch["lengths"]).embedding
        found = self.loss(embedding, batch["speaker"])
        values = {"loss": found.loss, **(found.parts or {})}
        if found.cosines is not None:
            values["accuracy"] = (found.cosines.argmax(1) == batch["speaker"]).float().mean()
        return values
