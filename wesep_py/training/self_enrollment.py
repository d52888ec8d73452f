"""Self-estimated augmentation: the network extracts once, and its estimate introduces the voice the second time.

Li et al., "On the effectiveness of enrollment speech augmentation for target speaker extraction", SLT 2024
(arXiv 2409.09589).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.evaluation.modes import in_evaluation
from wesep_py.speaker import length_mask
from wesep_py.training.config import SelfEnrollmentConfig
from wesep_py.training.criterion import TrainingStep


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
            with torch.no_grad(), in_evaluation(self.network):
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
