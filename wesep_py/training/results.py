"""The models a run gives: checkpoints named `best`, `last` and `average`, each with its provenance and card."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wesep_py import checkpoint
from wesep_py.config import to_plain
from wesep_py.corpus import Utterance
from wesep_py.errors import CheckpointError
from wesep_py.training.config import RunConfig
from wesep_py.training.experiment import Experiment
from wesep_py.training.provenance import git_state
from wesep_py.training.state import Progress
from wesep_py.training.task import Task


@dataclass(frozen=True)
class CorpusSummary:
    """How much speech a model was trained on."""

    utterances: int
    speakers: int
    hours: float

    @classmethod
    def of(cls, utterances: Sequence[Utterance]) -> CorpusSummary:
        """The summary of a list of utterances."""
        speakers = {utterance.speaker_id for utterance in utterances}
        return cls(len(utterances), len(speakers), round(sum(u.duration_s for u in utterances) / 3600, 3))

    def __str__(self) -> str:
        return f"{self.hours} h of {self.speakers} speakers" if self.utterances else "a stream of shards"


class Results:
    """Writes the checkpoints of a run.

    Args:
        experiment: where to.
        config: the run's.
        task: what is trained.
        corpus: what was trained on.
        data: hashes of its manifests.
        went_on_from: the `lineage` of the weights with which the run began.
    """

    def __init__(
        self,
        experiment: Experiment,
        config: RunConfig,
        task: Task,
        corpus: CorpusSummary,
        data: Mapping[str, str] | None = None,
        went_on_from: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._experiment = experiment
        self._config = config
        self._task = task
        self.corpus = corpus
        self._data = dict(data or {})
        self._git = git_state()
        self._went_on_from = list(went_on_from)

    def save(
        self,
        name: str,
        state_dict: Mapping[str, torch.Tensor],
        progress: Progress,
        validation: Mapping[str, float] | None = None,
        averaged: int = 1,
    ) -> None:
        """Write `checkpoints/name`.

        Args:
            name: `best`, `last` or `average`.
            state_dict: of all that is trained.
            progress: where the run stood.
            validation: the numbers of these weights, if they were validated.
            averaged: of how many snapshots the weights are the mean.
        """
        training = {key: value for key, value in to_plain(self._config).items() if key not in ("model", "speaker")}
        provenance: dict[str, Any] = {
            "made_by": "wesep train",
            "command": sys.argv,
            "step": progress.step,
            "mixtures": progress.position,
            "hours_trained": round(progress.elapsed_s / 3600, 3),
            "snapshots_averaged": averaged,
            "corpus": to_plain(self.corpus),
            "data": self._data,
            "git": self._git,
            "validation": None if validation is None else self._protocol(validation),
            "training": training,
            "went_on_from": self._went_on_from,
        }
        checkpoint.save(
            self._experiment.checkpoints / name,
            self._task.checkpoint_config,
            {key: tensor.detach().cpu() for key, tensor in self._task.exported(state_dict).items()},
            provenance,
            self._card(name, provenance),
            keep_others=True,
        )

    def is_final(self, progress: Progress) -> bool:
        """Whether the run's `average` is of the step at which it stands."""
        try:
            provenance = checkpoint.load(self._experiment.checkpoints / "average").provenance
        except CheckpointError:
            return False
        return bool(provenance.get("step") == progress.step)

    def _protocol(self, validation: Mapping[str, float]) -> dict[str, Any]:
        assert self._task.judge is not None
        numbers = {key: round(value, 4) for key, value in validation.items() if math.isfinite(value)}
        return {**numbers, "trials": self._task.judge.protocol()}

    def _card(self, name: str, provenance: Mapping[str, Any]) -> str:
        corpus, validation = self.corpus, provenance["validation"]
        lines = [
            f"# {self._experiment.folder.name} ({name})",
            "",
            self._task.title,
            "",
            f"- trained for {provenance['step']} steps ({provenance['hours_trained']} h) on mixtures simulated from "
            f"{corpus} ({', '.join(self._config.data.sources)})",
        ]
        if provenance["snapshots_averaged"] > 1:
            lines.append(f"- weights: the mean of {provenance['snapshots_averaged']} snapshots")
        if validation is not None and self._task.judge is not None:
            lines.append(f"- validation: {self._task.judge.describe(validation)}")
        return "\n".join(lines) + "\n"
