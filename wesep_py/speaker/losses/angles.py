"""The cosine of a larger or smaller angle, without arccos, monotone all the way."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EDGE = 1e-6
"""The sine is taken of cosines within ±(1 − this), where its slope is still finite in float32."""


def sine(cosines: Tensor) -> Tensor:
    """sin θ ≥ 0 of cos θ, with finite slopes.

    >>> sine(torch.tensor([0.6])).item()
    0.800000011920929
    """
    return torch.sqrt(1.0 - cosines.clamp(-1.0 + EDGE, 1.0 - EDGE).square())


def add_angle(cosines: Tensor, margin: float) -> Tensor:
    """cos(θ + m), and beyond θ = π − m, where that would rise again, cos θ − (1 − cos m): continuous, falling in θ.

    Args:
        cosines: cos θ, any shape.
        margin: m in radians, 0 to π/2.
    """
    if margin == 0:
        return cosines
    turned = cosines * math.cos(margin) - sine(cosines) * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), turned, cosines - (1.0 - math.cos(margin)))


def subtract_angle(cosines: Tensor, margin: float) -> Tensor:
    """cos(θ − m), and below θ = m, where that would fall again, cos θ + (1 − cos m); arguments as `add_angle`."""
    return -add_angle(-cosines, margin)
