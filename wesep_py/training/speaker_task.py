"""Training of a speaker encoder alone: classify the speaker of a mixture, or all of its speakers in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker import SpeakerEncoder, encoder_config
from wesep_py.network.speaker.speaker_losses import PermutationFreeLoss, SpeakerLoss, build_speaker_loss
from wesep_py.network.speaker.speaker_losses.permutation_free import NO_SPEAKER
from wesep_py.network.speaker.speaker_network import count_voices
from wesep_py.simulation import Sample
from wesep_py.training.batches import stack_padded
from wesep_py.training.task import Item, Task
from wesep_py.training.training_config import SpeakerTrainConfig
from wesep_py.training.validation import SpeakerValidator


class SpeakerTask(Task):
    """A speaker encoder, trained from mixtures of one speaker (with the noise and rooms of the simulation) to labels.

    With the pooling `recursive` a mixture may have several speakers, at most `max_voices`. If the simulation draws
    enrollments too, they are further examples of the speaker, which losses that compare utterances of one speaker need.

    Args:
        config: of the run.
        num_speakers: of the training set.

    Raises:
        ConfigError: a part of the encoder or a loss is wrong, or mixtures have more speakers than it can separate.
        InputError: the manifest of the validation is missing or malformed.
    """

    def __init__(self, config: SpeakerTrainConfig, num_speakers: int) -> None:
        self.sample_rate = config.sample_rate
        if config.speaker.front_end == "backbone":
            raise ConfigError("speaker.front_end: is 'backbone', and there is none here; use 'filterbank'")
        self.network = SpeakerEncoder(config.speaker, config.sample_rate)
        counts_voices = self.network.max_voices > 1
        _check_batch_size(config, self.network)
        _check_num_speakers(config, self.network.max_voices)
        losses = [config.loss] if isinstance(config.loss, Mapping) else config.loss
        loss = build_speaker_loss(losses, self.network.embedding_dim, num_speakers, "loss")
        self.loss: SpeakerLoss | PermutationFreeLoss = loss
        weight = {} if config.existence_weight is None else {"existence_weight": config.existence_weight}
        if weight and not counts_voices:
            raise ConfigError("existence_weight: is for an encoder that counts voices, with the pooling 'recursive'")
        if counts_voices:
            try:
                self.loss = PermutationFreeLoss(loss, **weight)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            self.items, self.collate = multi_speaker_items, collate_multi_speaker
            self.step = MultiSpeakerStep(self.network, self.loss)
        else:
            self.items, self.collate = speaker_items, collate_speakers
            self.step = SpeakerStep(self.network, loss)
        self.checkpoint_config = encoder_config(config.speaker)
        self.title = (
            f"Speaker encoder, {config.sample_rate} Hz, {config.speaker.network['name']}, trained to tell "
            f"{num_speakers} speakers."
        )
        self.validator = None
        if config.validation is not None:
            counting = config.simulation if counts_voices else None
            self.validator = SpeakerValidator(config.validation, config.data.root, config.sample_rate, counting)

    def begin_step(self, step: int) -> None:
        self.loss.update(step)


def _check_batch_size(config: SpeakerTrainConfig, network: SpeakerEncoder) -> None:
    examples = config.train.batch_size * (1 + config.simulation.enrollment.count)
    normalises = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    if examples == 1 and normalises:
        raise ConfigError("train.batch_size: is 1, and this network normalises over its batch; use 2 or more")


def _check_num_speakers(config: SpeakerTrainConfig, max_voices: int) -> None:
    most = max(number for number, weight in config.simulation.speaker_weights.items() if weight > 0)
    if most > max_voices == 1:
        raise ConfigError(
            "simulation.num_speakers: a mixture of several speakers has no single label; give 1, or let the network "
            "find all of them: speaker.network.pooling: {name: recursive}"
        )
    if most > max_voices:
        raise ConfigError(
            f"simulation.num_speakers: mixtures have up to {most}, and the network's pooling looks for {max_voices}; "
            f"give speaker.network.pooling: {{name: recursive, max_voices: {most}}}"
        )


def speaker_items(sample: Sample, labels: Mapping[str, int]) -> list[Item]:
    """Return the mixture, and each enrollment, as `{mixture: float32 [samples], speaker: label}`."""
    (source,) = sample.recipe.sources
    waveforms = [sample.mixture, *(enrollment for enrollment in sample.enrollments if len(enrollment))]
    return [{"mixture": waveform, "speaker": labels[source.speaker_id]} for waveform in waveforms]


def collate_speakers(mixtures: Sequence[list[Item]]) -> dict[str, Tensor]:
    """Return the batch: `mixture` `[B, longest]`, `lengths` `[B]` in samples, `speaker` `[B]`."""
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
        """Return `loss`, its parts, and `accuracy` among the training speakers if the loss classifies."""
        embedding = self.network(batch["mixture"], batch["lengths"]).embedding
        result = self.loss(embedding, batch["speaker"])
        values = {"loss": result.loss, **(result.parts or {})}
        if result.cosines is not None:
            values["accuracy"] = (result.cosines.argmax(1) == batch["speaker"]).float().mean()
        return values


def multi_speaker_items(sample: Sample, labels: Mapping[str, int]) -> list[Item]:
    """Return the mixture with the labels of its speakers, and each enrollment with its own.

    Returns:
        Dictionaries `{mixture: float32 [samples], speakers: [label, …]}`.
    """
    speakers = [labels[source.speaker_id] for source in sample.recipe.sources]
    enrollments = [
        (waveform, [label]) for waveform, label in zip(sample.enrollments, speakers, strict=True) if len(waveform)
    ]
    return [
        {"mixture": waveform, "speakers": item_speakers}
        for waveform, item_speakers in [(sample.mixture, speakers), *enrollments]
    ]


def collate_multi_speaker(mixtures: Sequence[list[Item]]) -> dict[str, Tensor]:
    """Return the batch: `mixture` `[B, longest]`, `lengths` `[B]` in samples, `speakers` `[B, most]` padded with -1."""
    items = [item for mixture in mixtures for item in mixture]
    most = max(len(item["speakers"]) for item in items)
    return {
        "mixture": stack_padded([item["mixture"] for item in items]),
        "lengths": torch.tensor([len(item["mixture"]) for item in items]),
        "speakers": torch.tensor([item["speakers"] + [NO_SPEAKER] * (most - len(item["speakers"])) for item in items]),
    }


class MultiSpeakerStep(nn.Module):
    """An encoder that finds several voices, and its loss, as one module: what a device computes in a step."""

    def __init__(self, network: SpeakerEncoder, loss: PermutationFreeLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `loss`, its parts, `accuracy` among the training speakers, and `count_accuracy`."""
        most = self.network.max_voices
        labels = nn.functional.pad(batch["speakers"], (0, most - batch["speakers"].shape[1]), value=NO_SPEAKER)
        counts = (labels != NO_SPEAKER).sum(dim=1)
        voices = self.network.voices(batch["mixture"], batch["lengths"], counts=counts)
        result = self.loss(voices.embeddings, voices.existence_logits, labels)
        counted_right = (count_voices(voices.existence_logits) == counts).float().mean()
        return {"loss": result.loss, **result.parts, "accuracy": result.accuracy, "count_accuracy": counted_right}
