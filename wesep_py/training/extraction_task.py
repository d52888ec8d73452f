"""Training an extractor: every mixture is an item for each target, judged by extracting a fixed list of trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric

from wesep_py.corpus.embeddings import Embeddings
from wesep_py.errors import ConfigError
from wesep_py.extractor import TargetSpeakerExtractor, build_network
from wesep_py.losses import Adversary
from wesep_py.simulation import Sample
from wesep_py.training.config import TrainConfig
from wesep_py.training.criterion import Criterion, TrainingStep
from wesep_py.training.data import stack_padded
from wesep_py.training.loss_arguments import loss_arguments
from wesep_py.training.self_enrollment import SelfEnrolledStep
from wesep_py.training.task import Item, Task
from wesep_py.training.validate import Validation


class ExtractionTask(Task):
    """A target speaker extractor, from mixtures and enrollments to estimates.

    Args:
        config: the run's.
        fabric: the processes among which the trials are dealt.
        num_speakers: counts those of the training set; asked only if a loss wants them.

    Raises:
        ConfigError: a part of the model or a loss is wrong, or the mixtures come without enrollments.
        InputError: the lists of trials, or precomputed embeddings, are missing or malformed.
    """

    def __init__(self, config: TrainConfig, fabric: Fabric, num_speakers: Callable[[], int]) -> None:
        if config.simulation.enrollment.count < 1:
            raise ConfigError("simulation.enrollment.count: is 0; an extractor needs an enrollment, so give 1 or more")
        self.network = build_network(config.model)
        self.sample_rate, self.checkpoint_config = self.network.sample_rate, self.network.config
        self.embeddings = open_embeddings(config, self.network)
        self.criterion = Criterion(config.loss, loss_arguments(self.network, num_speakers))
        self.step = (
            TrainingStep(self.network, self.criterion)
            if config.self_enrollment is None
            else SelfEnrolledStep(self.network, self.criterion, config.self_enrollment)
        )
        self.items = partial(target_items, targets=config.train.targets_per_mixture)
        self.collate = collate_targets
        backbone = self.checkpoint_config["backbone"]["name"]
        self.title = f"Target speaker extraction, {self.sample_rate} Hz, backbone {backbone}."
        self.judge = None
        if config.validation is not None:
            ranks = fabric.global_rank, fabric.world_size
            self.judge = Validation(config.validation, config.data.root, self.sample_rate, *ranks, self.embeddings)

    def begin_step(self, step: int) -> None:
        self.criterion.update(step)
        if isinstance(self.step, SelfEnrolledStep):
            self.step.begin_step(step)

    @property
    def adversaries(self) -> dict[str, Adversary]:
        return self.criterion.adversaries


def open_embeddings(config: TrainConfig, network: TargetSpeakerExtractor) -> Embeddings | None:
    """The precomputed embeddings that a run's voices are introduced by; `None` where recordings do it.

    Raises:
        ConfigError: they are named and no cue takes them, or the other way round; estimates are to introduce voices.
        InputError: there are none where they are named.
    """
    name, dim = config.data.embeddings, network.given_embedding_dim
    if dim is None:
        if name is None:
            return None
        raise ConfigError(
            "data.embeddings: no cue of the model takes them; give a cue 'embedding' its embedding_dim, and the model "
            "no 'speaker'"
        )
    if name is None:
        raise ConfigError(
            f"data.embeddings: is missing, and a cue takes embeddings of {dim} numbers that are computed elsewhere; "
            "name their folder, .scp or .ark"
        )
    if config.self_enrollment is not None:
        raise ConfigError("self_enrollment: estimates have no precomputed embeddings; remove it, or data.embeddings")
    return Embeddings(Path(config.data.root) / name, dim)


def target_items(sample: Sample, labels: Mapping[str, int], targets: Literal["one", "all"] = "one") -> list[Item]:
    """One item a target; where the recipe's target is absent, one for the absent voice too.

    Args:
        sample: the mixture.
        labels: a whole number for each speaker_id.
        targets: `one`: the recipe's target, or absent voice; `all`: every speaker of the mixture, and the absent voice.

    Returns:
        Dictionaries with `mixture`, `target`, `enrollment` (float32 `[samples]`), `activity` (of the target,
        `[frames]` at 100 Hz), `present` (1, or 0 with a target of zeros that is never active) and `speaker` (the label
        of the enrolled voice); with precomputed embeddings also `embedding`, `[dim]`.
    """
    asked = sample.recipe.target
    chosen: list[int | None] = [*range(len(sample.recipe.sources))] if targets == "all" else []
    chosen += [asked] if asked is None or not chosen else []
    voices = [(source, sample.voice(source)) for source in chosen]
    return [
        {
            "mixture": sample.mixture,
            "target": voice.target,
            "enrollment": voice.enrollment,
            "activity": voice.activity,
            "present": int(source is not None),
            "speaker": labels[voice.speaker_id],
            **({} if voice.embedding is None else {"embedding": voice.embedding}),
        }
        for source, voice in voices
    ]


def collate_targets(mixtures: Sequence[list[Item]]) -> dict[str, torch.Tensor]:
    """One batch of the items of all mixtures.

    Returns:
        `mixture`, `target` `[B, samples]`, `enrollment` `[B, longest]` padded with zeros at the end,
        `enrollment_lengths` `[B]` in samples, `activity` `[B, frames]`, `present` and `speaker` `[B]`. Mixtures of
        different lengths are padded likewise. Where items have it, `embedding` `[B, dim]`.
    """
    items = [item for mixture in mixtures for item in mixture]
    names = [name for name in ("mixture", "target", "enrollment", "activity", "embedding") if name in items[0]]
    batch = {name: stack_padded([item[name] for item in items]) for name in names}
    batch["enrollment_lengths"] = torch.tensor([len(item["enrollment"]) for item in items])
    for name in ("present", "speaker"):
        batch[name] = torch.tensor([item[name] for item in items])
    return batch
