"""Training an extractor: every mixture is an item for each target, judged by extracting a fixed list of trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.data.embedding_files import Embeddings
from wesep_py.network.cues import EmbeddingCue
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network, eval_mode
from wesep_py.network.speaker import SpeakerEncoder, length_mask
from wesep_py.network.speaker.speaker_losses import PermutationFreeLoss, build_speaker_loss
from wesep_py.network.speaker.speaker_losses.permutation_free import ABSENT
from wesep_py.network.speaker.speaker_network import count
from wesep_py.simulation import Sample
from wesep_py.training.batches import stack_padded
from wesep_py.training.losses import Adversary
from wesep_py.training.step import Criterion, TrainingStep
from wesep_py.training.task import Item, Task
from wesep_py.training.training_config import SelfEnrollmentConfig, TrainConfig
from wesep_py.training.validation import Validation

# ----------------------------------------
# What the training of an extractor gives to losses that ask for it (`losses.Loss`).


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


# ----------------------------------------
# Learning to hear all voices of a mixture: its speakers, in no order, and how many there are.


def voice_items(sample: Sample, labels: Mapping[str, int]) -> list[Item]:
    """The mixture with its speakers' labels, and each enrollment with its own: `{mixture: …, speakers: [label, …]}`."""
    told = [labels[source.speaker_id] for source in sample.recipe.sources]
    alone = [(waveform, [label]) for waveform, label in zip(sample.enrollments, told, strict=True) if len(waveform)]
    return [{"mixture": waveform, "speakers": own} for waveform, own in [(sample.mixture, told), *alone]]


def collate_voices(mixtures: Sequence[list[Item]]) -> dict[str, Tensor]:
    """`mixture` `[B, longest]`, `lengths` `[B]` in samples, `speakers` `[B, most]`, filled up with −1."""
    items = [item for mixture in mixtures for item in mixture]
    most = max(len(item["speakers"]) for item in items)
    return {
        "mixture": stack_padded([item["mixture"] for item in items]),
        "lengths": torch.tensor([len(item["mixture"]) for item in items]),
        "speakers": torch.tensor([item["speakers"] + [ABSENT] * (most - len(item["speakers"])) for item in items]),
    }


class VoicesStep(nn.Module):
    """An encoder that hears several voices and its loss as one module: what a device computes in a step."""

    def __init__(self, network: SpeakerEncoder, loss: PermutationFreeLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`loss`, its parts, `accuracy` among the training speakers, and `count_accuracy`."""
        most = self.network.max_voices
        labels = nn.functional.pad(batch["speakers"], (0, most - batch["speakers"].shape[1]), value=ABSENT)
        counts = (labels != ABSENT).sum(dim=1)
        voices = self.network.voices(batch["mixture"], batch["lengths"], counts=counts)
        found = self.loss(voices.embeddings, voices.existence_logits, labels)
        counted = (count(voices.existence_logits) == counts).float().mean()
        return {"loss": found.loss, **found.parts, "accuracy": found.accuracy, "count_accuracy": counted}


# ----------------------------------------
# Self-estimated augmentation: the network extracts once, and its estimate introduces the voice the second time.
#
# Li et al., "On the effectiveness of enrollment speech augmentation for target speaker extraction", SLT 2024
# (arXiv 2409.09589).


class SelfEnrolledStep(TrainingStep):
    """A training step in which the network's own estimates are enrollments, now and then.

    Which items they introduce is drawn from torch's random state of the CPU, which the loop seeds with the run's seed
    and the step: a resumed run draws the same. Without gradient the first pass is in evaluation mode, as the network
    will be used: it moves no running statistics, drops nothing out, and draws no random numbers. With a loss of its own
    (`loss_on: both`) it is a pass like the second, and moves them too.

    Args:
        network: takes (mixture, enrollment, enrollment_lengths), gives a `NetworkOutput`.
        criterion: of the output and the batch.
        config: how often, from when on, and how.
    """

    def __init__(self, network: nn.Module, criterion: nn.Module, config: SelfEnrollmentConfig) -> None:
        super().__init__(network, criterion)
        self.config = config
        self._steps_done = 0

    def begin_step(self, step: int) -> None:
        """Take on how many steps are done."""
        self._steps_done = step

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The losses of the second pass, and `self_enrolled`: the share of items that their estimates introduced.

        With `loss_on: both`, `loss` is the weighted sum of both, and `loss_first` that of the first pass.
        """
        chosen = self._choose(batch)
        share = batch["mixture"].new_tensor(len(chosen) / len(batch["mixture"]))
        if self.config.loss_on == "both":
            return {**self._both(batch, chosen), "self_enrolled": share}
        if len(chosen):
            with torch.no_grad(), eval_mode(self.network):
                estimate = self._estimate(batch, chosen)
            # Where torch keeps weights that autocast has cast without gradient, the second pass would have none either.
            torch.clear_autocast_cache()
            batch = introduced(batch, chosen, estimate, self.config.use)
        return {**super().forward(batch), "self_enrolled": share}

    def _both(self, batch: Mapping[str, Any], chosen: Tensor) -> dict[str, Tensor]:
        first_weight, second_weight = self.config.weights
        output, first = self.run(batch)
        second = first
        if len(chosen):
            estimate = output.waveforms[0][chosen].detach().float()
            second = super().forward(introduced(batch, chosen, estimate, self.config.use))
        total = first_weight * first["loss"] + second_weight * second["loss"]
        return {**second, "loss": total, "loss_first": first["loss"]}

    def _estimate(self, batch: Mapping[str, Any], chosen: Tensor) -> Tensor:
        output = self.network(
            batch["mixture"][chosen], batch["enrollment"][chosen], batch["enrollment_lengths"][chosen]
        )
        return output.waveforms[0].float()

    def _choose(self, batch: Mapping[str, Any]) -> Tensor:
        """The places of the items that are introduced by their estimates."""
        mixture = batch["mixture"]
        if self._steps_done < self.config.from_step:
            return torch.zeros(0, dtype=torch.int64, device=mixture.device)
        wanted = (torch.rand(len(mixture)) < self.config.probability).to(mixture.device)
        return torch.nonzero(wanted & (batch["present"] > 0)).squeeze(1)


def introduced(
    batch: Mapping[str, Any], chosen: Tensor, estimate: Tensor, use: Literal["joined", "instead"]
) -> dict[str, Any]:
    """The batch with estimates as enrollments, at the level of the enrollments that were there.

    Args:
        batch: with `enrollment` `[batch, longest]` and `enrollment_lengths` `[batch]`.
        chosen: places of the items that the estimates are of.
        estimate: `[chosen, samples]`.
        use: after the enrollment, or instead of it.
    """
    enrollment, lengths = batch["enrollment"], batch["enrollment_lengths"]
    before, added = lengths[chosen], estimate.shape[1]
    starts = before if use == "joined" else torch.zeros_like(before)
    lengths = lengths.index_copy(0, chosen, starts + added)
    size = int(lengths.max())
    made = nn.functional.pad(enrollment, (0, max(0, size - enrollment.shape[1])))
    at = torch.arange(made.shape[1], device=made.device) - starts[:, None]
    levelled = estimate * _level_ratio(enrollment[chosen], before, estimate)
    shifted = levelled.gather(1, at.clamp(0, added - 1)) * (at < added)
    made = made.index_copy(0, chosen, torch.where(at < 0, made[chosen], shifted))
    return {**batch, "enrollment": made[:, :size], "enrollment_lengths": lengths}


def _level_ratio(enrollment: Tensor, lengths: Tensor, estimate: Tensor) -> Tensor:
    """What brings an estimate to the RMS of the enrollment, `[items, 1]`; 1 where either is silent."""
    valid = length_mask(lengths, enrollment.shape[1])
    own = (enrollment.square() * valid).sum(dim=1, keepdim=True) / lengths.clamp_min(1)[:, None]
    other = estimate.square().mean(dim=1, keepdim=True)
    heard = (own > 1e-16) & (other > 1e-16)
    return torch.where(heard, own / other.clamp_min(1e-30), torch.ones_like(own)).sqrt()


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
