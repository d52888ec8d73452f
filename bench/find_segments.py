"""Measure how often a segment that `wesep find` lists is truly of one person alone.

    python bench/find_segments.py --conversations conversations_60 --condition mix_clean

The folder is one of `wesep simulate`, with `activity/NAME.rttm` of each mixture. A segment counts as right if at least
95 % of its speech (frames of 10 ms in which anybody speaks) is of one person alone. Prints Markdown: the share of right
segments by confidence, that of segments of the same lengths at random places with as much speech, and how often two
segments of one voice are of one person. Processor time: about 12 s per minute of audio.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import wesep_py
from wesep_py import audio
from wesep_py.inference.enrolling.speech_activity import speech_mask
from wesep_py.inference.single_speaker import LENGTHS_S, MIN_SPEECH, find_encoder, find_solo_segments

FRAMES_PER_S = 100
RIGHT = 0.95


def read_activity(path: Path, num_frames: int) -> dict[str, NDArray[np.bool_]]:
    """Return the frames in which each speaker of an RTTM is active."""
    activity: dict[str, NDArray[np.bool_]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        start_s, duration_s = float(fields[3]), float(fields[4])
        frames = activity.setdefault(fields[7], np.zeros(num_frames, dtype=bool))
        frames[round(start_s * FRAMES_PER_S) : round((start_s + duration_s) * FRAMES_PER_S)] = True
    return activity


def share_of_one(activity: dict[str, NDArray[np.bool_]], start_s: float, end_s: float) -> tuple[float, str]:
    """Return the share of the speech in a segment that is of one person alone, and who that is."""
    frames = slice(round(start_s * FRAMES_PER_S), round(end_s * FRAMES_PER_S))
    count = np.sum([active[frames] for active in activity.values()], axis=0)
    alone = {name: int((active[frames] & (count == 1)).sum()) for name, active in activity.items()}
    speaker = max(alone, key=lambda name: alone[name])
    return alone[speaker] / max(1, int((count > 0).sum())), speaker


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--condition", default="mix_clean", help="folder of the mixtures: mix_clean, mix_both")
    parser.add_argument("--model", default=None)
    parser.add_argument("--speaker-model", default=None)
    parser.add_argument("--skip", type=int, default=0, help="leave out the first recordings")
    parser.add_argument("--limit", type=int, default=None, help="number of recordings")
    parser.add_argument("--confidences", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    extractor = wesep_py.load(options.model, "cpu")
    encoder = find_encoder(options.speaker_model, extractor.sample_rate)
    paths = sorted((options.conversations / options.condition).glob("*.wav"))[options.skip :][: options.limit]
    listed: list[tuple[float, bool, int]] = []
    pairs: list[tuple[bool, bool]] = []
    chance: list[bool] = []
    for number, path in enumerate(paths):
        segments = find_solo_segments(path, extractor, encoder, min(options.confidences))
        waveform = audio.read_mono(path, extractor.sample_rate)
        duration_s = len(waveform) / extractor.sample_rate
        activity = read_activity(
            options.conversations / "activity" / f"{path.stem}.rttm", round(duration_s * FRAMES_PER_S) + FRAMES_PER_S
        )
        truths = [share_of_one(activity, segment.start_s, segment.end_s) for segment in segments]
        listed += [(s.confidence, share >= RIGHT, number) for s, (share, _) in zip(segments, truths, strict=True)]
        pairs += [
            (segments[i].voice == segments[j].voice, truths[i][1] == truths[j][1])
            for i, j in combinations(range(len(segments)), 2)
            if min(truths[i][0], truths[j][0]) >= RIGHT
        ]
        mask = speech_mask(waveform, extractor.sample_rate)
        random = np.random.default_rng(number)
        for start_s in random.uniform(0, duration_s - LENGTHS_S[0], 50):
            part = mask[round(start_s * extractor.sample_rate) :][: round(LENGTHS_S[0] * extractor.sample_rate)]
            if part.mean() >= MIN_SPEECH:
                chance.append(share_of_one(activity, start_s, start_s + LENGTHS_S[0])[0] >= RIGHT)
    print(f"{len(paths)} recordings of {options.conversations.name}/{options.condition}, {extractor.name}\n")
    print("| confidence | segments per recording | recordings with one | of one person alone |")
    print("| --- | --- | --- | --- |")
    for least in options.confidences:
        chosen = [row for row in listed if row[0] >= least]
        right = np.mean([is_right for _, is_right, _ in chosen]) if chosen else float("nan")
        with_one = len({row[2] for row in chosen})
        print(f"| {least:g} and more | {len(chosen) / len(paths):.1f} | {with_one} of {len(paths)} | {right:.0%} |")
    print(f"| random {LENGTHS_S[0]:g} s | | | {np.mean(chance):.0%} |")
    same = [is_same for together, is_same in pairs if together]
    other = [not is_same for together, is_same in pairs if not together]
    print(
        f"\nPairs of right segments: {np.mean(same):.0%} of {len(same)} with one voice number are of one person, "
        f"{np.mean(other):.0%} of {len(other)} with two are of two."
    )


if __name__ == "__main__":
    main()
