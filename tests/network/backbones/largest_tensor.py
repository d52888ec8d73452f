"""Size of the largest tensor of a computation, which shows whether memory grows with T or with T²."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Largest(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # no compilation here, and importing the compiler takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        outputs = out if isinstance(out, (tuple, list)) else [out]
        sizes = [output.numel() for output in outputs if isinstance(output, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


def largest_tensor(compute: Callable[[], Any]) -> int:
    """Return the number of elements of the largest tensor that a computation makes, without gradients."""
    with torch.no_grad(), _Largest() as mode:
        compute()
    return mode.elements
