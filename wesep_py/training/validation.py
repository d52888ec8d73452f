"""Validation during a run: extraction trials scored by SI-SDR, or speaker verification trials for an encoder."""

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
from wesep_py.data import FileReader, read_speech, read_trials
from wesep_py.data.embedding_files import Embeddings
from wesep_py.evaluation.verification import (
    OverlapRecording,
    VerificationTrials,
    count_accuracy,
    draw_overlap_recordings,
    embed,
    embed_voices,
    score_trials,
    verification_metrics,
)
from wesep_py.inference import Extractor
from wesep_py.metrics import METRICS, score
from wesep_py.network.extraction_network import TargetSpeakerExtractor, eval_mode
from wesep_py.network.speaker import SpeakerEncoder
from wesep_py.simulation import SimulationConfig, TrialAudio, render_trial
from wesep_py.training.data_config import ValidationConfig, VerificationConfig
from wesep_py.training.task import ValidationExample, ValidationResult, Validator, spread

SCORE_NAMES = METRICS["si_sdr"]
"""Numbers of an extraction trial: SI-SDR, SI-SDRi, accuracy, confusion."""
RECORDINGS_PER_COUNT = 50
"""Number of recordings for each number of speakers in which voices are counted."""


class ExtractionValidator(Validator):
    """Extracts a fixed list of trials as a user would, and scores them. Their audio is rendered once and cached.

    Args:
        config: names the trials.
        data_root: folder that its paths are relative to, if it names none itself.
        sample_rate: of the model, in Hz.
        rank, world_size: each process takes every `world_size`-th trial.
        embeddings: precomputed embeddings of the run, or `None`.

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
        trials = read_trials(
            _under_root(self.root, config.trials), _under_root(self.root, config.enrollment), self.root
        )
        present = [trial for trial in trials if trial.target_index is not None]
        if not present:
            raise ConfigError(f"validation.trials: {config.trials} has no trial whose target is present")
        self.trials = spread(present, config.limit)[rank::world_size]
        self.embeddings = embeddings
        if config.embeddings is not None:
            if embeddings is None:
                raise ConfigError("validation.embeddings: is of use with data.embeddings only; remove it, or name both")
            self.embeddings = Embeddings(_under_root(self.root, config.embeddings), embeddings.dim)
        for trial in self.trials if self.embeddings else ():
            self.embeddings.of_trial(trial)  # raises now, not at the first validation, if one is missing
        self._audio: dict[int, TrialAudio] = {}

    def validate(
        self, network: nn.Module, fabric: Fabric, num_examples: int, should_stop: Callable[[], bool]
    ) -> ValidationResult | None:
        assert isinstance(network, TargetSpeakerExtractor)
        scored = self.score_trials(network, fabric.device, num_examples, should_stop)
        if scored is None:
            return None
        scores, examples = scored
        # Ranks have different trials, and perhaps different numbers of them: sums are added up, then divided.
        sums = score_sums(scores)
        rank_sums = torch.tensor(list(sums.values()), dtype=torch.float64, device=fabric.device)
        total = fabric.all_reduce(rank_sums, reduce_op="sum")
        return ValidationResult(score_means(dict(zip(sums, total.tolist(), strict=True))), examples)

    def describe(self, numbers: Mapping[str, float]) -> str:
        missing = numbers.get("missing", 0)
        return (
            f"SI-SDRi {numbers['si_sdri']:.2f} dB, accuracy {numbers['accuracy']:.3f}, "
            f"confusion {numbers['confusion']:.3f} ({numbers['count']:.0f} {self.config.condition} trials of "
            f"{self.config.trials}"
            + (", live" if self.config.live else "")
            + (f", {missing:.0f} without a result)" if missing else ")")
        )

    def protocol(self) -> dict[str, Any]:
        config = self.config
        lists = {"trials": config.trials, "enrollment": config.enrollment}
        return {**lists, "condition": config.condition, "limit": config.limit, "live": config.live}

    def score_trials(
        self,
        network: TargetSpeakerExtractor,
        device: torch.device | str,
        num_examples: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[list[dict[str, float]], list[ValidationExample]] | None:
        """Extract and score the trials of this process.

        Args:
            network: in any mode, which is restored.
            device: on which the network is.
            num_examples: number of trials, spread over the list, whose audio is returned.
            should_stop: called before each trial; true ends the validation without a result.

        Returns:
            For each trial its numbers (`metrics.score`: SI-SDR, SI-SDRi, accuracy, confusion; empty if they cannot be
            computed), and the examples; or `None` if it was stopped.
        """
        example_indices = set(spread(range(len(self.trials)), num_examples)) if num_examples else set()
        scores: list[dict[str, float]] = []
        examples: list[ValidationExample] = []
        with eval_mode(network):
            extractor = Extractor(network, device, "validation", model_hash="validation", shifts=1)
            extractor = extractor.live() if self.config.live else extractor
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
                if index in example_indices:
                    name = f"{index:03d}_{file_name(trial.mixture_id)}_{trial.target_index}"
                    examples.append(ValidationExample(name, audio.mixture, audio.reference, estimate))
        return scores, examples

    def _extract(self, extractor: Extractor, audio: TrialAudio) -> NDArray[np.float32] | None:
        """Return the estimate `[samples]`; with a warning `None` if it is not finite, which must not end the run."""
        try:
            voice = extractor.enroll(*audio.enrollment_sources)
            return extractor.extract((audio.mixture, self.sample_rate), voice).waveform
        except WesepError as error:
            warnings.warn(f"a validation trial has no result: {error}", stacklevel=2)
            return None

    def _render(self, index: int) -> TrialAudio:
        if index not in self._audio:
            trial, condition = self.trials[index], self.config.condition
            self._audio[index] = render_trial(trial, condition, self.sample_rate, self.embeddings)
        return self._audio[index]


def score_sums(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the sums of the scores over the trials that have all of them.

    `count` is the number of these trials, `missing` the number of the others. Sums can be added up over processes.
    """
    complete = [values for values in scores if all(name in values for name in SCORE_NAMES)]
    sums = {name: sum(values[name] for values in complete) for name in SCORE_NAMES}
    return {"count": float(len(complete)), "missing": float(len(scores) - len(complete)), **sums}


def score_means(sums: Mapping[str, float]) -> dict[str, float]:
    """Return the means of the scores from `score_sums`; `accuracy` and `confusion` are shares, 0 to 1.

    >>> score_means({"count": 4.0, "missing": 1.0, "si_sdri": 20.0})
    {'count': 4.0, 'missing': 1.0, 'si_sdri': 5.0}
    """
    count = sums["count"]
    return {
        key: value if key in ("count", "missing") else value / count if count else float("nan")
        for key, value in sums.items()
    }


def _under_root(root: Path, name: str) -> Path:
    """Return the file under the root if there is one, else the name as a path."""
    return root / name if (root / name).exists() else Path(name)


class SpeakerValidator(Validator):
    """Speaker verification on all pairs of a manifest's utterances. Every process scores all of them.

    Args:
        config: names the utterances.
        data_root: folder that its paths are relative to, if it names none itself.
        sample_rate: of the encoder's waveforms, in Hz.
        counting: for an encoder that counts voices, the simulation that it learns from: recordings of one speaker, of
            two, and so on are made with its lengths, overlap and levels, without noise and rooms. Else `None`.

    Raises:
        InputError: the manifest is missing or malformed, or its utterances make no trials, or no mixtures.
    """

    measure, lower_is_better = "eer", True

    def __init__(
        self,
        config: VerificationConfig,
        data_root: str,
        sample_rate: int,
        counting: SimulationConfig | None = None,
    ) -> None:
        self.config, self.every_steps = config, config.every_steps
        root = Path(config.root if config.root is not None else data_root)
        self.utterances = spread(read_speech([config.manifest], root), config.limit)
        self.speaker_ids = [utterance.speaker_id for utterance in self.utterances]
        self.trials = VerificationTrials.all_pairs(self.speaker_ids)
        self.reader = FileReader(sample_rate)
        self.counting, self.speaker_counts = counting, range(0)
        self._recordings: list[OverlapRecording] | None = None
        if counting is not None:
            most = max(number for number, weight in counting.speaker_weights.items() if weight > 0)
            self.speaker_counts = range(1, max(2, most) + 1)
            # Draws nothing, but raises now if the manifest has too few speakers.
            draw_overlap_recordings(self.utterances, self.reader, self.speaker_counts[-1], 0, counting)

    def validate(
        self, network: nn.Module, fabric: Fabric, num_examples: int, should_stop: Callable[[], bool]
    ) -> ValidationResult | None:
        assert isinstance(network, SpeakerEncoder)
        embeddings = embed(network, self.utterances, self.reader, fabric.device)
        if should_stop():
            return None
        scores = score_trials(embeddings, self.trials)
        metrics = verification_metrics(scores, self.trials, self.speaker_ids, resamples=0)
        eer, cost = metrics["eer"].mean, metrics["min_dcf"].mean
        assert eer is not None and cost is not None
        num_trials = float(len(self.trials.test))
        counted = self._count_accuracy(network, fabric)
        return ValidationResult({"count": num_trials, "eer": eer, "min_dcf": cost, **counted})

    def describe(self, numbers: Mapping[str, float]) -> str:
        shares = ", ".join(
            f"{100 * numbers[f'count_accuracy_{number}']:.0f} % of {number}" for number in self.speaker_counts
        )
        return (
            f"EER {100 * numbers['eer']:.2f} %, minDCF {numbers['min_dcf']:.3f} "
            f"({numbers['count']:.0f} pairs of {self.config.manifest})"
            + (f", voices counted right: {shares}" if shares else "")
        )

    def protocol(self) -> dict[str, Any]:
        trials = {"manifest": self.config.manifest, "limit": self.config.limit, "pairs": "all"}
        if self.counting is None:
            return trials
        return {**trials, "counted_recordings": [RECORDINGS_PER_COUNT] * len(self.speaker_counts)}

    def _count_accuracy(self, network: SpeakerEncoder, fabric: Fabric) -> dict[str, float]:
        """Return `count_accuracy_1`, `count_accuracy_2`, …; empty if the encoder does not count voices."""
        if self.counting is None:
            return {}
        if self._recordings is None:
            self._recordings = [
                recording
                for number in self.speaker_counts
                for recording in draw_overlap_recordings(
                    self.utterances, self.reader, number, RECORDINGS_PER_COUNT, self.counting
                )
            ]
        accuracy = count_accuracy(self._recordings, embed_voices(network, self._recordings, fabric.device))
        return {f"count_accuracy_{number}": share for number, share in accuracy.items()}
