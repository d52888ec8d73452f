"""Muon against torch's own for matrices, against AdamW for everything else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError
from wesep_py.training.muon import Muon, orthogonalise
from wesep_py.training.optimisation import build_optimizer
from wesep_py.training.training_config import OptimConfig

SETTINGS = {"lr": 0.01, "weight_decay": 0.1}


def descend(optimizer: torch.optim.Optimizer, parameters: list[Tensor], steps: int = 5) -> None:
    """Descend towards a point given by the seed, along gradients that are not constant."""
    torch.manual_seed(1)
    goals = [torch.randn_like(parameter) for parameter in parameters]
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p - goal).pow(4).sum() for p, goal in zip(parameters, goals, strict=True)).backward()
        optimizer.step()


def parameter(*shape: int) -> nn.Parameter:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(shape))


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (8, 24)])
def test_a_matrix_moves_as_by_torchs_muon(shape: tuple[int, int]):
    ours, theirs = parameter(*shape), parameter(*shape)
    start = ours.detach().clone()
    descend(Muon([ours], **SETTINGS), [ours])
    descend(torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **SETTINGS), [theirs])
    moved = (theirs - start).norm()
    assert moved > 0.1
    assert (ours - theirs).norm() < 0.02 * moved  # torch computes in bfloat16


@pytest.mark.parametrize("shape", [(5,), (2, 1, 24), (4, 64), (3, 3, 3, 3)])
def test_other_parameters_move_as_by_adamw(shape: tuple[int, ...]):
    ours, theirs = parameter(*shape), parameter(*shape)
    descend(Muon([ours], **SETTINGS), [ours])
    descend(torch.optim.AdamW([theirs], **SETTINGS), [theirs])
    torch.testing.assert_close(ours, theirs)


def test_a_stack_moves_like_its_single_matrices():
    stack = parameter(3, 12, 10)
    apart = [nn.Parameter(matrix.detach().clone()) for matrix in stack]
    torch.manual_seed(1)
    gradient = torch.randn(3, 12, 10)
    for members in ([stack], apart):
        optimizer = Muon(members, **SETTINGS)
        for member, part in zip(members, [gradient] if len(members) == 1 else gradient, strict=True):
            member.grad = part.clone()
        optimizer.step()
    torch.testing.assert_close(stack.detach(), torch.stack([matrix.detach() for matrix in apart]))


def test_a_step_has_the_root_mean_square_of_adamws():
    weight = parameter(128, 64)
    before = weight.detach().clone()
    weight.grad = 1e-4 * torch.randn_like(weight)
    Muon([weight], lr=0.01, weight_decay=0.0).step()
    assert (weight - before).square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)


def test_orthogonalised_matrices_keep_their_singular_vectors():
    torch.manual_seed(0)
    matrices = 1e3 * torch.randn(4, 20, 50)
    result = orthogonalise(matrices)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    within = left.mT @ result @ right.mT
    assert (within - torch.diag_embed(within.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-3
    assert not orthogonalise(torch.zeros(1, 8, 8)).any()


def test_muon_resumes_bit_exactly():
    parameters = [parameter(9, 8), parameter(7)]
    optimizer = Muon(parameters, **SETTINGS)
    descend(optimizer, parameters)
    again = [nn.Parameter(p.detach().clone()) for p in parameters]
    second = Muon(again, **SETTINGS)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, members in ((optimizer, parameters), (second, again)):
        descend(one, members)
    for one, other in zip(parameters, again, strict=True):
        assert torch.equal(one, other)


def test_parameters_without_gradient_stay():
    parameters = [parameter(9, 8), parameter(7)]
    before = [p.detach().clone() for p in parameters]
    Muon(parameters, **SETTINGS).step()
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))


def test_an_impossible_momentum_is_refused():
    with pytest.raises(ConfigError, match=r"momentum is 1\.5; it must be at least 0 and below 1"):
        build_optimizer(OptimConfig("muon", arguments={"momentum": 1.5}), nn.Linear(8, 8))
