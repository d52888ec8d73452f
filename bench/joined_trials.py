"""Long recordings made of trials: their mixtures one after the other, some with a voice in them and some without."""

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
class Piece:
    """A trial whose target is there, and who speaks in it.

    Attributes:
        audio: rendered (`simulation.TrialAudio`).
        speaker: of the target.
        speakers: of all its sources.
    """

    audio: Any
    speaker: str
    speakers: frozenset[str]


def read_pieces(listed: Path, root: Path | None, limit: int | None, sample_rate: int) -> list[Piece]:
    """Clean trials of a list (LIST.csv and LIST.map_mixture2enrollment), `limit` of them, spread over it.

    Raises:
        InputError: none whose speakers are known has its target in it.
    """
    from wesep_py.data import read_trials
    from wesep_py.simulation.trial_audio import render_trial

    trials = read_trials(f"{listed}.csv", f"{listed}.map_mixture2enrollment", root)
    there = [trial for trial in trials if trial.target is not None and trial.target.speaker_id]
    if not there:
        raise InputError(f"{listed}: no trial has its target in it, and says who that is; give another list")
    step = 1 if limit is None else max(1, -(-len(there) // limit))
    return [
        Piece(
            render_trial(trial, "clean", sample_rate),
            str(trial.target and trial.target.speaker_id),
            frozenset(str(source.speaker_id) for source in trial.sources),
        )
        for trial in there[::step]
    ]


def join(parts: Sequence[Waveform], num_samples: int) -> Waveform:
    """The parts one after the other, again from the first on where they end early, `[num_samples]`.

    >>> join([np.ones(2, np.float32), np.zeros(1, np.float32)], 5).tolist()
    [1.0, 1.0, 0.0, 1.0, 1.0]
    """
    whole = np.concatenate(list(parts))
    return np.resize(whole, num_samples)


def others(pieces: Sequence[Piece], speaker: str, rng: np.random.Generator) -> list[Waveform]:
    """The mixtures in which somebody does not speak, in an order of the moment.

    Raises:
        InputError: there are none.
    """
    found = [piece.audio.mixture for piece in pieces if speaker not in piece.speakers]
    if not found:
        raise InputError(f"{speaker} speaks in all of the trials; give a list of more, or a higher --limit")
    return [found[i] for i in rng.permutation(len(found))]
