"""A module in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_evaluation(module: nn.Module) -> Iterator[None]:
    """Within it every part of the module is in evaluation mode; afterwards each is in the mode it had.

    >>> network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with in_evaluation(network):
    ...     network[0].training
    False
    >>> network[0].training, network[1].training
    (True, False)
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
