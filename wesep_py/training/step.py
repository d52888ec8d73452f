"""What the machine does to a run, in words that say what to do: memory that runs out, a disk that is full."""

from __future__ import annotations

import errno
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from wesep_py.common.config import check
from wesep_py.common.errors import ConfigError, WesepError
from wesep_py.training.losses import Adversary, losses
from wesep_py.training.optimisation import set_learning_rate
from wesep_py.training.training_config import RunConfig

# ----------------------------------------
# The network and its losses as one module: what a device computes in a step.


class Criterion(nn.Module):
    """The weighted sum of losses, built from the configuration's `loss`.

    Args:
        config: one loss `{name, argument: value, …}`, or a list of them; each may have a `weight` (1 if not given).
        given: makers of the arguments that the training gives to the losses whose constructors name them
            (`losses.Loss`); asked only then.

    Raises:
        ConfigError: an unknown loss or argument, a weight that is not positive, an empty list.

    >>> Criterion([{"name": "si_sdr", "weight": 0.5}]).weights
    [0.5]
    """

    def __init__(
        self,
        config: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        given: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        super().__init__()
        single = isinstance(config, Mapping)
        items: list[Mapping[str, Any]] = [config] if isinstance(config, Mapping) else list(config)
        if not items:
            raise ConfigError("loss: is an empty list; name at least one loss")
        self.names: list[str] = []
        self.weights: list[float] = []
        self.terms = nn.ModuleList()
        for index, item in enumerate(items):
            where = "loss" if single else f"loss[{index}]"
            weight = check(item.get("weight", 1.0), float, f"{where}.weight")
            if not weight > 0:
                raise ConfigError(f"{where}.weight: is {weight}; it must be above 0")
            arguments = {key: value for key, value in item.items() if key != "weight"}
            wanted = inspect.signature(losses.get(str(item["name"]), where)).parameters if "name" in item else {}
            makers = {key: make for key, make in (given or {}).items() if key in wanted}
            self.terms.append(losses.build(arguments, where, **{key: make() for key, make in makers.items()}))
            name = str(item["name"])
            self.names.append(name if name not in self.names else f"{name}_{index}")
            self.weights.append(weight)

    @property
    def adversaries(self) -> dict[str, Adversary]:
        """Those of the losses, under the losses' names."""
        found = {name: term.adversary for name, term in zip(self.names, self.terms, strict=True)}
        return {name: adversary for name, adversary in found.items() if adversary is not None}

    @property
    def needs_embedding(self) -> bool:
        """Whether a loss asks for the network's embedding of the enrollment."""
        return any(term.needs_embedding for term in self.terms)

    def update(self, step: int) -> None:
        """Let the losses take on the state of a step (`losses.Loss.update`)."""
        for term in self.terms:
            term.update(step)

    def forward(self, output: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Every loss under its name, and their weighted sum under `loss`; scalars."""
        values = {name: term(output, batch["target"], batch) for name, term in zip(self.names, self.terms, strict=True)}
        total = torch.stack([w * v for w, v in zip(self.weights, values.values(), strict=True)]).sum()
        return {"loss": total, **values}


class TrainingStep(nn.Module):
    """A network and its criterion. Under mixed precision the losses are computed in float32.

    Args:
        network: takes (mixture, enrollment, enrollment_lengths), gives a `NetworkOutput`.
        criterion: of the output and the batch.
    """

    def __init__(self, network: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The losses of a batch; see `Criterion.forward`."""
        return self.run(batch)[1]

    def run(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Tensor]]:
        """The network's output for a batch, and its losses."""
        mixture, enrollment, lengths = batch["mixture"], batch["enrollment"], batch["enrollment_lengths"]
        if "embedding" in batch or getattr(self.criterion, "needs_embedding", False):
            prepared = self.network.prepare(enrollment, lengths, batch.get("embedding"))
            output = self.network.extract(mixture, prepared)
            batch = {**batch, "embedding": embedding_of(prepared)}
        else:
            output = self.network(mixture, enrollment, lengths)
        with torch.autocast(mixture.device.type, enabled=False):
            return output, self.criterion(output, batch)


def embedding_of(prepared: Mapping[str, Tensor]) -> Tensor | None:
    """The encoder's embedding `[batch, embedding_dim]` in what the cues keep of an enrollment; the first, if any.

    >>> embedding_of({"0.features": torch.zeros(1, 3), "1.embedding": torch.ones(1, 2)})
    tensor([[1., 1.]])
    """
    return next((value for key, value in prepared.items() if key.partition(".")[2] == "embedding"), None)


# ----------------------------------------
# One optimiser step: gradients of the accumulated batches, clipping, and what happens if something is not finite.

_STREAM = 0x5EED  # separates the seeds of steps from other uses of the run's seed


@dataclass(frozen=True)
class StepResult:
    """What a step gave, over all ranks.

    Args:
        losses: means over the batches; `loss` is what was minimised. With what the adversaries say of themselves.
        grad_norm: of all parameters together, before clipping.
        stepped: false if loss or gradient was not finite and the weights were left as they were.
        shared: means over ranks of the numbers that the caller shares.
    """

    losses: dict[str, float]
    grad_norm: float
    stepped: bool
    shared: list[float]


def seed_step(seed: int, step: int, number: int, rank: int) -> None:
    """Set torch's random state to a function of the run's seed, the step, the batch of the step and the rank.

    So dropout, dither and SpecAugment need no saved state: a resumed run draws what an unbroken one would have drawn.
    """
    words = np.random.SeedSequence([seed, step, number, rank, _STREAM]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]))


class Stepper:
    """Takes optimiser steps.

    Args:
        fabric: devices and precision.
        config: the run's.
        module: the training step, set up by Fabric; gives a dictionary of losses for a batch.
        optimizer: set up by Fabric.
        adversaries: by name, what learns after each step; moved to the device.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: RunConfig,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        adversaries: Mapping[str, Adversary] | None = None,
    ) -> None:
        self._fabric = fabric
        self._config = config
        self._module = module
        self._optimizer = optimizer
        self._adversaries = dict(adversaries or {})
        for adversary in self._adversaries.values():
            adversary.to(fabric.device)

    def step(
        self,
        batches: Iterable[Mapping[str, Tensor]],
        step: int,
        lr: float,
        share: Callable[[], list[float]] = list,
    ) -> StepResult:
        """Take one step.

        If the loss or the gradient norm is not finite, weights and optimiser are left as they were, and buffers
        (batch norm's running statistics, which a single such batch would spoil for good) are put back.

        Args:
            batches: the `accumulate` batches of the step.
            step: steps done before, which seeds the random state.
            lr: learning rate.
            share: called when the gradients are done; numbers of this rank whose means over ranks the caller wants.
        """
        fabric, accumulate = self._fabric, self._config.train.accumulate
        set_learning_rate(self._optimizer, lr)
        buffers = [buffer for buffer in self._module.buffers() if buffer.is_floating_point()]
        before = [buffer.clone() for buffer in buffers]
        totals: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            # After the batch has come: making a data loader's iterator draws from the same random state.
            seed_step(self._config.seed, step, number, fabric.global_rank)
            with fabric.no_backward_sync(self._module, enabled=number < accumulate):
                losses = self._module(batch)
                fabric.backward(losses["loss"] / accumulate)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / accumulate
        norm = fabric.clip_gradients(
            self._module, self._optimizer, max_norm=self._config.optim.clip_norm, error_if_nonfinite=False
        )
        own = torch.tensor(share(), device=fabric.device, dtype=torch.float64)
        numbers = torch.cat([torch.stack([*totals.values(), norm]).double(), own])
        numbers = fabric.all_reduce(numbers, reduce_op="mean").tolist()
        losses_now = dict(zip(totals, numbers, strict=False))
        grad_norm = numbers[len(totals)]
        stepped = math.isfinite(losses_now["loss"]) and math.isfinite(grad_norm)
        if stepped:
            self._optimizer.step()
        else:
            with torch.no_grad():
                for buffer, value in zip(buffers, before, strict=True):
                    buffer.copy_(value)
        self._optimizer.zero_grad(set_to_none=True)
        losses_now |= self._learn_against(step)
        return StepResult(losses_now, grad_norm, stepped, numbers[len(totals) + 1 :])

    def _learn_against(self, step: int) -> dict[str, float]:
        """Let the adversaries learn from the step; what they say, each under its name."""
        fabric, found = self._fabric, {}
        for name, adversary in self._adversaries.items():
            said = adversary.learn(step, lambda tensor: fabric.all_reduce(tensor, reduce_op="sum"))
            found |= {f"{name}_{key}": value for key, value in said.items()}
        return found


@dataclass(frozen=True)
class Where:
    """Where a run stands when something happens to it.

    Attributes:
        step: optimiser steps done.
        saved_step: of the last saved state.
        device: on which it computes.
        batch: what it computes with, in words.
        saves_memory: whether `train.gradient_checkpointing` is on.
    """

    step: int
    saved_step: int
    device: str
    batch: str
    saves_memory: bool


@contextmanager
def explain_faults(where: Callable[[], Where]) -> Iterator[None]:
    """Turn what the machine does to the block into one line.

    Args:
        where: asked when something has happened.

    Raises:
        WesepError: memory ran out, or the disk is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise WesepError(_memory_hint(where())) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        at = where()
        raise WesepError(
            f"step {at.step}: the disk is full ({error.strerror}); make room and run the same command again: it goes "
            f"on from step {at.saved_step}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: of a device, for which torch has an error; of the CPU, where it has only a text."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def _memory_hint(at: Where) -> str:
    again = (
        ", or set train.gradient_checkpointing=true and run the same command again: it goes on from step "
        f"{at.saved_step}"
    )
    return (
        f"step {at.step}: out of memory on {at.device} with {at.batch}; in a new experiment, lower train.batch_size "
        f"(and raise train.accumulate) or simulation.duration_s{'' if at.saves_memory else again}"
    )
