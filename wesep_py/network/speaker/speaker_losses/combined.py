"""A weighted sum of speaker losses, as a configuration lists them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.network.speaker.speaker_losses.speaker_basis import BasisLoss
from wesep_py.network.speaker.speaker_losses.speaker_loss import (
    ClassificationLoss,
    SpeakerLoss,
    SpeakerLossOutput,
    speaker_losses,
)


class CombinedSpeakerLoss(SpeakerLoss):
    """A weighted sum of losses. Those on the speaker basis take that of the classification loss among them.

    Args:
        losses: name → loss; at most one `ClassificationLoss`, and exactly one if there is a `BasisLoss`.
        weights: name → weight, 0 or more.

    Raises:
        ValueError: there is no loss, or several classification losses, or a `BasisLoss` without one; a weight is
            negative.
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if not losses:
            raise ValueError("losses: is empty; give one loss or more")
        classifiers = [name for name, loss in losses.items() if isinstance(loss, ClassificationLoss)]
        on_basis = [name for name, loss in losses.items() if isinstance(loss, BasisLoss)]
        if len(classifiers) > 1:
            raise ValueError(f"{' and '.join(classifiers)} both classify; one classification loss is allowed")
        if on_basis and not classifiers:
            raise ValueError(f"{on_basis[0]} needs the basis of a classification loss; add one, for example 'aam'")
        negative = [name for name in losses if not weights[name] >= 0]
        if negative:
            raise ValueError(f"weight of {negative[0]}: is {weights[negative[0]]}; 0 or more is allowed")
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: float(weights[name]) for name in losses}
        self.classifier_name = classifiers[0] if classifiers else None

    @property
    def classifier(self) -> ClassificationLoss | None:
        """The classification loss, if there is one."""
        loss = None if self.classifier_name is None else self.losses[self.classifier_name]
        assert loss is None or isinstance(loss, ClassificationLoss)
        return loss

    def update(self, step: int) -> None:
        """Call `SpeakerLoss.update` of each loss."""
        for loss in self.losses.values():
            if isinstance(loss, SpeakerLoss):
                loss.update(step)

    def compute(self, embeddings: Tensor, labels: Tensor) -> SpeakerLossOutput:
        """Return the sum; see `SpeakerLoss.compute`. `parts` holds the value of each loss before its weight."""
        parts: dict[str, Tensor] = {}
        cosines, basis_inputs = None, self._basis_inputs(embeddings, labels)
        for name, loss in self.losses.items():
            if isinstance(loss, BasisLoss):
                parts[name] = loss(*basis_inputs)
            else:
                output = loss(embeddings, labels)
                parts[name] = output.loss
                cosines = cosines if output.cosines is None else output.cosines
        total = torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()
        return SpeakerLossOutput(total, cosines, {name: value.detach() for name, value in parts.items()})

    def _basis_inputs(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return the arguments of a `BasisLoss`; none if there is no such loss."""
        if self.classifier is None or not any(isinstance(loss, BasisLoss) for loss in self.losses.values()):
            return ()
        labels = self.classifier.check_labels(labels)
        return self.classifier.basis(), self.classifier.cosines(embeddings), labels


def build_speaker_loss(
    configs: Sequence[Mapping[str, Any]], embedding_dim: int, num_speakers: int, where: str = "losses"
) -> CombinedSpeakerLoss:
    """Build the sum of losses that a configuration lists.

    Args:
        configs: `[{"name": "aam", "margin": 0.2}, {"name": "between_speaker", "weight": 0.1}, …]`: names from
            `speaker_losses`, each once, their arguments, and `weight` (1 if left out).
        embedding_dim, num_speakers: sizes, passed to the losses that need them.
        where: the key of the list, for messages.

    Raises:
        ConfigError: an unknown name, key or value; a combination that is not allowed.

    >>> loss = build_speaker_loss([{"name": "aam"}, {"name": "hard_negative", "num_hard": 2}], 8, 5)
    >>> sorted(loss(torch.randn(4, 8), torch.tensor([0, 1, 2, 3])).parts)
    ['aam', 'hard_negative']
    """
    losses: dict[str, nn.Module] = {}
    weights: dict[str, float] = {}
    for index, config in enumerate(configs):
        place = f"{where}[{index}]"
        if not isinstance(config, Mapping):
            raise ConfigError(f"{place}: is {config!r}; a mapping with a key 'name' is needed")
        arguments = dict(config)
        weight = arguments.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise ConfigError(f"{place}.weight: is {weight!r}; a number is needed")
        name = str(arguments.get("name", ""))
        if name in losses:
            raise ConfigError(f"{place}: {name!r} is listed twice; list each loss once")
        parameters: set[str] = set(inspect.signature(speaker_losses.get(name, place)).parameters) if name else set()
        sizes = {"embedding_dim": embedding_dim, "num_speakers": num_speakers}
        needed = {key: value for key, value in sizes.items() if key in parameters}
        losses[name] = speaker_losses.build(arguments, place, **needed)
        weights[name] = weight
    try:
        return CombinedSpeakerLoss(losses, weights)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
