"""The side of a metric GAN that learns the metric: discriminator, optimiser, and the pairs that it learns from."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wesep_py.losses.adversary import Adversary
from wesep_py.losses.discriminator import MetricDiscriminator
from wesep_py.losses.quality import Pair, QualityScorer

Scored = tuple[Pair, float]
"""Reference and estimate, and the quality of the estimate."""


class MetricAdversary(Adversary):
    """A discriminator that learns the scores of pairs, each one step after it was observed.

    Args:
        network: the discriminator; its gradients are off except while it learns.
        scorer: computes the scores.
        lr: of Adam, above 0.
        replay: so many scored pairs are kept, 0 or more.
        items_per_step: so many items of a step are scored at most; `None`: all.

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(
        self,
        network: MetricDiscriminator,
        scorer: QualityScorer,
        lr: float,
        replay: int = 0,
        items_per_step: int | None = None,
    ) -> None:
        if not lr > 0:
            raise ValueError(f"lr: is {lr}; a number above 0 is allowed")
        if replay < 0:
            raise ValueError(f"replay: is {replay}; 0 or more is allowed")
        if items_per_step is not None and items_per_step < 1:
            raise ValueError(f"items_per_step: is {items_per_step}; 1 or more, or null, is allowed")
        self.network = network.requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        self.is_learning = True
        self._scorer, self._replay_size, self._items_per_step = scorer, replay, items_per_step
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []
        self._kept: list[Scored] = []

    def judge(self, reference: Tensor, estimate: Tensor) -> Tensor:
        """The quality of estimates, `[batch]`, of waveforms `[batch, samples]`; the gradient is of the waveforms."""
        return self.network(reference, estimate)

    def observe(self, reference: Tensor, estimates: Iterable[Tensor], counts: Tensor) -> None:
        """Note what is to be learned from after the step.

        Args:
            reference: `[batch, samples]`.
            estimates: each `[batch, samples]`; their gradients are not followed.
            counts: `[batch]`, not 0 for items to learn from.
        """
        if self.is_learning:
            self._seen += [(reference.detach(), estimate.detach(), counts.detach()) for estimate in estimates]

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    def learn(self, step: int, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """As `Adversary.learn`, from the pairs of the step before.

        Returns:
            `discriminator`: mean squared error; `pesq_quality`: mean of the new pairs' scores, 0 to 1; `pesq_missing`:
            share of the new pairs that have none. Nothing where there was nothing to learn from.
        """
        pairs, scores = self._scorer.waiting, self._scorer.collect()
        self._scorer.submit(self._taken())
        if not self.is_learning:
            return {}
        fresh = [(pair, score) for pair, score in zip(pairs, scores, strict=True) if not math.isnan(score)]
        examples = [*fresh, *self._drawn(step, len(fresh)), *(((pair[0], pair[0]), 1.0) for pair, _ in fresh)]
        self._kept = [*self._kept, *fresh][-self._replay_size :] if self._replay_size else []
        error, gradient = self._gradient(examples)
        own = torch.tensor([len(examples), sum(score for _, score in fresh), len(fresh), len(pairs)])
        gradient, numbers = total(gradient), total(torch.cat([error[None], own.to(error)]).double())
        checked = torch.cat([numbers, gradient.isfinite().all().to(numbers)[None]])
        squares, count, quality, num_fresh, num_pairs, is_finite = checked.tolist()
        found = {"pesq_missing": 1 - num_fresh / num_pairs} if num_pairs else {}
        if count:
            if is_finite:
                self._update(gradient / count)
            found |= {"discriminator": squares / count, "pesq_quality": quality / num_fresh}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def memory(self) -> dict[str, Any]:
        waiting = [_as_tensor(pair) for pair in self._scorer.waiting]
        return {"waiting": waiting, "kept": [(_as_tensor(pair), score) for pair, score in self._kept]}

    def load_memory(self, memory: dict[str, Any]) -> None:
        self._scorer.submit([_as_pair(one) for one in memory["waiting"]])
        self._kept = [(_as_pair(one), float(score)) for one, score in memory["kept"]]

    def close(self) -> None:
        self._scorer.close()

    def _taken(self) -> list[Pair]:
        """The pairs noted since the last step, on the CPU."""
        seen, self._seen = self._seen, []
        pairs: list[Pair] = []
        for reference, estimate, counts in seen:
            chosen = counts.nonzero().squeeze(1)
            both = torch.stack([reference[chosen], estimate[chosen]], dim=1).float().cpu().numpy()
            pairs += [(both[item, 0], both[item, 1]) for item in range(len(both))]
        return pairs[: self._items_per_step]

    def _drawn(self, step: int, count: int) -> list[Scored]:
        """So many of the pairs that are kept, by chance, which is a function of the step."""
        count = min(count, len(self._kept))
        chosen = np.random.default_rng(step).choice(len(self._kept), count, replace=False) if count else []
        return [self._kept[index] for index in chosen]

    def _gradient(self, examples: list[Scored]) -> tuple[Tensor, Tensor]:
        """Sum of the squared errors, and its gradient as one vector; examples of one length together."""
        parameters = list(self.network.parameters())
        lengths: dict[int, list[Scored]] = defaultdict(list)
        for example in examples:
            lengths[len(example[0][0])].append(example)
        device = parameters[0].device
        error = torch.zeros((), device=device)
        self.network.requires_grad_(True).train()
        self.optimizer.zero_grad(set_to_none=True)
        for alike in lengths.values():
            both = torch.from_numpy(np.stack([np.stack(pair) for pair, _ in alike])).to(device)
            scores = torch.tensor([score for _, score in alike], device=device)
            squares = (self.network(both[:, 0], both[:, 1]) - scores).square().sum()
            squares.backward()
            error += squares.detach()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self.network.requires_grad_(False).eval()
        return error, torch.cat([gradient.flatten() for gradient in gradients])

    def _update(self, gradient: Tensor) -> None:
        """One step of the optimiser."""
        parameters = list(self.network.parameters())
        for parameter, own in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = own.view_as(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _as_tensor(pair: Pair) -> Tensor:
    return torch.from_numpy(np.stack(pair))


def _as_pair(both: Tensor) -> Pair:
    return both[0].numpy(), both[1].numpy()
