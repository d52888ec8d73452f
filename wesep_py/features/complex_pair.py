"""A complex tensor as two real ones, for exported graphs, in which there are no complex numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class ComplexPair:
    """Real and imaginary part of a complex tensor, with the few operations that networks need of a spectrum.

    An exported network gets one wherever the network itself has a complex tensor.

    Args:
        real, imag: of one shape.

    >>> pair = ComplexPair(torch.tensor([3.0]), torch.tensor([4.0]))
    >>> pair.abs(), pair.times(torch.tensor([0.0]), torch.tensor([1.0])).real
    (tensor([5.]), tensor([-4.]))
    """

    def __init__(self, real: Tensor, imag: Tensor) -> None:
        self.real, self.imag = real, imag

    @property
    def shape(self) -> torch.Size:
        """Shape of either part."""
        return self.real.shape

    @property
    def device(self) -> torch.device:
        """Device of both parts."""
        return self.real.device

    def abs(self) -> Tensor:
        """Return the magnitudes."""
        return (self.real.square() + self.imag.square()).sqrt()

    def times(self, real: Tensor, imag: Tensor) -> ComplexPair:
        """Return the product with another complex tensor, given as its two parts."""
        return ComplexPair(self.real * real - self.imag * imag, self.real * imag + self.imag * real)

    def __mul__(self, factor: Tensor) -> ComplexPair:
        return ComplexPair(self.real * factor, self.imag * factor)

    def __getitem__(self, index: Any) -> ComplexPair:
        return ComplexPair(self.real[index], self.imag[index])

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, arguments: Sequence[Any], options: Any = None
    ) -> ComplexPair:
        """Join pairs by `torch.cat`; there is no other function of torch that takes them."""
        if function is not torch.cat:
            raise NotImplementedError(f"ComplexPair: {function.__name__} is not there")
        pairs, *rest = arguments
        parts = ([pair.real for pair in pairs], [pair.imag for pair in pairs])
        return cls(*(torch.cat(part, *rest, **(options or {})) for part in parts))


def apply_mask(real: Tensor, imag: Tensor, spectrum: Any) -> Any:
    """Return the product of a complex mask, given as its two parts, and a spectrum.

    Args:
        real, imag: of the mask.
        spectrum: a complex tensor, or a `ComplexPair`, of the same shape.

    >>> apply_mask(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([1.0 + 2.0j]))
    tensor([-2.+1.j])
    """
    if isinstance(spectrum, ComplexPair):
        return spectrum.times(real, imag)
    return torch.complex(real, imag) * spectrum
