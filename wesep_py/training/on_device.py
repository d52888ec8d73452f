"""Mixtures that workers draw and read, and the device that trains renders: `data.render: device`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch

from wesep_py.errors import WesepError
from wesep_py.simulation.on_device.batch import collate_dry
from wesep_py.simulation.on_device.draw import DryMixture, DrySimulator
from wesep_py.simulation.on_device.render import render_on_device
from wesep_py.training.data import FAILURE, FLAW, SimulatedMixtures, flaw_of
from wesep_py.training.task import Collate, Item

DRY = "dry"
"""The key of a mixture before rendering, and of a batch of them."""


class DryMixtures(SimulatedMixtures):
    """The mixtures of a `DrySimulator`, before rendering; `finish` renders a batch of them and makes its items.

    Args:
        simulator: gives the mixtures.
        speaker_labels: a whole number for each speaker_id.
        items: makes the items of a mixture; see `Task.items`.
    """

    simulator: DrySimulator

    def __getitem__(self, key: tuple[int, int]) -> list[Item]:
        try:
            mixture = self.simulator.dry(*key)
        except WesepError as error:
            return [{FAILURE: f"mixture {key[1]} of epoch {key[0]}: {error}"}]
        flaw = flaw_of(key, [mixture.waveforms()], mixture.plan)
        return [{DRY: mixture, **({FLAW: flaw} if flaw else {})}]

    def collated(self, collate: Collate) -> Callable[[Sequence[list[Item]]], dict[str, Any]]:
        """Padded tensors of all dry mixtures; the task's `collate` comes after rendering."""
        return partial(_collate, sample_rate=self.simulator.sample_rate)

    def finish(self, batch: dict[str, Any], collate: Collate) -> dict[str, torch.Tensor]:
        """The batch, rendered where it is."""
        samples = render_on_device(batch[DRY])
        device = samples[0].mixture.device
        made = collate([self.items(sample, self.speaker_labels) for sample in samples])
        return {name: value.to(device) for name, value in made.items()}


def _collate(mixtures: Sequence[list[Item]], sample_rate: int) -> dict[str, Any]:
    return {DRY: collate_dry([cast(DryMixture, items[0][DRY]) for items in mixtures], sample_rate)}
