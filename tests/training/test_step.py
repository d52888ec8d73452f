"""One optimiser step: global clipping, accumulation, and steps that are not finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wesep_py.training.devices import make_fabric
from wesep_py.training.optimisation import build_optimizer
from wesep_py.training.step import Stepper, seed_step
from wesep_py.training.training_config import OptimConfig, TrainLoopConfig, load_config


class Regression(nn.Module):
    """Batch norm and a layer, with the squared error as loss: a training step without audio."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(2)
        self.layer = nn.Linear(2, 1)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        error = (self.layer(self.norm(batch["x"])).squeeze(1) - batch["y"]).square().mean()
        return {"loss": error, "error": error}


def make(settings, **replaced) -> tuple[Stepper, Regression, torch.optim.Optimizer]:
    config = load_config(settings(**replaced))
    fabric = make_fabric(TrainLoopConfig(device="cpu", threads=1, precision="32-true"))
    module = Regression()
    plain = build_optimizer(OptimConfig(config.optim.name), module)
    wrapped, optimizer = fabric.setup(module, plain)
    wrapped.train()
    return Stepper(fabric, config, wrapped, optimizer), module, plain


def batch(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(8, 2, generator=generator), "y": scale * torch.randn(8, generator=generator)}


def test_a_step_moves_the_weights_and_returns_losses(settings):
    stepper, module, _ = make(settings)
    before = module.layer.weight.detach().clone()
    result = stepper.step([batch(0)], 0, 0.1, lambda: [3.0])
    assert result.stepped and result.losses["loss"] == result.losses["error"] > 0 and result.shared == [3.0]
    assert not torch.equal(module.layer.weight, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_nonfinite_step_changes_nothing(settings, bad: float):
    stepper, module, optimizer = make(settings)
    stepper.step([batch(0)], 0, 0.1)
    weights = {key: value.clone() for key, value in module.state_dict().items() if value.is_floating_point()}
    moments = [state["exp_avg"].clone() for state in optimizer.state_dict()["state"].values()]
    spoiled = batch(1)
    spoiled["x"][0, 0] = bad
    assert not stepper.step([spoiled], 1, 0.1).stepped
    for key, value in weights.items():
        assert torch.equal(module.state_dict()[key], value), key
    for state, moment in zip(optimizer.state_dict()["state"].values(), moments, strict=True):
        assert torch.equal(state["exp_avg"], moment)
    assert stepper.step([batch(2)], 2, 0.1).stepped


def test_the_gradient_is_clipped_by_its_global_norm(settings):
    """Adam hides the size of the gradient, so the test looks at the gradients that the optimiser receives."""
    stepper, module, optimizer = make(settings, optim__clip_norm=0.5)
    seen: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten() for p in module.parameters()]).clone())
    )
    result = stepper.step([batch(0, scale=100.0)], 0, 0.1)
    assert result.grad_norm > 5.0
    assert seen[0].norm().item() == pytest.approx(0.5, rel=1e-3)
    module.zero_grad()
    reference = Regression()
    reference(batch(0, scale=100.0))["loss"].backward()
    unclipped = torch.cat([p.grad.flatten() for p in reference.parameters()])
    torch.testing.assert_close(seen[0], unclipped * (0.5 / unclipped.norm()), rtol=1e-3, atol=1e-6)


def test_accumulated_gradients_are_the_mean(settings):
    stepper, module, optimizer = make(settings, train__accumulate=2, optim__clip_norm=1e6)
    seen: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(module.layer.weight.grad.clone()))
    result = stepper.step([batch(0), batch(1)], 0, 0.1)
    grads, losses = [], []
    for seed in (0, 1):
        alone = Regression()
        loss = alone(batch(seed))["loss"]
        loss.backward()
        grads.append(alone.layer.weight.grad)
        losses.append(loss.item())
    torch.testing.assert_close(seen[0], (grads[0] + grads[1]) / 2)
    assert result.losses["loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_the_random_state_is_a_function_of_seed_step_batch_and_rank():
    def draw(*where: int) -> float:
        seed_step(*where)
        return torch.rand(()).item()

    first = draw(1, 2, 3, 0)
    assert draw(1, 2, 3, 0) == first
    assert len({first, draw(2, 2, 3, 0), draw(1, 3, 3, 0), draw(1, 2, 4, 0), draw(1, 2, 3, 1)}) == 5
