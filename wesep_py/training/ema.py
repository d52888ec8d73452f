"""An exponential moving average of the weights, which is what is validated and saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of a module's parameters; its buffers are those of the module.

    After step t (1, 2, …) the average is d · average + (1 - d) · weights with d = min(decay, t / (t + 9)), so that the
    random weights of the start are soon forgotten (the warm-up of TensorFlow's `ExponentialMovingAverage`; the average
    itself: Polyak & Juditsky, SIAM J. Control and Optimization 30(4), 1992).

    Args:
        module: whose parameters are averaged; the average begins with what they are.
        decay: above 0 and below 1.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(layer, 0.9)
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(5.0)
    >>> with average.applied():
    ...     layer.weight.item() == 5.0
    False
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._averages = {name: p.detach().clone() for name, p in module.named_parameters() if p.is_floating_point()}
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self._steps += 1
        keep = min(self._decay, self._steps / (self._steps + 9))
        for name, parameter in self._module.named_parameters():
            if name in self._averages:
                self._averages[name].lerp_(parameter.detach(), 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While the block runs, the module's parameters are the averages."""
        parameters = {name: p for name, p in self._module.named_parameters() if name in self._averages}
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            _copy(self._averages, parameters)
            yield
        finally:
            _copy(before, parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, and the number of steps under `steps`."""
        return {**self._averages, "steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            KeyError: it is of another module.
        """
        for name, average in self._averages.items():
            average.copy_(state[name])
        self._steps = int(state["steps"])


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
