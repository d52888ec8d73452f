"""The scores of `wesep evaluate`, computed again by asteroid's metrics: nothing of this project is imported.

    wesep evaluate … --metrics si_sdr,sdr,pesq,stoi --save-audio 50 -o RESULTS
    python bench/independent_scores.py RESULTS [--limit 50]

Reads the waveforms that `--save-audio` left in `RESULTS/audio` with soundfile, scores them with
`asteroid.metrics.get_metrics`, and prints the means of both and the largest difference in one trial.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import soundfile
from asteroid.metrics import get_metrics

THEIRS = ("si_sdr", "sdr", "pesq", "stoi")
COMPARED = ("si_sdr", "si_sdri", "sdr", "sdri", "pesq", "stoi")


def independent_scores(folder: Path) -> dict[str, float]:
    """Scores of a folder with `mixture.wav`, `reference.wav` and `estimate.wav`."""
    read = {name: soundfile.read(folder / f"{name}.wav") for name in ("mixture", "reference", "estimate")}
    mixture, reference, estimate = (samples for samples, _ in read.values())
    (sample_rate,) = {rate for _, rate in read.values()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_metrics(mixture, reference, estimate, sample_rate=sample_rate, metrics_list=list(THEIRS))
    improvements = {f"{name}i": found[name] - found[f"input_{name}"] for name in ("si_sdr", "sdr")}
    return {key: float(value) for key, value in (found | improvements).items() if not key.startswith("input_")}


def table(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> str:
    """Both means and the largest difference of a trial, a metric a row; trials that lack one of the two are counted."""
    lines = ["| metric | trials | wesep evaluate | asteroid.metrics | largest difference in one trial |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name in COMPARED:
        pairs = np.array([(a[name], b[name]) for a, b in zip(ours, theirs, strict=True) if name in a and name in b])
        if not len(pairs):
            continue
        means, largest = pairs.mean(axis=0), np.abs(pairs[:, 0] - pairs[:, 1]).max()
        lines.append(f"| {name} | {len(pairs)} | {means[0]:.4f} | {means[1]:.4f} | {largest:.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the folder that wesep evaluate wrote")
    parser.add_argument("--limit", type=int, help="so many trials, the first ones")
    arguments = parser.parse_args()
    lines = (arguments.results / "per_trial.jsonl").read_text(encoding="utf-8").splitlines()
    records = {record["number"]: record for record in map(json.loads, lines) if record["outcome"] == "scored"}
    folders = {
        int(match[1]): folder
        for folder in sorted((arguments.results / "audio").glob("*"))
        if (match := re.match(r"(\d+)_", folder.name))
    }
    numbers = sorted(records.keys() & folders.keys())[: arguments.limit]
    if not numbers:
        sys.exit(f"{arguments.results}: has no trial with audio; run wesep evaluate with --save-audio")
    print(table([records[number] for number in numbers], [independent_scores(folders[number]) for number in numbers]))


if __name__ == "__main__":
    main()
