from __future__ import annotations

import math

import pytest
import torch

from wesep_py.network.speaker.speaker_losses.speaker_loss import add_angle, sine, subtract_angle

half_circle = torch.linspace(0.0, math.pi, 721, dtype=torch.float64)


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5, 1.5])
def test_the_larger_angle_by_arccos(margin):
    got, expected = add_angle(half_circle.cos(), margin), torch.cos(half_circle + margin)
    within = (half_circle > 0.01) & (half_circle + margin < math.pi)
    torch.testing.assert_close(got[within], expected[within], atol=1e-9, rtol=0)
    assert (got.diff() < 0).all(), "falls with the angle all the way"
    assert got.diff().abs().max() < 0.01, "without a jump"


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5, 1.5])
def test_the_smaller_angle_by_arccos(margin):
    got, expected = subtract_angle(half_circle.cos(), margin), torch.cos(half_circle - margin)
    within = (half_circle - margin > 0) & (half_circle + 0.01 < math.pi)
    torch.testing.assert_close(got[within], expected[within], atol=1e-9, rtol=0)
    assert (got.diff() < 0).all()
    assert (got >= half_circle.cos() - 2e-3).all()


def test_slopes():
    """d cos(θ + m) / d cos θ = sin(θ + m) / sin θ, and 1 beyond θ = π − m."""
    angles = torch.tensor([0.3, 1.0, 2.0, 3.05], dtype=torch.float64)
    cosines = angles.cos().requires_grad_()
    add_angle(cosines, 0.2).sum().backward()
    expected = torch.sin(angles + 0.2) / torch.sin(angles)
    expected[3] = 1.0
    torch.testing.assert_close(cosines.grad, expected)


def test_slopes_are_finite_at_the_ends():
    cosines = torch.tensor([-1.0, 1.0, 0.0], requires_grad=True)
    (add_angle(cosines, 0.3) + subtract_angle(cosines, 0.3) + sine(cosines)).sum().backward()
    assert cosines.grad.isfinite().all()


def test_no_margin_changes_nothing():
    assert torch.equal(add_angle(half_circle.cos(), 0.0), half_circle.cos())
    assert torch.equal(subtract_angle(half_circle.cos(), 0.0), half_circle.cos())
