"""Measure a personal VAD, or a presence head, on a simulated corpus of conversations: frame error, F1, time.

    wesep simulate recipes/default/conversations.yaml root=DATA --count 20 -o conversations
    python bench/when.py --corpus conversations --model exp/presence [--extract base]

Each line of the corpus' `map_mixture2enrollment` is a trial. Its frames are those of the labels in `activity/`, 20 ms
(`metrics.timing.FRAME_S`); the target speaks in a frame whose probability is 0.5 or more. With `--extract`, the time of
`extract` with that model on the same trials is measured too. One thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np


def frames_of(track: np.ndarray, step_s: float, num_frames: int, frame_s: float) -> np.ndarray:
    """Return the value of a track in the middle of each frame, interpolated between its steps.

    >>> frames_of(np.array([0.0, 1.0]), 0.02, 3, 0.02)
    array([0.5, 1. , 1. ])
    """
    middles = (np.arange(num_frames) + 0.5) * frame_s
    return np.interp(middles, np.arange(len(track)) * step_s, track)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--extract", default=None, metavar="MODEL")
    parser.add_argument("--condition", choices=["mix_clean", "mix_both"], default="mix_both")
    parser.add_argument("--limit", type=int, default=None)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    from wesep_py import load
    from wesep_py.audio import read_mono
    from wesep_py.data.trials import ABSENT
    from wesep_py.evaluation.activity_labels import read_labels
    from wesep_py.inference.presence_detector import load_detector
    from wesep_py.metrics.timing import FRAME_S

    corpus = arguments.corpus
    detector = load_detector(arguments.model, "cpu")
    extractor = None if arguments.extract is None else load(arguments.extract, "cpu", verify="none")
    lines = [line.split() for line in (corpus / "map_mixture2enrollment").read_text().splitlines()][: arguments.limit]
    sums = dict.fromkeys(("hits", "missed", "false", "frames"), 0)
    seconds = {"audio": 0.0, "when": 0.0, "extract": 0.0}
    for mixture_id, target, enrollment in lines:
        mixture = read_mono(corpus / arguments.condition / f"{mixture_id}.wav", detector.sample_rate)
        recording = (mixture, detector.sample_rate)
        voice = detector.enroll(corpus / enrollment)
        began_s = time.perf_counter()
        presence = detector.detect(recording, voice)
        seconds["when"] += time.perf_counter() - began_s
        seconds["audio"] += len(mixture) / detector.sample_rate
        speaks = np.zeros(round(len(mixture) / detector.sample_rate / FRAME_S), dtype=bool)
        if target != ABSENT:
            labels = read_labels(corpus / "activity" / f"{mixture_id}.rttm")
            speaks = labels.activity(mixture_id, [target, target.rsplit("-", 1)[0]], len(mixture), detector.sample_rate)
        found = frames_of(presence.track, presence.frame_s, len(speaks), FRAME_S) >= 0.5
        sums["hits"] += int((found & speaks).sum())
        sums["missed"] += int((~found & speaks).sum())
        sums["false"] += int((found & ~speaks).sum())
        sums["frames"] += len(speaks)
        if extractor is not None:
            voice = extractor.enroll(corpus / enrollment)
            began_s = time.perf_counter()
            extractor.extract(recording, voice)
            seconds["extract"] += time.perf_counter() - began_s
    wrong = sums["missed"] + sums["false"]
    result = {
        "model": detector.name,
        "trials": len(lines),
        "frame_error": round(wrong / sums["frames"], 4),
        "f1": round(2 * sums["hits"] / max(1, 2 * sums["hits"] + wrong), 4),
        "share_of_speech": round((sums["hits"] + sums["missed"]) / sums["frames"], 4),
        "rtf": round(seconds["when"] / seconds["audio"], 5),
    }
    if extractor is not None:
        result["extract_rtf"] = round(seconds["extract"] / seconds["audio"], 5)
        result["time_of_extract"] = round(seconds["when"] / seconds["extract"], 4)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
