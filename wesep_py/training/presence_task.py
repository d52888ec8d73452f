"""Training of a personal VAD: which frames of a mixture are the enrolled person's, from the simulation's activity.

data worker:      sample ─► presence_items ─► collate_presence ─► batch
training device:  batch ─► PresenceStep (network ─► PairwiseLoss) ─► losses
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.data import FileReader, find_noises, read_speech
from wesep_py.network.extraction_network import eval_mode
from wesep_py.network.personal_vad import NUM_CLASSES, OTHERS, SILENCE, TARGET, PersonalVAD
from wesep_py.simulation import Sample, Simulator
from wesep_py.training.batches import ENROLLMENT_MULTIPLE, stack_padded
from wesep_py.training.data_config import PresenceValidationConfig
from wesep_py.training.task import Item, Task, ValidationResult, Validator
from wesep_py.training.training_config import PresenceTrainConfig

NO_FRAME = -1
"""Class of padding, which does not count."""
VALIDATION_SEED = 0x5AD


class PresenceTask(Task):
    """A personal VAD, trained from mixtures and enrollments to the class of each frame.

    Args:
        config: of the run.

    Raises:
        ConfigError: a part of the network is wrong, or the mixtures have no enrollments.
        InputError: the recordings of the validation are missing.
    """

    def __init__(self, config: PresenceTrainConfig) -> None:
        if config.simulation.enrollment.count < 1:
            raise ConfigError("simulation.enrollment.count: is 0; a personal VAD needs an enrollment; give 1 or more")
        self.network = PersonalVAD(config.model)
        self.sample_rate, self.checkpoint_config = self.network.sample_rate, self.network.config
        self.step = PresenceStep(self.network, PairwiseLoss(config.silence_others_weight))
        self.items = all_presence_items if config.train.targets_per_mixture == "all" else presence_items
        self.collate = collate_presence
        kind = "causal" if self.network.causal else "on whole recordings"
        self.title = f"Personal VAD, {self.sample_rate} Hz, {kind}."
        self.validator = None
        if config.validation is not None:
            self.validator = PresenceValidator(config, self.sample_rate)


def frame_classes(sample: Sample, source: int | None) -> Any:
    """Return the class of each frame for one speaker of a mixture as target, int64 `[frames]`.

    Args:
        sample: the mixture.
        source: number of the target; `None`: the absent speaker.
    """
    activity = sample.activity
    anybody = activity.any(0)
    if isinstance(activity, Tensor):
        classes = torch.where(anybody, OTHERS, SILENCE)
        return classes if source is None else torch.where(activity[source], TARGET, classes)
    classes = np.where(anybody, OTHERS, SILENCE)
    return classes if source is None else np.where(activity[source], TARGET, classes)


def presence_items(sample: Sample, labels: Mapping[str, int], targets: Literal["one", "all"] = "one") -> list[Item]:
    """Return one item per target: `mixture`, `enrollment` (float32 `[samples]`), `classes` `[frames]` at 100 Hz.

    Args:
        sample: the mixture.
        labels: not used.
        targets: `one`: the recipe's target, or the absent speaker; `all`: every speaker, and the absent one.
    """
    recipe = sample.recipe
    sources: list[int | None] = [*range(len(recipe.sources))] if targets == "all" else []
    sources += [recipe.target] if recipe.target is None or not sources else []
    return [
        {
            "mixture": sample.mixture,
            "enrollment": sample.speaker(source).enrollment,
            "classes": frame_classes(sample, source),
        }
        for source in sources
    ]


def all_presence_items(sample: Sample, labels: Mapping[str, int]) -> list[Item]:
    """Return the items of all speakers of a mixture; see `presence_items`."""
    return presence_items(sample, labels, "all")


def collate_presence(mixtures: Sequence[list[Item]]) -> dict[str, Tensor]:
    """Return the batch: `mixture` and `enrollment` `[B, longest]` with their `lengths` and `enrollment_lengths`
    `[B]`, and `classes` `[B, frames]`, -1 for padding. Enrollments are padded as for an extractor."""
    items = [item for mixture in mixtures for item in mixture]
    batch = {
        "mixture": stack_padded([item["mixture"] for item in items]),
        "enrollment": stack_padded([item["enrollment"] for item in items], ENROLLMENT_MULTIPLE),
    }
    batch["lengths"] = torch.tensor([len(item["mixture"]) for item in items])
    batch["enrollment_lengths"] = torch.tensor([len(item["enrollment"]) for item in items])
    classes = [torch.as_tensor(item["classes"]).long() for item in items]
    batch["classes"] = nn.utils.rnn.pad_sequence(classes, batch_first=True, padding_value=NO_FRAME)
    return batch


class PairwiseLoss(nn.Module):
    """Weighted pairwise loss of Ding et al. (Odyssey 2020, eq. 3).

    For a frame of class y with logits z: `−Σ_{k ≠ y} w_{yk} log(exp(z_y) / (exp(z_y) + exp(z_k)))`. To take silence
    for others, or others for silence, costs little to who wants the target's speech, so that pair has a weight below 1.

    Args:
        silence_others_weight: w of the pair of silence and others; 1 for the pairs with the target.
    """

    weights: Tensor

    def __init__(self, silence_others_weight: float = 0.1) -> None:
        super().__init__()
        weights = torch.ones(NUM_CLASSES, NUM_CLASSES) - torch.eye(NUM_CLASSES)
        weights[SILENCE, OTHERS] = weights[OTHERS, SILENCE] = silence_others_weight
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the mean over the frames that count.

        Args:
            logits: `[batch, frames, 3]`.
            classes: `[batch, frames]`, 0 to 2, or -1.
        """
        counted = classes != NO_FRAME
        true = classes.clamp_min(0)
        margins = logits.gather(-1, true[..., None]) - logits
        losses = (self.weights[true] * nn.functional.softplus(-margins)).sum(dim=-1)
        return (losses * counted).sum() / counted.sum().clamp_min(1)


class PresenceStep(nn.Module):
    """A personal VAD and its loss, as one module: what a device computes in a step."""

    def __init__(self, network: PersonalVAD, loss: PairwiseLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `loss`, and `frame_error`: the share of frames whose class is wrong."""
        prepared = self.network.prepare(batch["enrollment"], batch["enrollment_lengths"])
        logits = self.network(batch["mixture"], prepared, batch["lengths"])
        classes = batch["classes"]
        counted = classes != NO_FRAME
        with torch.autocast(logits.device.type, enabled=False):
            loss = self.loss(logits, classes)
        wrong = (logits.detach().argmax(dim=-1) != classes) & counted
        return {"loss": loss, "frame_error": wrong.sum() / counted.sum().clamp_min(1)}


class PresenceValidator(Validator):
    """Classifies the frames of mixtures of other speakers, drawn by the run's simulation. Every process scores all.

    Args:
        config: of the run; its `validation` names the recordings.
        sample_rate: of the network, in Hz.

    Raises:
        InputError: recordings are missing, or are of too few speakers.
    """

    measure = "f1"

    def __init__(self, config: PresenceTrainConfig, sample_rate: int) -> None:
        assert isinstance(config.validation, PresenceValidationConfig)
        self.config, self.every_steps = config.validation, config.validation.every_steps
        root = Path(config.data.root)
        simulation = replace(config.simulation, room=None)
        self.simulator = Simulator(
            simulation,
            read_speech(self.config.speech, root),
            find_noises(self.config.noise, root),
            FileReader(sample_rate),
            VALIDATION_SEED,
        )
        self._items: list[Item] | None = None

    def validate(
        self, network: nn.Module, fabric: Fabric, num_examples: int, should_stop: Callable[[], bool]
    ) -> ValidationResult | None:
        assert isinstance(network, PersonalVAD)
        if self._items is None:
            samples = (self.simulator.sample(0, index) for index in range(self.config.count))
            self._items = [item for sample in samples for item in presence_items(sample, {})]
        counts = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
        with eval_mode(network), torch.inference_mode():
            for item in self._items:
                if should_stop():
                    return None
                mixture, enrollment = (
                    torch.from_numpy(item[name])[None].to(fabric.device) for name in ("mixture", "enrollment")
                )
                found = network(mixture, network.prepare(enrollment))[0].argmax(dim=-1).cpu().numpy()
                np.add.at(counts, (item["classes"], found), 1)
        return ValidationResult({"count": float(len(self._items)), **frame_scores(counts)})

    def describe(self, numbers: Mapping[str, float]) -> str:
        return (
            f"F1 of the target {numbers['f1']:.3f}, frame error {100 * numbers['frame_error']:.1f} % "
            f"({100 * numbers['target_error']:.1f} % for the target; {numbers['count']:.0f} mixtures)"
        )

    def protocol(self) -> dict[str, Any]:
        return {"speech": list(self.config.speech), "noise": list(self.config.noise), "count": self.config.count}


def frame_scores(counts: np.ndarray) -> dict[str, float]:
    """Return the scores of a confusion matrix `[true, found]` of frames, each 0 to 1.

    Returns:
        `frame_error`: share of frames of the wrong class; `target_error`: share of frames in which it is wrong whether
        the target speaks; `precision`, `recall` and `f1` of the target, 0 where they are undefined.

    >>> scores = frame_scores(np.array([[4, 0, 0], [0, 3, 1], [0, 1, 1]]))
    >>> [round(scores[name], 3) for name in ("frame_error", "target_error", "f1")]
    [0.2, 0.2, 0.75]
    """
    total, hits = counts.sum(), counts[TARGET, TARGET]
    missed, false = counts[TARGET].sum() - hits, counts[:, TARGET].sum() - hits
    return {
        "frame_error": float(1 - np.trace(counts) / max(1, total)),
        "target_error": float((missed + false) / max(1, total)),
        "precision": float(hits / max(1, hits + false)),
        "recall": float(hits / max(1, hits + missed)),
        "f1": float(2 * hits / max(1, 2 * hits + missed + false)),
    }
