"""The largest tensor that any operation makes: what tells memory that grows with T from memory that grows with T²."""

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
        return False  # nothing is compiled here, and to import the compiler takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        made = [each for each in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(each, torch.Tensor)]
        self.elements = max([self.elements, *(each.numel() for each in made)])
        return out


def largest_tensor(compute: Callable[[], Any]) -> int:
    """Elements of the largest tensor on the way to the result, without gradients."""
    with torch.no_grad(), _Largest() as mode:
        compute()
    return mode.elements
