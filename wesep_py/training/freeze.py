"""Parameters that stay as they are: in the first steps of a run, or in all of them."""

from __future__ import annotations

import math

from torch import nn

from wesep_py.training.config import OptimConfig
from wesep_py.training.optim import group_of


class Freezer:
    """Holds parameters still, as `optim.groups` says, and the running statistics of the modules they are in.

    What a step trains is a function of the step, so that a resumed run needs no state of it.

    Args:
        config: the optimiser's.
        module: the training step.
    """

    def __init__(self, config: OptimConfig, module: nn.Module) -> None:
        until = [math.inf if group.freeze_steps is None else group.freeze_steps for group in config.groups]
        chosen = {name: group_of(name, config.groups) for name, p in module.named_parameters() if p.requires_grad}
        steps = {name: until[i] for name, i in chosen.items() if i is not None and until[i] > 0}
        self._parameters = [(p, steps[name]) for name, p in module.named_parameters() if name in steps]
        self._modules: list[tuple[nn.Module, float]] = []
        for prefix, inner in module.named_modules():
            own = [f"{prefix}.{name}".lstrip(".") for name, _ in inner.named_parameters(recurse=False)]
            has_statistics = any(True for _ in inner.buffers(recurse=False))
            if own and has_statistics and all(name in steps for name in own):
                self._modules.append((inner, min(steps[name] for name in own)))

    def begin_step(self, step: int) -> None:
        """Freeze and thaw for a step; `step` counts those that are done."""
        for parameter, until in self._parameters:
            parameter.requires_grad_(step >= until)
        for module, until in self._modules:
            module.train(step >= until)
