"""Muon for whole networks: matrices move along orthogonalised momentum, all other parameters as by AdamW."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of the polynomial `a x + b x³ + c x⁵`: steep at 0, and near 1 where it has been steep (Jordan)."""
MIN_MATRIX_SIZE = 8
"""Minimum number of rows and of columns of a matrix; thinner ones are updated by AdamW."""


class Muon(torch.optim.Optimizer):
    """Muon for matrices and stacks of them; AdamW for biases, norms and matrices thinner than 8, such as short kernels.

    `torch.optim.Muon` accepts parameters of two dimensions only, one at a time. This one accepts a whole network: a
    weight `[bands, rows, columns]` is a stack of matrices, and all matrices of one shape are orthogonalised together.
    Updates have the same root mean square as AdamW's, so learning rate and weight decay mean the same for both.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: decoupled, for all parameters.
        momentum: of the matrices' gradients, in [0, 1), with Nesterov's look-ahead.

    Sources: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024 (the iteration and its
    coefficients); J. Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, section 2.2 (0.2 times the root
    of the longer side, which matches AdamW).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; it must be at least 0 and below 1")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters that have a gradient; return the value of `closure`, which is called first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in filter(is_matrix, trained):
                by_shape[parameter.shape[-2:]].append(parameter)
            for parameters in by_shape.values():
                self._update_matrices(parameters, group)
            self._update_others([parameter for parameter in trained if not is_matrix(parameter)], group)
        return loss

    def _update_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters whose matrices all have the same shape."""
        shape, momentum = parameters[0].shape[-2:], group["momentum"]
        directions = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["mean"] = torch.zeros_like(parameter)
            mean = state["mean"].lerp_(parameter.grad, 1 - momentum)
            directions.append(parameter.grad.lerp(mean, momentum).reshape(-1, *shape))  # Nesterov's look-ahead
        # [n₁ + n₂ + …, rows, columns]: one batched product for all parameters instead of one each.
        updates = orthogonalise(torch.cat(directions)).split([len(matrices) for matrices in directions])
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            # An orthogonal matrix of m × n has an RMS of 1 / √max(m, n); AdamW's updates have about 0.2.
            parameter.add_(update.reshape(parameter.shape), alpha=-0.2 * max(shape) ** 0.5 * group["lr"])

    def _update_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                zeros = {name: torch.zeros_like(parameter) for name in ("mean", "mean_square")}
                self.state[parameter] |= {"step": torch.tensor(0.0), **zeros}
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["mean"] for state in states],
            [state["mean_square"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter is a matrix, or a stack of them, with at least 8 rows and columns."""
    return parameter.ndim in (2, 3) and min(parameter.shape[-2:]) >= MIN_MATRIX_SIZE


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return matrices with the same singular vectors and singular values near 1 (about 0.7 to 1.2).

    For X = U S Vᵀ, the iteration X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X acts on the singular values alone:
    s ← a s + b s³ + c s⁵. It needs matrix products only, no singular value decomposition.

    Args:
        matrices: `[batch, rows, columns]`, of any scale.
        steps: of the Newton-Schulz iteration.

    >>> orthogonalise(100 * torch.eye(8)[None])[0, 0, :2]
    tensor([1.0670, 0.0000])
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    # X Xᵀ has rows × rows entries: transpose tall matrices, so that it is the smaller of the two possible products.
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    result = matrices.mT if is_tall else matrices
    # The Frobenius norm bounds the largest singular value, so all singular values start in [0, 1].
    result = result / result.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = result @ result.mT
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return result.mT if is_tall else result
