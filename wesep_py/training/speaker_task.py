"""Training a speaker encoder alone: whose voice is in the mixture, judged by speaker verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.data import FileReader, read_speech
from wesep_py.evaluation.verification import (
    OverlapRecording,
    Trials,
    count_accuracy,
    draw_recordings,
    embed,
    embed_voices,
    figures,
    score_trials,
)
from wesep_py.network.speaker import SpeakerEncoder, encoder_config
from wesep_py.network.speaker.speaker_losses import PermutationFreeLoss, SpeakerLoss, build_speaker_loss
from wesep_py.simulation import Sample, SimulationConfig
from wesep_py.training.batches import stack_padded
from wesep_py.training.extraction_task import VoicesStep, collate_voices, voice_items
from wesep_py.training.task import Item, Judge, Task, Verdict
from wesep_py.training.training_config import SpeakerTrainConfig, VerificationConfig
from wesep_py.training.validation import spread

# ----------------------------------------
# Validation of a speaker encoder: all pairs of a manifest's utterances as trials of speaker verification.

NUM_COUNTED = 50
"""Recordings of each number of speakers in which voices are counted."""


class Verification(Judge):
    """Trials of speaker verification; every process scores them all, and finds the same.

    Args:
        config: which utterances.
        data_root: the folder its paths are relative to where it names none.
        sample_rate: of the encoder's waveforms, in Hz.
        counted: where the encoder is to count voices: the simulation that it learns from, of whose lengths, overlap
            and levels recordings of one speaker, of two, and so on are made, without noise and rooms.

    Raises:
        InputError: the manifest is missing or malformed, or its utterances make no trials, or no mixtures.
    """

    measure, lower_is_better = "eer", True

    def __init__(
        self,
        config: VerificationConfig,
        data_root: str,
        sample_rate: int,
        counted: SimulationConfig | None = None,
    ) -> None:
        self.config, self.every_steps = config, config.every_steps
        root = Path(config.root if config.root is not None else data_root)
        self.utterances = spread(read_speech([config.manifest], root), config.limit)
        self.speaker_ids = [utterance.speaker_id for utterance in self.utterances]
        self.trials = Trials.all_pairs(self.speaker_ids)
        self.reader = FileReader(sample_rate)
        self.counted, self.numbers = counted, range(0)
        self._recordings: list[OverlapRecording] | None = None
        if counted is not None:
            most = max(number for number, weight in counted.speaker_weights.items() if weight > 0)
            self.numbers = range(1, max(2, most) + 1)
            draw_recordings(self.utterances, self.reader, self.numbers[-1], 0, counted)

    def judge(
        self, network: nn.Module, fabric: Fabric, num_examples: int, should_stop: Callable[[], bool]
    ) -> Verdict | None:
        assert isinstance(network, SpeakerEncoder)
        embeddings = embed(network, self.utterances, self.reader, fabric.device)
        if should_stop():
            return None
        found = figures(score_trials(embeddings, self.trials), self.trials, self.speaker_ids, resamples=0)
        eer, cost = found["eer"].mean, found["min_dcf"].mean
        assert eer is not None and cost is not None
        counted = self._count(network, fabric)
        return Verdict({"count": float(len(self.trials.test)), "eer": eer, "min_dcf": cost, **counted})

    def describe(self, numbers: Mapping[str, float]) -> str:
        shares = ", ".join(f"{100 * numbers[f'count_accuracy_{number}']:.0f} % of {number}" for number in self.numbers)
        return (
            f"EER {100 * numbers['eer']:.2f} %, minDCF {numbers['min_dcf']:.3f} "
            f"({numbers['count']:.0f} pairs of {self.config.manifest})"
            + (f", voices counted right: {shares}" if shares else "")
        )

    def protocol(self) -> dict[str, Any]:
        told = {"manifest": self.config.manifest, "limit": self.config.limit, "pairs": "all"}
        return told if self.counted is None else {**told, "counted_recordings": [NUM_COUNTED] * len(self.numbers)}

    def _count(self, network: SpeakerEncoder, fabric: Fabric) -> dict[str, float]:
        """`count_accuracy_1`, `count_accuracy_2`, …; nothing where the encoder does not count."""
        if self.counted is None:
            return {}
        if self._recordings is None:
            self._recordings = [
                recording
                for number in self.numbers
                for recording in draw_recordings(self.utterances, self.reader, number, NUM_COUNTED, self.counted)
            ]
        found = count_accuracy(self._recordings, embed_voices(network, self._recordings, fabric.device))
        return {f"count_accuracy_{number}": share for number, share in found.items()}


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
