"""Long recordings made of trials: their mixtures one after the other, with or without a speaker.

Used by `bench/extract.py --what blocks` and `bench/presence_by_length.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class PresentTrial:
    """A rendered trial whose target is present, and its speakers.

    Attributes:
        audio: rendered (`simulation.TrialAudio`).
        speaker: of the target.
        speakers: of all its sources.
    """

    audio: Any
    speaker: str
    speakers: frozenset[str]


def read_present_trials(trial_list: Path, root: Path | None, limit: int | None, sample_rate: int) -> list[PresentTrial]:
    """Render clean trials of a list (LIST.csv and LIST.map_mixture2enrollment), at most `limit`, spread over it.

    Raises:
        InputError: there is no trial with its target present and its speakers known.
    """
    from wesep_py.data import read_trials
    from wesep_py.simulation.trial_audio import render_trial

    trials = read_trials(f"{trial_list}.csv", f"{trial_list}.map_mixture2enrollment", root)
    present = [trial for trial in trials if trial.target is not None and trial.target.speaker_id]
    if not present:
        raise InputError(f"{trial_list}: no trial has a target that is present and named; give another list")
    step = 1 if limit is None else max(1, -(-len(present) // limit))
    return [
        PresentTrial(
            render_trial(trial, "clean", sample_rate),
            str(trial.target and trial.target.speaker_id),
            frozenset(str(source.speaker_id) for source in trial.sources),
        )
        for trial in present[::step]
    ]


def concatenate_to(waveforms: Sequence[Waveform], num_samples: int) -> Waveform:
    """Return waveforms one after the other, repeated from the first if they are too short, `[num_samples]`.

    >>> concatenate_to([np.ones(2, np.float32), np.zeros(1, np.float32)], 5).tolist()
    [1.0, 1.0, 0.0, 1.0, 1.0]
    """
    return np.resize(np.concatenate(list(waveforms)), num_samples)


def mixtures_without(trials: Sequence[PresentTrial], speaker: str, rng: np.random.Generator) -> list[Waveform]:
    """Return the mixtures in which a speaker does not speak, in random order.

    Raises:
        InputError: there are none.
    """
    mixtures = [trial.audio.mixture for trial in trials if speaker not in trial.speakers]
    if not mixtures:
        raise InputError(f"{speaker} speaks in all of the trials; give a list of more, or a higher --limit")
    return [mixtures[i] for i in rng.permutation(len(mixtures))]
