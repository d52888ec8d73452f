"""Training of a target speaker extractor: items and batches, network with losses, estimates as enrollments.

The data flow of one mixture:

    data worker:      sample ─► target_items ─► collate_targets ─► batch
    training device:  batch ─► TrainingStep (network ─► Criterion) ─► losses
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from wesep_py.common.config import check_value
from wesep_py.common.errors import ConfigError
from wesep_py.data.embedding_files import Embeddings
from wesep_py.network.cues import EmbeddingCue
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network, eval_mode
from wesep_py.network.speaker import length_mask
from wesep_py.network.speaker.speaker_losses import build_speaker_loss
from wesep_py.simulation import Sample
from wesep_py.training.batches import ENROLLMENT_MULTIPLE, stack_padded
from wesep_py.training.losses import Adversary, has_target, losses
from wesep_py.training.task import Item, Task
from wesep_py.training.training_config import SelfEnrollmentConfig, TrainConfig
from wesep_py.training.validation import ExtractionValidator

MIN_ACTIVITY = 0.3
"""Targets are embedded if they speak for at least this share of the mixture (`embed_targets`)."""
_LIVE_SEED = 0x11FE  # separates the draws of `LiveSteps` from other uses of the run's seed


class ExtractionTask(Task):
    """A target speaker extractor, trained from mixtures and enrollments to estimates.

    Args:
        config: of the run.
        fabric: the processes among which the validation trials are divided.
        num_speakers: returns the number of speakers of the training set; called only if a loss needs it.

    Raises:
        ConfigError: a part of the model or a loss is wrong, or the mixtures have no enrollments.
        InputError: the lists of trials, or precomputed embeddings, are missing or malformed.
    """

    def __init__(self, config: TrainConfig, fabric: Fabric, num_speakers: Callable[[], int]) -> None:
        if config.simulation.enrollment.count < 1:
            raise ConfigError("simulation.enrollment.count: is 0; an extractor needs an enrollment, so give 1 or more")
        self.network = build_network(config.model)
        if config.simulation.enrollment.negative_probability > 0 and not self.network.takes_negative:
            raise ConfigError(
                "simulation.enrollment.negative_probability: no cue of the model takes a negative enrollment; give "
                "tf_map, context or band_attention negative: true, or remove the key"
            )
        self.sample_rate, self.checkpoint_config = self.network.sample_rate, self.network.config
        self.embeddings = open_embeddings(config, self.network)
        self.criterion = Criterion(config.loss, loss_arguments(self.network, num_speakers))
        uses_live = config.train.live_probability > 0 or (config.validation is not None and config.validation.live)
        if uses_live and not self.network.backbone.live:
            raise ConfigError(
                "train.live_probability and validation.live: the network has no live mode; give its backbone live: true"
            )
        if uses_live:
            self.network.live()  # raises now if a cue or norm has no live mode
        self.step = (
            TrainingStep(self.network, self.criterion)
            if config.self_enrollment is None
            else SelfEnrollmentStep(self.network, self.criterion, config.self_enrollment)
        )
        self._live = LiveSteps(config.train.live_probability, config.seed)
        self.items = partial(target_items, targets=config.train.targets_per_mixture)
        self.collate = collate_targets
        backbone = self.checkpoint_config["backbone"]["name"]
        self.title = f"Target speaker extraction, {self.sample_rate} Hz, backbone {backbone}."
        self.validator = None
        if config.validation is not None:
            ranks = fabric.global_rank, fabric.world_size
            self.validator = ExtractionValidator(
                config.validation, config.data.root, self.sample_rate, *ranks, self.embeddings
            )

    def begin_step(self, step: int) -> None:
        self.criterion.update(step)
        self.step.is_live = self._live.at(step)
        if isinstance(self.step, SelfEnrollmentStep):
            self.step.begin_step(step)

    @property
    def adversaries(self) -> dict[str, Adversary]:
        return self.criterion.adversaries


def open_embeddings(config: TrainConfig, network: TargetSpeakerExtractor) -> Embeddings | None:
    """Open the precomputed embeddings of a run, or return `None` if its network takes recordings.

    Raises:
        ConfigError: embeddings are named and no cue takes them, or the other way round; or estimates are used as
            enrollments.
        InputError: there are none where they are named.
    """
    name, dim = config.data.embeddings, network.external_embedding_dim
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
    """Return one item per target. If the recipe's target is absent, the absent speaker has an item too.

    Args:
        sample: the mixture.
        labels: a whole number for each speaker_id.
        targets: `one`: the recipe's target, or the absent speaker; `all`: every speaker of the mixture, and the absent
            speaker.

    Returns:
        Dictionaries with `mixture`, `target`, `enrollment` (float32 `[samples]`), `activity` (of the target,
        `[frames]` at 100 Hz), `present` (1, or 0 with a target of zeros that is never active) and `speaker` (the label
        of the enrolled speaker); with precomputed embeddings also `embedding`, `[dim]`, and in mixtures with negative
        enrollments `negative`, like `enrollment`.
    """
    recipe_target = sample.recipe.target
    sources: list[int | None] = [*range(len(sample.recipe.sources))] if targets == "all" else []
    sources += [recipe_target] if recipe_target is None or not sources else []
    speakers = [(source, sample.speaker(source)) for source in sources]
    return [
        {
            "mixture": sample.mixture,
            "target": speaker.target,
            "enrollment": speaker.enrollment,
            "activity": speaker.activity,
            "present": int(source is not None),
            "speaker": labels[speaker.speaker_id],
            **({} if speaker.embedding is None else {"embedding": speaker.embedding}),
            **({} if (negative := sample.negative(source)) is None else {"negative": negative}),
        }
        for source, speaker in speakers
    ]


def collate_targets(mixtures: Sequence[list[Item]]) -> dict[str, torch.Tensor]:
    """Return the batch of the items of several mixtures.

    Returns:
        `mixture`, `target` `[B, samples]`, `enrollment` `[B, longest]` padded with zeros at the end to a multiple of
        `ENROLLMENT_MULTIPLE`, `enrollment_lengths` `[B]` in samples, `activity` `[B, frames]`, `present` and `speaker`
        `[B]`. Mixtures of different lengths are padded to the longest. If items have it, `embedding` `[B, dim]`. If any
        item has it, `negative`, like `enrollment`, and `negative_lengths` `[B]`, 0 for the others.
    """
    items = [item for mixture in mixtures for item in mixture]
    names = [name for name in ("mixture", "target", "activity", "embedding") if name in items[0]]
    batch = {name: stack_padded([item[name] for item in items]) for name in names}
    batch["enrollment"] = stack_padded([item["enrollment"] for item in items], ENROLLMENT_MULTIPLE)
    batch["enrollment_lengths"] = torch.tensor([len(item["enrollment"]) for item in items])
    if any("negative" in item for item in items):
        negatives = [item.get("negative", item["enrollment"][:0]) for item in items]
        batch["negative"] = stack_padded(negatives, ENROLLMENT_MULTIPLE)
        batch["negative_lengths"] = torch.tensor([len(negative) for negative in negatives])
    for name in ("present", "speaker"):
        batch[name] = torch.tensor([item[name] for item in items])
    return batch


@dataclass(frozen=True)
class LiveSteps:
    """The steps that train the live mode of a network: a function of the run's seed and the step.

    Attributes:
        probability: of each step, 0 to 1.
        seed: of the run.
    """

    probability: float
    seed: int

    def at(self, step: int) -> bool:
        """Return whether the step after `step` others is one of them.

        >>> [LiveSteps(0.5, seed=0).at(step) for step in range(6)]
        [True, True, True, False, True, True]
        """
        if self.probability == 0:
            return False
        return bool(np.random.default_rng([self.seed, step, _LIVE_SEED]).random() < self.probability)


class TrainingStep(nn.Module):
    """A network and its criterion. Under mixed precision the losses are computed in float32.

    Attributes:
        is_live: whether the network's live mode is trained; `loss_live` is then among the losses.

    Args:
        network: maps (mixture, enrollment, enrollment_lengths) to a `NetworkOutput`.
        criterion: maps the output and the batch to a dictionary of losses.
    """

    def __init__(self, network: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion
        self.is_live = False

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses of a batch, see `Criterion.forward`."""
        return self.run(batch)[1]

    def run(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Tensor]]:
        """Return the network's output for a batch, and its losses."""
        mixture, enrollment, lengths = batch["mixture"], batch["enrollment"], batch["enrollment_lengths"]
        network = self.network.live() if self.is_live else self.network
        negatives = (batch.get("negative"), batch.get("negative_lengths"))
        if {"embedding", "negative"} & batch.keys() or getattr(self.criterion, "needs_embedding", False):
            prepared = network.prepare(enrollment, lengths, batch.get("embedding"), *negatives)
            output = network.extract(mixture, prepared)
            batch = {**batch, "embedding": embedding_of(prepared)}
            if getattr(self.criterion, "needs_target_embedding", False):
                batch |= embed_targets(network, batch)
        else:
            output = network(mixture, enrollment, lengths)
        with torch.autocast(mixture.device.type, enabled=False):
            computed = self.criterion(output, batch)
        return output, {**computed, "loss_live": computed["loss"].detach()} if self.is_live else computed


def embedding_of(prepared: Mapping[str, Tensor]) -> Tensor | None:
    """Return the first embedding `[batch, embedding_dim]` in the prepared cues of an enrollment, or `None`.

    >>> embedding_of({"0.features": torch.zeros(1, 3), "1.embedding": torch.ones(1, 2)})
    tensor([[1., 1.]])
    """
    return next((value for key, value in prepared.items() if key.partition(".")[2] == "embedding"), None)


def embed_targets(network: TargetSpeakerExtractor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the embeddings of the targets that speak for a share of at least `MIN_ACTIVITY` of the mixture.

    Args:
        network: with a speaker encoder.
        batch: with `target` `[batch, samples]`, `activity` `[batch, frames]` and `embedding` `[batch, embedding_dim]`.

    Returns:
        `target_embedding` `[items, embedding_dim]` and `target_items` `[items]`. A single target has no other to be
        compared with, and a batch normalisation cannot normalise it, so it is left out.
    """
    speaks = (has_target(batch["target"], batch) > 0) & (batch["activity"].float().mean(dim=1) >= MIN_ACTIVITY)
    items = torch.nonzero(speaks).squeeze(1)
    items = items if len(items) > 1 else items[:0]
    embedding = network.embed(batch["target"][items]) if len(items) else batch["embedding"][items]
    return {"target_embedding": embedding, "target_items": items}


class Criterion(nn.Module):
    """The weighted sum of losses, built from the configuration's `loss`.

    Args:
        config: one loss `{name, argument: value, …}`, or a list of them; each may have a `weight` (default 1).
        makers: functions that make the arguments which the training passes to losses whose constructors name them
            (`losses.Loss`); called only then.

    Raises:
        ConfigError: an unknown loss or argument, a weight that is not positive, an empty list.

    >>> Criterion([{"name": "si_sdr", "weight": 0.5}]).weights
    [0.5]
    """

    def __init__(
        self,
        config: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        makers: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        super().__init__()
        is_single = isinstance(config, Mapping)
        items: list[Mapping[str, Any]] = [config] if isinstance(config, Mapping) else list(config)
        if not items:
            raise ConfigError("loss: is an empty list; name at least one loss")
        self.names: list[str] = []
        self.weights: list[float] = []
        self.terms = nn.ModuleList()
        for index, item in enumerate(items):
            key = "loss" if is_single else f"loss[{index}]"
            weight = check_value(item.get("weight", 1.0), float, f"{key}.weight")
            if not weight > 0:
                raise ConfigError(f"{key}.weight: is {weight}; it must be above 0")
            arguments = {name: value for name, value in item.items() if name != "weight"}
            parameters = inspect.signature(losses.get(str(item["name"]), key)).parameters if "name" in item else {}
            passed = {name: make() for name, make in (makers or {}).items() if name in parameters}
            self.terms.append(losses.build(arguments, key, **passed))
            name = str(item["name"])
            self.names.append(name if name not in self.names else f"{name}_{index}")
            self.weights.append(weight)

    @property
    def adversaries(self) -> dict[str, Adversary]:
        """The adversaries of the losses, under the losses' names."""
        adversaries = {name: term.adversary for name, term in zip(self.names, self.terms, strict=True)}
        return {name: adversary for name, adversary in adversaries.items() if adversary is not None}

    @property
    def needs_embedding(self) -> bool:
        """True if a loss needs the network's embedding of the enrollment."""
        return any(term.needs_embedding for term in self.terms)

    @property
    def needs_target_embedding(self) -> bool:
        """True if a loss needs the network's embedding of the targets too."""
        return any(term.needs_target_embedding for term in self.terms)

    def update(self, step: int) -> None:
        """Set the number of steps done in all losses (`losses.Loss.update`)."""
        for term in self.terms:
            term.update(step)

    def forward(self, output: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return each loss under its name, and their weighted sum under `loss`; scalars."""
        values = {name: term(output, batch["target"], batch) for name, term in zip(self.names, self.terms, strict=True)}
        total = torch.stack([w * v for w, v in zip(self.weights, values.values(), strict=True)]).sum()
        return {"loss": total, **values}


def loss_arguments(network: TargetSpeakerExtractor, num_speakers: Callable[[], int]) -> dict[str, Callable[[], Any]]:
    """Return makers of the arguments `sample_rate`, `num_speakers` and `speaker_loss`, for `Criterion`.

    Args:
        network: that is trained.
        num_speakers: returns the number of speakers of the training set; called only if a loss needs it.
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


class SelfEnrollmentStep(TrainingStep):
    """A training step that sometimes uses the network's own estimates as enrollments (self-estimated augmentation).

    The network extracts once; its estimate is the enrollment of the second pass. The items are drawn from torch's
    random state of the CPU, which the loop seeds with the run's seed and the step, so a resumed run draws the same. The
    first pass is without gradient and in evaluation mode, as the network will be used: it moves no running statistics,
    applies no dropout, and draws no random numbers. With a loss of its own (`loss_on: both`) it is a pass like the
    second, and moves running statistics too.

    Args:
        network: maps (mixture, enrollment, enrollment_lengths) to a `NetworkOutput`.
        criterion: maps the output and the batch to a dictionary of losses.
        config: probability, first step, and how the estimate is used.

    Source: Li et al., "On the effectiveness of enrollment speech augmentation for target speaker extraction", SLT 2024
    (arXiv 2409.09589).
    """

    def __init__(self, network: nn.Module, criterion: nn.Module, config: SelfEnrollmentConfig) -> None:
        super().__init__(network, criterion)
        self.config = config
        self._steps_done = 0

    def begin_step(self, step: int) -> None:
        """Set the number of steps done."""
        self._steps_done = step

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses of the second pass, and `self_enrolled`: the share of items enrolled by estimates.

        With `loss_on: both`, `loss` is the weighted sum of both passes, and `loss_first` is the loss of the first.
        """
        items = self._draw_items(batch)
        share = batch["mixture"].new_tensor(len(items) / len(batch["mixture"]))
        if self.config.loss_on == "both":
            return {**self._losses_of_both_passes(batch, items), "self_enrolled": share}
        if len(items):
            with torch.no_grad(), eval_mode(self.network):
                estimate = self._estimate(batch, items)
            # Autocast caches weights that it has cast. Those cast without gradient would have none in the second pass.
            torch.clear_autocast_cache()
            batch = enroll_estimates(batch, items, estimate, self.config.use)
        return {**super().forward(batch), "self_enrolled": share}

    def _losses_of_both_passes(self, batch: Mapping[str, Any], items: Tensor) -> dict[str, Tensor]:
        first_weight, second_weight = self.config.weights
        output, first = self.run(batch)
        second = first
        if len(items):
            estimate = output.waveforms[0][items].detach().float()
            second = super().forward(enroll_estimates(batch, items, estimate, self.config.use))
        total = first_weight * first["loss"] + second_weight * second["loss"]
        return {**second, "loss": total, "loss_first": first["loss"]}

    def _estimate(self, batch: Mapping[str, Any], items: Tensor) -> Tensor:
        output = self.network(batch["mixture"][items], batch["enrollment"][items], batch["enrollment_lengths"][items])
        return output.waveforms[0].float()

    def _draw_items(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the indices of the items that are enrolled by their estimates; never items with an absent target."""
        mixture = batch["mixture"]
        if self._steps_done < self.config.from_step:
            return torch.zeros(0, dtype=torch.int64, device=mixture.device)
        is_drawn = (torch.rand(len(mixture)) < self.config.probability).to(mixture.device)
        return torch.nonzero(is_drawn & (batch["present"] > 0)).squeeze(1)


def enroll_estimates(
    batch: Mapping[str, Any], items: Tensor, estimate: Tensor, use: Literal["joined", "instead"]
) -> dict[str, Any]:
    """Return the batch with estimates as enrollments of some items, at the level of their enrollments.

    Args:
        batch: with `enrollment` `[batch, longest]` and `enrollment_lengths` `[batch]`.
        items: indices `[items]` of the items that the estimates belong to.
        estimate: `[items, samples]`.
        use: whether the estimate is `joined` to the end of the enrollment, or used `instead` of it.
    """
    enrollment, all_lengths = batch["enrollment"], batch["enrollment_lengths"]
    lengths, num_samples = all_lengths[items], estimate.shape[1]
    starts = lengths if use == "joined" else torch.zeros_like(lengths)
    new_lengths = all_lengths.index_copy(0, items, starts + num_samples)
    longest = int(new_lengths.max())
    padded = nn.functional.pad(enrollment, (0, max(0, longest - enrollment.shape[1])))
    # Each row has its own start. `offset` is the time in the estimate at each time of the row:
    #
    #     row       e e e e e 0 0 0 0 0 0      start = 5, estimate of 4 samples
    #     offset   -5 …    -1 0 1 2 3 4 5
    #     result    e e e e e s s s s 0 0      offset < 0: enrollment; offset >= 4: zero
    offset = torch.arange(padded.shape[1], device=padded.device) - starts[:, None]
    scaled = estimate * _level_ratio(enrollment[items], lengths, estimate)
    shifted = scaled.gather(1, offset.clamp(0, num_samples - 1)) * (offset < num_samples)
    padded = padded.index_copy(0, items, torch.where(offset < 0, padded[items], shifted))
    return {**batch, "enrollment": padded[:, :longest], "enrollment_lengths": new_lengths}


def _level_ratio(enrollment: Tensor, lengths: Tensor, estimate: Tensor) -> Tensor:
    """Return the gain `[items, 1]` that brings an estimate to the RMS of the enrollment; 1 if either is silent."""
    valid = length_mask(lengths, enrollment.shape[1])
    enrollment_power = (enrollment.square() * valid).sum(dim=1, keepdim=True) / lengths.clamp_min(1)[:, None]
    estimate_power = estimate.square().mean(dim=1, keepdim=True)
    is_audible = (enrollment_power > 1e-16) & (estimate_power > 1e-16)
    ratio = enrollment_power / estimate_power.clamp_min(1e-30)
    return torch.where(is_audible, ratio, torch.ones_like(ratio)).sqrt()
