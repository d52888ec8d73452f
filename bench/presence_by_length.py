"""Measure how the length of a recording changes the probability that a voice is in it.

    python bench/presence_by_length.py --model exp/mine --trials ../shared/data/trials/dev_2mix --root ../shared/data

A recording's score is that of the half second with the highest logits. The longer the recording, the higher is the
score of a voice that is not in it. This script extracts a voice from a long recording in which it is absent, made of
the mixtures of others one after the other; and from the same recording with one mixture in which it speaks (only the
30 s around that are extracted again). Shorter recordings are segments of the long one: their scores come from its
frames.

Prints Markdown: false alarms and missed voices by length, at the model's own calibration; then, for other ways to pool
frames, the AUC of present against absent voices and the mean score of the absent. `log` pools more in longer
recordings: 0.5 s in 5 s, and 0.5 s more for each doubling.

Processor time: that of extracting VOICES recordings of the greatest length; with the defaults (8 of 600 s) and a model
of RTF 0.1, 8 minutes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.extract import table
from bench.joined_trials import PresentTrial, concatenate_to, mixtures_without, read_present_trials
from wesep_py.common.errors import InputError
from wesep_py.inference.presence_decision.presence import PRESENCE_S, Calibration, pool_logits

CONTEXT_S = 30.0
POOLINGS: dict[str, Callable[[float], float]] = {
    "0.5 s": lambda length_s: PRESENCE_S,
    "1 s": lambda length_s: 1.0,
    "2 s": lambda length_s: 2.0,
    "log": lambda length_s: PRESENCE_S * (1.0 + max(0.0, math.log2(length_s / 5.0))),
}
"""Number of seconds whose logits are pooled, as a function of the length of the recording. `extract` uses the first."""


@dataclass(frozen=True)
class Tracks:
    """Logits of the frames for one voice.

    Attributes:
        absent: of the long recording without the voice, `[frames]`.
        present: of the same recording with it.
        at_s: start and end of the mixture with the voice, in seconds.
        frame_s: seconds from one frame to the next.
    """

    absent: NDArray[np.float32]
    present: NDArray[np.float32]
    at_s: tuple[float, float]
    frame_s: float


def tracks_of(
    extractor: Any, trial: PresentTrial, trials: Sequence[PresentTrial], length_s: float, seed: int
) -> Tracks:
    """Return the logits for the target of `trial` in a recording without it, and in the same with `trial` somewhere.

    Raises:
        InputError: the model has no presence head.
    """
    rate, rng = extractor.sample_rate, np.random.default_rng(seed)
    voice = extractor.enroll((trial.audio.enrollment, rate))
    recording = concatenate_to(mixtures_without(trials, trial.speaker, rng), round(length_s * rate))
    detection = extractor.extract((recording, rate), voice).detection
    if detection is None:
        raise InputError(f"{extractor.name}: has no presence head; name a model that has one")
    stride = round(detection.frame_s * rate)
    mixture = trial.audio.mixture[: len(recording)]
    # The context of 30 s lies around the middle of the mixture, within the recording, and starts at a frame:
    #
    #   recording  |------------------------------------------------|
    #   context           start |--------- 30 s --------| stop
    #   mixture                   begin |------|
    begin = int(rng.integers(0, len(recording) - len(mixture) + 1))
    around = max(0, min(begin + len(mixture) // 2 - round(CONTEXT_S * rate / 2), len(recording) - len(mixture)))
    start = min(around, begin) // stride * stride
    stop = max(min(len(recording), start + round(CONTEXT_S * rate)), begin + len(mixture))
    context = recording[start:stop].copy()
    context[begin - start : begin - start + len(mixture)] = mixture
    logits = extractor.extract((context, rate), voice).detection.logits
    present, first = detection.logits.copy(), start // stride
    logits = logits[: min(len(logits), len(present) - first)]
    present[first : first + len(logits)] = logits
    return Tracks(detection.logits, present, (begin / rate, (begin + len(mixture)) / rate), detection.frame_s)


def scores(
    tracks: Sequence[Tracks], length_s: float, pool: Callable[[float], float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of all segments of a length without the voice, and of one segment per voice with it."""
    absent, present = [], []
    for track in tracks:
        count = round(length_s / track.frame_s)
        segments = [track.absent[k : k + count] for k in range(0, max(1, len(track.absent) - count + 1), count)]
        absent += [pool_logits(segment, track.frame_s, pool(length_s)) for segment in segments]
        middle_s, last = sum(track.at_s) / 2, max(0, len(track.present) - count)
        first = min(last, max(0, round((middle_s - length_s / 2) / track.frame_s)))
        present.append(pool_logits(track.present[first : first + count], track.frame_s, pool(length_s)))
    return np.array(absent), np.array(present)


def auc(absent: NDArray[np.float64], present: NDArray[np.float64]) -> float:
    """Return how often a present voice has a higher score than an absent one.

    >>> auc(np.array([0.0, 1.0]), np.array([2.0, 0.5]))
    0.75
    """
    higher = (present[:, None] > absent).mean() + 0.5 * (present[:, None] == absent).mean()
    return float(higher)


def report(tracks: Sequence[Tracks], lengths_s: Sequence[float], calibration: Calibration) -> str:
    """Return the two tables."""
    rows, pooling_rows = [], []
    for length_s in lengths_s:
        absent, present = scores(tracks, length_s, POOLINGS["0.5 s"])
        alarms, detected = (
            np.array([calibration.probability(score, length_s) >= calibration.threshold for score in each])
            for each in (absent, present)
        )
        rows.append(
            (
                f"{length_s:g} s",
                f"{100 * alarms.mean():.1f} % of {len(absent)}",
                f"{100 * (~detected).mean():.1f} % of {len(present)}",
            )
        )
        for name, pool in POOLINGS.items():
            absent, present = scores(tracks, length_s, pool)
            pooling_rows.append((f"{length_s:g} s", name, f"{auc(absent, present):.3f}", f"{absent.mean():.2f}"))
    return "\n".join(
        [
            table(("recording", "false alarms", "missed"), rows),
            table(("recording", "frames pooled", "AUC", "mean score of the absent"), pooling_rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or folder; the bundled one by default")
    parser.add_argument("--trials", type=Path, metavar="LIST", required=True, help="LIST.csv and its map")
    parser.add_argument("--root", type=Path, help="where paths of the list start")
    parser.add_argument("--limit", type=int, default=200, help="trials that recordings are made of; 200")
    parser.add_argument("--voices", type=int, default=8, help="number of voices to extract; 8")
    parser.add_argument("--lengths-s", nargs="+", type=float, default=[10.0, 60.0, 600.0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import torch

    import wesep_py

    torch.set_num_threads(arguments.threads)
    extractor = wesep_py.load(arguments.model, "cpu")
    trials = read_present_trials(arguments.trials, arguments.root, arguments.limit, extractor.sample_rate)
    print(f"`python bench/presence_by_length.py {' '.join(sys.argv[1:])}`\n", flush=True)
    targets = trials[:: max(1, len(trials) // arguments.voices)][: arguments.voices]
    longest_s = max(arguments.lengths_s)
    tracks = [
        tracks_of(extractor, trial, trials, longest_s, arguments.seed + number) for number, trial in enumerate(targets)
    ]
    print(report(tracks, sorted(arguments.lengths_s), extractor.calibration))


if __name__ == "__main__":
    main()
