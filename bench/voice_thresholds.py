"""Measure how often a second voice and an outlier are found in enrollments, by the similarity below which they are.

    python bench/voice_thresholds.py DATA/speech/dev.csv DATA/speech/dev_ls.csv --root DATA --encoder dvector

From the windows of 1 s of each list's recordings, the script puts together enrollments of 8 s: of one person; of two
in turn, 4 s each; and 2 s of one amid 6 s of another. It prints for each threshold in how many per cent of them a
second voice is suspected; then, of 100 sets of four recordings each, in how many an outlier is named though there is
none, and in how many a stranger, and nobody else, is named. `PresenceVerifier.voice_thresholds` is set by it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wesep_py import checkpoint
from wesep_py.data import read_manifest
from wesep_py.inference.enrolling.enrollment import load_enrollments
from wesep_py.inference.enrolling.enrollment_quality import compare_recordings, segment_similarity
from wesep_py.inference.presence_decision.presence_verifier import PresenceVerifier
from wesep_py.network.speaker import load_encoder

Windows = dict[str, list[NDArray[np.float32]]]
"""For each speaker the embeddings `[windows, dim]` of recordings."""


def embed_windows_of(verifier: PresenceVerifier, manifest: Path, root: Path, per_speaker: int) -> Windows:
    """Return the embeddings of the windows of 1 s of each speaker's first recordings, at most eight of each."""
    windows: Windows = {}
    for utterance in read_manifest(manifest, root):
        recordings = windows.setdefault(utterance.speaker_id, [])
        if len(recordings) < per_speaker:
            (enrollment,) = load_enrollments([utterance.path], verifier.sample_rate)
            recordings.append(verifier.embed(enrollment.windows(8)))
    return windows


def second_voices(windows: Windows, thresholds: Sequence[float], count: int = 200) -> list[str]:
    """Return a line for each threshold: one voice, two in turn, one amid another; in per cent below it."""
    rng, speakers = np.random.default_rng(0), list(windows)
    similarities: list[tuple[float | None, ...]] = []
    while len(similarities) < count:
        first, second = (windows[speakers[i]] for i in rng.choice(len(speakers), 2, replace=False))
        a, b = (np.concatenate([one[i] for i in rng.permutation(len(one))]) for one in (first, second))
        if len(a) >= 8 and len(b) >= 4:
            mixed = (a[:8], np.concatenate([a[:4], b[:4]]), np.concatenate([a[:3], b[:2], a[3:6]]))
            similarities.append(tuple(segment_similarity(embeddings) for embeddings in mixed))
    values = np.array(similarities, dtype=float)
    shares = [100 * (values < threshold).mean(axis=0) for threshold in thresholds]
    return [
        f"second voice below {threshold:.2f}: one voice {one:.0f} %, in turn {turn:.0f} %, amid {amid:.0f} %"
        for threshold, (one, turn, amid) in zip(thresholds, shares, strict=True)
    ]


def outliers(windows: Windows, thresholds: Sequence[float], count: int = 100) -> list[str]:
    """Return a line for each threshold: sets without an outlier in which one is named, and strangers that are."""
    lines, speakers = [], [name for name, recordings in windows.items() if len(recordings) >= 4]
    for threshold in thresholds if len(speakers) > 1 else ():
        rng, wrong, right = np.random.default_rng(1), 0, 0
        for _ in range(count):
            own, other = (windows[speakers[i]] for i in rng.choice(len(speakers), 2, replace=False))
            chosen = [own[i] for i in rng.permutation(len(own))[:4]]
            stranger = [*chosen[:3], other[0]]
            found = [
                compare_recordings([one.mean(axis=0) for one in group], [len(one) for one in group], threshold).outliers
                for group in (chosen, stranger)
            ]
            wrong, right = wrong + bool(found[0]), right + (found[1] == (3,))
        lines.append(f"outlier below {threshold:.2f}: {wrong} of {count} without one, stranger {right} of {count}")
    return lines


def main() -> None:
    """Print the table of each list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="folder that paths in the manifests start from")
    parser.add_argument("--encoder", default="dvector", help="installed speaker encoder, or a checkpoint folder")
    parser.add_argument("--per-speaker", type=int, default=6, help="recordings of each speaker that are used")
    arguments = parser.parse_args()
    folder = checkpoint.resolve(arguments.encoder)
    verifier = PresenceVerifier(load_encoder(folder, 16000), arguments.encoder, "")
    for manifest in arguments.manifests:
        windows = embed_windows_of(verifier, manifest, arguments.root, arguments.per_speaker)
        print(manifest.stem, *second_voices(windows, np.arange(0.5, 0.81, 0.05)), sep="\n")
        print(*outliers(windows, np.arange(0.6, 0.91, 0.05)), sep="\n")


if __name__ == "__main__":
    main()
