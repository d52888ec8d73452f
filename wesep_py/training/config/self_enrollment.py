"""The network's own estimates as enrollments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wesep_py.training.config.ranges import at_least


@dataclass(frozen=True)
class SelfEnrollmentConfig:
    """Self-estimated augmentation: the estimate of a first pass introduces the voice to the pass that is learned from.

    Li et al., "On the effectiveness of enrollment speech augmentation for target speaker extraction", SLT 2024
    (arXiv 2409.09589). An item whose target is absent keeps its enrollment.

    Args:
        probability: with which an item is introduced so, above 0 and up to 1.
        from_step: optimiser steps that are done before; a network that does not extract yet would introduce wrong
            voices.
        use: the estimate is `joined` to the enrollment, after it in time, or stands `instead` of it; brought to its
            level.
        loss_on: of the `second` pass alone, the first being without gradient; or of `both`. From the second no gradient
            goes through the estimate.
        weights: of the losses of the first and the second pass, for `both`; above 0.
    """

    probability: float = 0.5
    from_step: int = 0
    use: Literal["joined", "instead"] = "joined"
    loss_on: Literal["second", "both"] = "second"
    weights: tuple[float, float] = (0.4, 0.6)

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability is {self.probability}; it must be above 0 and at most 1")
        at_least(0, {"from_step": self.from_step})
        if not all(weight > 0 for weight in self.weights):
            raise ValueError(f"weights are {list(self.weights)}; both must be above 0")
