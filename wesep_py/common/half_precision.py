"""Test whether a device can compute in half precision (bfloat16), by trying each operation once.

Networks compute in bfloat16 under autocast, with weights and losses in float32. Processors and builds of torch differ
in what they support: oneDNN runs matrix products in bfloat16 on any processor, but an LSTM only on those with AVX-512.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import nn

Operation = Literal["matmul", "lstm"]
OPERATIONS: tuple[Operation, ...] = ("matmul", "lstm")
"""The operations in which the networks spend most of their time."""
OPERATION_NAMES: dict[Operation, str] = {"matmul": "a matrix product", "lstm": "an LSTM"}


@cache
def problem_with(operation: Operation, device_type: str = "cpu") -> str | None:
    """Return why an operation fails in bfloat16 on a device, or `None` if it works.

    The operation runs forward and backward under autocast, on small tensors; its gradients have to be finite. The
    random state is preserved. The result is cached.

    Args:
        operation: one of `OPERATIONS`.
        device_type: `cpu` or `cuda`, as in `torch.device.type`.

    Returns:
        The first line of the library's error, or `None`.
    """
    import torch

    device = torch.device(device_type)
    if device_type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "the GPU has no bfloat16 units"
    with (
        torch.enable_grad(),
        torch.random.fork_rng(devices=[torch.cuda.current_device()] if device_type == "cuda" else []),
    ):
        try:
            parameters = _run(operation, device)
        except RuntimeError as error:
            return str(error).splitlines()[0].split(". ")[0].rstrip(".")
    if not all(bool(torch.isfinite(parameter.grad).all()) for parameter in parameters):
        return "the gradients are not finite"
    return None


def unsupported(device_type: str = "cpu", operations: tuple[Operation, ...] = OPERATIONS) -> str | None:
    """Return a clause that names the first operation that fails in bfloat16 on a device, or `None` if all work.

    >>> unsupported("cpu", operations=()) is None
    True
    """
    for operation in operations:
        if problem_with(operation, device_type) is not None:
            place = "this processor" if device_type == "cpu" else f"this {device_type} device"
            return f"{place} cannot run {OPERATION_NAMES[operation]} in bfloat16"
    return None


def _run(operation: Operation, device: torch.device) -> list[nn.Parameter]:
    """Run an operation forward and backward, and return its parameters with their gradients."""
    import torch
    from torch import nn

    build: dict[Operation, Callable[[], nn.Module]] = {
        "matmul": lambda: nn.Linear(16, 16),
        "lstm": lambda: nn.LSTM(16, 16, batch_first=True, bidirectional=True),
    }
    module = build[operation]().to(device)
    sequence = torch.randn(2, 4, 16, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        output = module(sequence)
    output = output[0] if isinstance(output, tuple) else output
    output.float().square().mean().backward()
    return list(module.parameters())


def has_amx() -> bool:
    """Return whether oneDNN computes in bfloat16 with AMX: the processor has it, and `ONEDNN_MAX_CPU_ISA` allows it."""
    import torch

    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return bool(torch.cpu._is_amx_tile_supported()) and (not limit or "AMX" in limit or limit in ("ALL", "DEFAULT"))
