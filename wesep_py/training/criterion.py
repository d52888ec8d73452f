"""The network and its losses as one module: what a device computes in a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.config import check
from wesep_py.errors import ConfigError
from wesep_py.losses import losses


class Criterion(nn.Module):
    """The weighted sum of losses, built from the configuration's `loss`.

    Args:
        config: one loss `{name, argument: value, …}`, or a list of them; each may have a `weight` (1 if not given).

    Raises:
        ConfigError: an unknown loss or argument, a weight that is not positive, an empty list.

    >>> Criterion([{"name": "si_sdr", "weight": 0.5}]).weights
    [0.5]
    """

    def __init__(self, config: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
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
            self.terms.append(losses.build(arguments, where))
            name = str(item["name"])
            self.names.append(name if name not in self.names else f"{name}_{index}")
            self.weights.append(weight)

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
        mixture = batch["mixture"]
        output = self.network(mixture, batch["enrollment"], batch["enrollment_lengths"])
        with torch.autocast(mixture.device.type, enabled=False):
            return self.criterion(output, batch)
