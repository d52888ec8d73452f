"""Validation: a fixed list of trials, extracted as a user would, scored by SI-SDR."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from wesep_py.common.errors import ConfigError, WesepError
from wesep_py.common.names import file_name
from wesep_py.data import read_trials
from wesep_py.data.embedding_files import Embeddings
from wesep_py.inference import Extractor
from wesep_py.metrics import METRICS, score
from wesep_py.network.extraction_network import TargetSpeakerExtractor, eval_mode
from wesep_py.simulation import TrialAudio, render_trial
from wesep_py.training.task import Example, Judge, Verdict
from wesep_py.training.training_config import ValidationConfig

SCORES = METRICS["si_sdr"]


class Validation(Judge):
    """The trials of a configuration; their audio is rendered once and kept.

    Args:
        config: which trials.
        data_root: the folder its paths are relative to where it names none.
        sample_rate: of the model, in Hz.
        rank, world_size: each process takes every `world_size`-th trial.
        embeddings: the run's precomputed ones, or `None`.

    Raises:
        InputError: the lists are missing or malformed, or an enrollment has no embedding.
        ConfigError: no trial of the lists has its target present; embeddings for a model that takes none.
    """

    measure = "si_sdri"

    def __init__(
        self,
        config: ValidationConfig,
        data_root: str,
        sample_rate: int,
        rank: int = 0,
        world_size: int = 1,
        embeddings: Embeddings | None = None,
    ) -> None:
        self.config, self.every_steps = config, config.every_steps
        self.sample_rate = sample_rate
        self.root = Path(config.root if config.root is not None else data_root)
        trials = read_trials(_find(self.root, config.trials), _find(self.root, config.enrollment), self.root)
        present = [trial for trial in trials if trial.target_index is not None]
        if not present:
            raise ConfigError(f"validation.trials: {config.trials} has no trial whose target is present")
        self.trials = spread(present, config.limit)[rank::world_size]
        self.embeddings = embeddings
        if config.embeddings is not None:
            if embeddings is None:
                raise ConfigError("validation.embeddings: is of use with data.embeddings only; remove it, or name both")
            self.embeddings = Embeddings(_find(self.root, config.embeddings), embeddings.dim)
        for trial in self.trials if self.embeddings else ():
            self.embeddings.of_trial(trial)
        self._audio: dict[int, TrialAudio] = {}

    def judge(
        self, network: nn.Module, fabric: Fabric, num_examples: int, should_stop: Callable[[], bool]
    ) -> Verdict | None:
        assert isinstance(network, TargetSpeakerExtractor)
        found = self.run(network, fabric.device, num_examples, should_stop)
        if found is None:
            return None
        scores, examples = found
        sums = summarise(scores)
        own = torch.tensor(list(sums.values()), dtype=torch.float64, device=fabric.device)
        added = fabric.all_reduce(own, reduce_op="sum")
        numbers = means(dict(zip(sums, added.tolist(), strict=True)))
        return Verdict(numbers, examples)

    def describe(self, numbers: Mapping[str, float]) -> str:
        missing = numbers.get("missing", 0)
        return (
            f"SI-SDRi {numbers['si_sdri']:.2f} dB, accuracy {numbers['accuracy']:.3f}, "
            f"confusion {numbers['confusion']:.3f} ({numbers['count']:.0f} {self.config.condition} trials of "
            f"{self.config.trials}" + (f", {missing:.0f} without a result)" if missing else ")")
        )

    def protocol(self) -> dict[str, Any]:
        config = self.config
        chosen = {"trials": config.trials, "enrollment": config.enrollment}
        return {**chosen, "condition": config.condition, "limit": config.limit}

    def run(
        self,
        network: TargetSpeakerExtractor,
        device: torch.device | str,
        num_examples: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[list[dict[str, float]], list[Example]] | None:
        """Extract and score the trials.

        Args:
            network: in any mode; it comes back in the mode it had.
            device: on which it is.
            num_examples: so many trials, spread over the list, are returned to be looked at.
            should_stop: asked before each trial; true ends the validation without a result.

        Returns:
            For each trial its numbers (`metrics.score`: SI-SDR, SI-SDRi, accuracy, confusion; none of them where
            they cannot be computed) and the examples; or none if it was stopped.
        """
        wanted = set(spread(range(len(self.trials)), num_examples)) if num_examples else set()
        scores: list[dict[str, float]] = []
        examples: list[Example] = []
        with eval_mode(network):
            extractor = Extractor(network, device, "validation", model_hash="validation")
            for index, trial in enumerate(self.trials):
                if should_stop():
                    return None
                audio = self._render(index)
                estimate = self._extract(extractor, audio)
                if estimate is None:
                    scores.append({})
                    continue
                scores.append(
                    score(
                        estimate,
                        audio.reference,
                        self.sample_rate,
                        mixture=audio.mixture,
                        interferers=audio.interferers,
                    ).values
                )
                if index in wanted:
                    name = f"{index:03d}_{file_name(trial.mixture_id)}_{trial.target_index}"
                    examples.append(Example(name, audio.mixture, audio.reference, estimate))
        return scores, examples

    def _extract(self, extractor: Extractor, audio: TrialAudio) -> NDArray[np.float32] | None:
        """The estimate `[samples]`; none where the network gives nothing that is finite, which is no reason to end."""
        try:
            voice = extractor.enroll(*audio.introduction)
            return extractor.extract((audio.mixture, self.sample_rate), voice).waveform
        except WesepError as error:
            warnings.warn(f"a validation trial has no result: {error}", stacklevel=2)
            return None

    def _render(self, index: int) -> TrialAudio:
        if index not in self._audio:
            trial, condition = self.trials[index], self.config.condition
            self._audio[index] = render_trial(trial, condition, self.sample_rate, self.embeddings)
        return self._audio[index]


def summarise(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sums over the trials that have all numbers, and how many have and have not; sums add up over processes."""
    whole = [values for values in scores if all(name in values for name in SCORES)]
    sums = {name: sum(values[name] for values in whole) for name in SCORES}
    return {"count": float(len(whole)), "missing": float(len(scores) - len(whole)), **sums}


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """The means that the sums of `summarise` stand for; `accuracy` and `confusion` are shares, 0 to 1.

    >>> means({"count": 4.0, "missing": 1.0, "si_sdri": 20.0})
    {'count': 4.0, 'missing': 1.0, 'si_sdri': 5.0}
    """
    count = sums["count"]
    return {
        key: value if key in ("count", "missing") else value / count if count else float("nan")
        for key, value in sums.items()
    }


def spread(items: Sequence[Any], limit: int | None) -> list[Any]:
    """At most `limit` of the items, evenly spaced over the list.

    >>> spread([0, 1, 2, 3, 4, 5], 3)
    [0, 2, 4]
    """
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]


def _find(root: Path, name: str) -> Path:
    """The file under the root; as it stands where the root has none."""
    return root / name if (root / name).exists() else Path(name)
