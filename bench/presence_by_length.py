"""What the length of a recording does to the probability that a voice is in it.

    python bench/presence_by_length.py --model exp/mine --trials ../shared/data/trials/dev_2mix --root ../shared/data

A recording's score is that of its surest half second. The longer it is, the higher the surest half second of a voice
that is not in it. Here a voice is looked for in a long recording made of the mixtures of others, one after the other,
in which it is absent; and in the same with one mixture in which it speaks (the 30 s around that are extracted anew).
Shorter recordings are stretches of the long one: their scores come from its frames.

Prints Markdown: false alarms and lost voices by length, at the model's own calibration; then, for other ways to pool
frames, how well present and absent tell apart (AUC) and the mean score of the absent. `log` grows with the length:
0.5 s in 5 s, and as much again for each doubling.

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
from bench.joined_trials import Piece, join, others, read_pieces
from wesep_py.common.errors import InputError
from wesep_py.inference.presence import PRESENCE_S, Calibration, pool_logits

CONTEXT_S = 30.0
POOLINGS: dict[str, Callable[[float], float]] = {
    "0.5 s": lambda length_s: PRESENCE_S,
    "1 s": lambda length_s: 1.0,
    "2 s": lambda length_s: 2.0,
    "log": lambda length_s: PRESENCE_S * (1.0 + max(0.0, math.log2(length_s / 5.0))),
}
"""Seconds of the surest frames that a recording of a length is judged by; the first is what `extract` does."""


@dataclass(frozen=True)
class Tracks:
    """The frames' logits of one voice.

    Attributes:
        absent: of the long recording without it, `[frames]`.
        present: of the same with it.
        at_s: where its mixture begins and ends there, in seconds.
        frame_s: seconds from one frame to the next.
    """

    absent: NDArray[np.float32]
    present: NDArray[np.float32]
    at_s: tuple[float, float]
    frame_s: float


def tracks_of(extractor: Any, piece: Piece, pieces: Sequence[Piece], length_s: float, seed: int) -> Tracks:
    """Look for the target of `piece` in a recording without it, and in the same with `piece` somewhere.

    Raises:
        InputError: the model has no presence head.
    """
    rate, rng = extractor.sample_rate, np.random.default_rng(seed)
    voice = extractor.enroll((piece.audio.enrollment, rate))
    recording = join(others(pieces, piece.speaker, rng), round(length_s * rate))
    found = extractor.extract((recording, rate), voice).detection
    if found is None:
        raise InputError(f"{extractor.name}: has no presence head; name a model that has one")
    stride = round(found.frame_s * rate)
    mixture = piece.audio.mixture[: len(recording)]
    begin = int(rng.integers(0, len(recording) - len(mixture) + 1))
    around = max(0, min(begin + len(mixture) // 2 - round(CONTEXT_S * rate / 2), len(recording) - len(mixture)))
    start = min(around, begin) // stride * stride
    stop = max(min(len(recording), start + round(CONTEXT_S * rate)), begin + len(mixture))
    context = recording[start:stop].copy()
    context[begin - start : begin - start + len(mixture)] = mixture
    anew = extractor.extract((context, rate), voice).detection.logits
    present, first = found.logits.copy(), start // stride
    anew = anew[: min(len(anew), len(present) - first)]
    present[first : first + len(anew)] = anew
    return Tracks(found.logits, present, (begin / rate, (begin + len(mixture)) / rate), found.frame_s)


def scores(
    tracks: Sequence[Tracks], length_s: float, pool: Callable[[float], float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of all stretches of a length without the voice, and of one a voice with it."""
    absent, present = [], []
    for one in tracks:
        count = round(length_s / one.frame_s)
        whole = [one.absent[k : k + count] for k in range(0, max(1, len(one.absent) - count + 1), count)]
        absent += [pool_logits(part, one.frame_s, pool(length_s)) for part in whole]
        middle_s, last = sum(one.at_s) / 2, max(0, len(one.present) - count)
        first = min(last, max(0, round((middle_s - length_s / 2) / one.frame_s)))
        present.append(pool_logits(one.present[first : first + count], one.frame_s, pool(length_s)))
    return np.array(absent), np.array(present)


def auc(absent: NDArray[np.float64], present: NDArray[np.float64]) -> float:
    """How often a present voice has a higher score than an absent one.

    >>> auc(np.array([0.0, 1.0]), np.array([2.0, 0.5]))
    0.75
    """
    higher = (present[:, None] > absent).mean() + 0.5 * (present[:, None] == absent).mean()
    return float(higher)


def report(tracks: Sequence[Tracks], lengths_s: Sequence[float], calibration: Calibration) -> str:
    """The two tables."""
    rows, ways = [], []
    for length_s in lengths_s:
        absent, present = scores(tracks, length_s, POOLINGS["0.5 s"])
        alarms, found = (
            np.array([calibration.probability(score, length_s) >= calibration.threshold for score in each])
            for each in (absent, present)
        )
        rows.append(
            (
                f"{length_s:g} s",
                f"{100 * alarms.mean():.1f} % of {len(absent)}",
                f"{100 * (~found).mean():.1f} % of {len(present)}",
            )
        )
        for name, pool in POOLINGS.items():
            absent, present = scores(tracks, length_s, pool)
            ways.append((f"{length_s:g} s", name, f"{auc(absent, present):.3f}", f"{absent.mean():.2f}"))
    return "\n".join(
        [
            table(("recording", "false alarms", "lost"), rows),
            table(("recording", "frames pooled", "AUC", "mean score of the absent"), ways),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or folder; the bundled one by default")
    parser.add_argument("--trials", type=Path, metavar="LIST", required=True, help="LIST.csv and its map")
    parser.add_argument("--root", type=Path, help="where paths of the list start")
    parser.add_argument("--limit", type=int, default=200, help="trials that recordings are made of; 200")
    parser.add_argument("--voices", type=int, default=8, help="voices that are looked for; 8")
    parser.add_argument("--lengths-s", nargs="+", type=float, default=[10.0, 60.0, 600.0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import torch

    import wesep_py

    torch.set_num_threads(arguments.threads)
    extractor = wesep_py.load(arguments.model, "cpu")
    pieces = read_pieces(arguments.trials, arguments.root, arguments.limit, extractor.sample_rate)
    print(f"`python bench/presence_by_length.py {' '.join(sys.argv[1:])}`\n", flush=True)
    chosen = pieces[:: max(1, len(pieces) // arguments.voices)][: arguments.voices]
    longest_s = max(arguments.lengths_s)
    tracks = [
        tracks_of(extractor, piece, pieces, longest_s, arguments.seed + number) for number, piece in enumerate(chosen)
    ]
    print(report(tracks, sorted(arguments.lengths_s), extractor.calibration))


if __name__ == "__main__":
    main()
