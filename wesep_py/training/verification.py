"""Validation of a speaker encoder: all pairs of a manifest's utterances as trials of speaker verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from wesep_py.corpus import FileReader, read_speech
from wesep_py.evaluation.overlap_verification import (
    OverlapRecording,
    count_accuracy,
    draw_recordings,
    embed_voices,
)
from wesep_py.evaluation.verification import Trials, embed, figures, score_trials
from wesep_py.simulation import SimulationConfig
from wesep_py.speaker import SpeakerEncoder
from wesep_py.training.config import VerificationConfig
from wesep_py.training.task import Judge, Verdict
from wesep_py.training.validate import spread

NUM_COUNTED = 50
"""Recordings of each number of speakers in which voices are counted."""


class Verification(Judge):
    """Trials of speaker verification; every process scores them all, and finds the same.

    Args:
        config: which utterances.
        data_root: the folder its paths are relative to where it names none.
        sample_rate: of the encoder's waveforms, in Hz.
        counted: where the encoder is to count voices: the simulation that it learns from, of whose lengths, overlap
            and levels recordings of one speaker, of two, and so on are made, without noise and rooms.

    Raises:
        InputError: the manifest is missing or malformed, or its utterances make no trials, or no mixtures.
    """

    measure, lower_is_better = "eer", True

    def __init__(
        self,
        config: VerificationConfig,
        data_root: str,
        sample_rate: int,
        counted: SimulationConfig | None = None,
    ) -> None:
        self.config, self.every_steps = config, config.every_steps
        root = Path(config.root if config.root is not None else data_root)
        self.utterances = spread(read_speech([config.manifest], root), config.limit)
        self.speaker_ids = [utterance.speaker_id for utterance in self.utterances]
        self.trials = Trials.all_pairs(self.speaker_ids)
        self.reader = FileReader(sample_rate)
        self.counted, self.numbers = counted, range(0)
        self._recordings: list[OverlapRecording] | None = None
        if counted is not None:
            most = max(number for number, weight in counted.speaker_weights.items() if weight > 0)
            self.numbers = range(1, max(2, most) + 1)
            draw_recordings(self.utterances, self.reader, self.numbers[-1], 0, counted)

    def judge(
        self, network: nn.Module, fabric: Fabric, num_examples: int, should_stop: Callable[[], bool]
    ) -> Verdict | None:
        assert isinstance(network, SpeakerEncoder)
        embeddings = embed(network, self.utterances, self.reader, fabric.device)
        if should_stop():
            return None
        found = figures(score_trials(embeddings, self.trials), self.trials, self.speaker_ids, resamples=0)
        eer, cost = found["eer"].mean, found["min_dcf"].mean
        assert eer is not None and cost is not None
        counted = self._count(network, fabric)
        return Verdict({"count": float(len(self.trials.test)), "eer": eer, "min_dcf": cost, **counted})

    def describe(self, numbers: Mapping[str, float]) -> str:
        shares = ", ".join(f"{100 * numbers[f'count_accuracy_{number}']:.0f} % of {number}" for number in self.numbers)
        return (
            f"EER {100 * numbers['eer']:.2f} %, minDCF {numbers['min_dcf']:.3f} "
            f"({numbers['count']:.0f} pairs of {self.config.manifest})"
            + (f", voices counted right: {shares}" if shares else "")
        )

    def protocol(self) -> dict[str, Any]:
        told = {"manifest": self.config.manifest, "limit": self.config.limit, "pairs": "all"}
        return told if self.counted is None else {**told, "counted_recordings": [NUM_COUNTED] * len(self.numbers)}

    def _count(self, network: SpeakerEncoder, fabric: Fabric) -> dict[str, float]:
        """`count_accuracy_1`, `count_accuracy_2`, …; nothing where the encoder does not count."""
        if self.counted is None:
            return {}
        if self._recordings is None:
            self._recordings = [
                recording
                for number in self.numbers
                for recording in draw_recordings(self.utterances, self.reader, number, NUM_COUNTED, self.counted)
            ]
        found = count_accuracy(self._recordings, embed_voices(network, self._recordings, fabric.device))
        return {f"count_accuracy_{number}": share for number, share in found.items()}
