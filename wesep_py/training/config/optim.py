"""How the weights are moved: optimiser, learning rate, groups of parameters."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from wesep_py.errors import nearest
from wesep_py.training.config.ranges import at_least, positive
from wesep_py.training.muon import Muon

_UNSUITED = {"lbfgs", "sparseadam", "muon"}  # a closure, sparse gradients, parameters of two dimensions only
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
    and name.lower() not in _UNSUITED
} | {"muon": Muon}
"""What `optim.name` can be: torch's optimisers, in lower case, and a Muon for whole networks."""


@dataclass(frozen=True)
class GroupConfig:
    """Parameters that are trained otherwise than the rest.

    Args:
        match: pattern of their names, with `*` for anything: `encoder.*`. A parameter is of the first group that
            matches it; a pattern that matches none is an error.
        lr_ratio: their learning rate is so many times the rest's, above 0.
        weight_decay: as `optim.weight_decay`, for them; none: that.
        freeze_steps: so many steps at the beginning in which they stay as they are, running statistics of batch norm
            included; none: they always do.
    """

    match: str
    lr_ratio: float = 1.0
    weight_decay: float | None = None
    freeze_steps: int | None = 0

    def __post_init__(self) -> None:
        positive({"lr_ratio": self.lr_ratio})
        if self.weight_decay is not None:
            at_least(0, {"weight_decay": self.weight_decay})
        if self.freeze_steps is not None:
            at_least(0, {"freeze_steps": self.freeze_steps})


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, its learning rate, the gradient norm, groups of parameters, the average of the weights.

    Args:
        name: an optimiser of `torch.optim`, in lower case (`adam`, `adamw`, `sgd`, `radam`, …), or `muon`
            (`wesep_py.training.muon`).
        betas: for the optimisers that have them.
        weight_decay: on weights of two and more dimensions only; biases and norms are not decayed.
        clip_norm: the norm, over all parameters together, to which gradients are clipped.
        arguments: further arguments of the optimiser: `{momentum: 0.9}`.
        groups: parameters that are trained otherwise.
        ema_decay: an exponential moving average of the weights is what is validated and saved; at each step it keeps
            this share of itself, fewer in the first steps (`ema.WeightAverage`). None: the weights themselves.
    """

    name: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    arguments: dict[str, Any] = field(default_factory=dict)
    groups: list[GroupConfig] = field(default_factory=list)
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ValueError(f"name is {self.name!r}; {nearest(self.name, OPTIMIZERS)}")
        positive({"lr": self.lr, "clip_norm": self.clip_norm})
        at_least(0, {"weight_decay": self.weight_decay})
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; both must be at least 0 and below 1")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be above 0 and below 1")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate goes: a linear warm-up, then within 1 and `final_lr_ratio` times `optim.lr`.

    Args:
        name: `constant`; `exponential` and `cosine` fall from 1 to `final_lr_ratio` over the run; `triangular` rises
            from `final_lr_ratio` to 1 and falls back, `cycles` times; `plateau` falls by `plateau_factor` whenever
            `patience` validations in a row were no better than the best before, down to `final_lr_ratio`.
        warmup_steps: the first so many steps rise to the schedule from nothing.
        final_lr_ratio: above 0, at most 1.
        cycles: of `triangular`.
        patience: validations, of `plateau`.
        plateau_factor: of `plateau`, above 0 and below 1.
    """

    name: Literal["constant", "exponential", "cosine", "triangular", "plateau"] = "cosine"
    warmup_steps: int = 200
    final_lr_ratio: float = 0.025
    cycles: int = 1
    patience: int = 3
    plateau_factor: float = 0.5

    def __post_init__(self) -> None:
        at_least(0, {"warmup_steps": self.warmup_steps})
        at_least(1, {"cycles": self.cycles, "patience": self.patience})
        if not 0 < self.final_lr_ratio <= 1:
            raise ValueError(f"final_lr_ratio is {self.final_lr_ratio}; it must be above 0 and at most 1")
        if not 0 < self.plateau_factor < 1:
            raise ValueError(f"plateau_factor is {self.plateau_factor}; it must be above 0 and below 1")
