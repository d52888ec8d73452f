"""Metric GAN: a discriminator learns PESQ, which has no gradient, and the network learns from the discriminator's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wesep_py.losses.base import Loss, losses
from wesep_py.losses.discriminator import DiscriminatorConfig, MetricDiscriminator
from wesep_py.losses.metric_adversary import MetricAdversary
from wesep_py.losses.quality import QualityScorer
from wesep_py.losses.waveform import has_target

if TYPE_CHECKING:
    from wesep_py.extractor import NetworkOutput


@losses.register("metric_gan")
class MetricGAN(Loss):
    """(D(s, ŝ) - 1)², D a discriminator that learns to say PESQ on a scale from 0 to 1; mean over items with a target.

    D learns after each of the network's steps, with an optimiser of its own (Adam), from

    - (s, s), whose quality is 1,
    - (s, ŝ), whose quality is the PESQ of ŝ,
    - (s, x), likewise, x the mixture, if asked for,
    - pairs of earlier steps, if they are kept,

    by the mean squared error. PESQ is computed in processes of its own while the next step goes on, so D learns from a
    step's estimates one step later. Items whose PESQ cannot be computed are left out, and counted in the log
    (`pesq_missing`). D is in the training state, and in no checkpoint.

    Of several waveforms the first counts, which is the result. Goes beside a loss of the waveform, with a weight of
    about 1 beside one in dB.

    Args:
        sample_rate: given by the model, 16000 or 8000 Hz.
        start_step: before it the loss is 0, 0 or more.
        head_start_steps: so many steps before that D begins to learn, from 0 to `start_step`.
        discriminator: sizes of D.
        lr: D's learning rate, above 0.
        items_per_step: so many estimates (and mixtures) of a step are scored at most, on each device; none: all.
        mixture: D learns from the mixtures too, which takes twice as many scores.
        replay: so many scored pairs of earlier steps are kept, 0 or more; a step learns from as many of them as of
            new ones.
        workers: processes that compute PESQ (on each device), 0: none, the training waits.

    Raises:
        ValueError: a value out of its range.

    Sources: Fu et al., "MetricGAN", ICML 2019, eqs. 2 and 3; Fu et al., "MetricGAN+: an improved version of
        MetricGAN for speech enhancement", Interspeech 2021 (mixtures, replay); Cao, Abdulatif and Yang, "CMGAN",
        Interspeech 2022, eqs. 6 and 7 (beside other losses).

    >>> from types import SimpleNamespace
    >>> loss = MetricGAN(16000, workers=0)
    >>> target = torch.randn(2, 4000)
    >>> 0 < loss(SimpleNamespace(waveforms=(target,)), target, {}).item() < 1
    True
    """

    def __init__(
        self,
        sample_rate: int,
        start_step: int = 0,
        head_start_steps: int = 0,
        discriminator: DiscriminatorConfig | None = None,
        lr: float = 1e-3,
        items_per_step: int | None = None,
        mixture: bool = False,
        replay: int = 0,
        workers: int = 2,
    ) -> None:
        super().__init__()
        if start_step < 0:
            raise ValueError(f"start_step: is {start_step}; 0 or more is allowed")
        if not 0 <= head_start_steps <= start_step:
            raise ValueError(f"head_start_steps: is {head_start_steps}; 0 to start_step ({start_step}) is allowed")
        self.start_step, self.learns_from = start_step, start_step - head_start_steps
        self.mixture = mixture
        network = MetricDiscriminator(discriminator or DiscriminatorConfig())
        scorer = QualityScorer(sample_rate, workers)
        self.adversary: MetricAdversary = MetricAdversary(network, scorer, lr, replay, items_per_step)
        self._step = 0

    def update(self, step: int) -> None:
        """As `Loss.update`."""
        self._step = step
        self.adversary.is_learning = step >= self.learns_from

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """As `Loss.forward`; `batch` holds `mixture` where D learns from it."""
        estimate, target = output.waveforms[0].float(), target.float()
        counts = has_target(target, batch)
        if self.training and torch.is_grad_enabled():
            self.adversary.observe(target, [estimate, *([batch["mixture"]] if self.mixture else [])], counts)
        if self._step < self.start_step:
            return (estimate * 0).sum()
        quality = self.adversary.judge(target, estimate)
        return ((quality - 1).square() * counts).sum() / counts.sum().clamp(min=1)
