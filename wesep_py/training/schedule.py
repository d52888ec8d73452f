"""The learning rate as a function of the step and of the run's progress: what state there is, `Progress` holds."""

from __future__ import annotations

import math

from wesep_py.training.config import ScheduleConfig


def progress(step: int, steps: int, elapsed_s: float = 0.0, max_minutes: float | None = None) -> float:
    """How much of the run is done, 0 to 1: by steps, or by time where time is limited and further on.

    Args:
        step: optimiser steps done.
        steps: of the whole run.
        elapsed_s: seconds trained so far, over all sessions of the run.
        max_minutes: the limit of time, if there is one.

    >>> progress(10, 100, elapsed_s=30.0, max_minutes=1.0)
    0.5
    """
    by_steps = step / steps
    by_time = elapsed_s / (60.0 * max_minutes) if max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def learning_rate_factor(config: ScheduleConfig, step: int, done: float, falls: int = 0) -> float:
    """What the learning rate is multiplied with at a step.

    Args:
        step: optimiser steps done before this one.
        done: the run's progress, 0 to 1.
        falls: how often the validation has stood still for `plateau` (`Progress.falls`).

    Returns:
        A factor in (0, 1]: the warm-up's `(step + 1) / warmup_steps` up to 1, times a factor between 1 and
        `final_lr_ratio`: `ratio ** done` (exponential); half a period (cosine: Loshchilov & Hutter, ICLR 2017); a
        triangle (triangular: Smith, "Cyclical learning rates for training neural networks", WACV 2017);
        `plateau_factor ** falls` (plateau).

    >>> learning_rate_factor(ScheduleConfig("exponential", warmup_steps=0, final_lr_ratio=0.01), 50, 0.5)
    0.1
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    ratio = config.final_lr_ratio
    if config.name == "constant":
        return warmup
    if config.name == "exponential":
        return warmup * ratio**done
    if config.name == "plateau":
        return warmup * max(ratio, config.plateau_factor**falls)
    if config.name == "triangular":
        height = 1.0 - abs(2.0 * (done * config.cycles % 1.0) - 1.0)
        return warmup * (ratio + (1.0 - ratio) * height)
    return warmup * (ratio + (1.0 - ratio) * 0.5 * (1.0 + math.cos(math.pi * done)))
