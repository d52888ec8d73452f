"""The network and its losses as one module: what a device computes in a step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.config import check
from wesep_py.errors import ConfigError
from wesep_py.losses import Adversary, losses


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
