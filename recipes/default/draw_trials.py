"""Draw and save the best, the typical and the worst trials of an evaluation.

    python recipes/default/draw_trials.py RESULTS --model MODEL --trials CSV --enrollment MAP --root DATA -o DIR

RESULTS is a folder that `wesep evaluate` wrote. For each trial, the script writes DIR/good_1.png (spectrograms of
mixture, enrollment, estimate and reference) and the four as DIR/good_1/NAME.wav; likewise typical_1 (around the median
of SI-SDRi) and bad_1. It prints one line per trial.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import wesep_py
from wesep_py import audio
from wesep_py.cli.demo import draw_spectrograms
from wesep_py.common.textfiles import read_jsonl
from wesep_py.data import read_trials
from wesep_py.evaluation.results import check_record
from wesep_py.simulation import render_trial

COLOURS = 64
"""Number of colours of a picture; a third of the bytes of all colours, without a visible difference."""


def choose(records: Sequence[dict[str, Any]], good: int, typical: int, bad: int) -> dict[str, dict[str, Any]]:
    """Return scored trials by name: `good_1` has the highest SI-SDRi, `bad_1` the lowest, `typical_1` about the median.

    Args:
        records: lines of `per_trial.jsonl`.
        good, typical, bad: number of trials of each kind.
    """
    scored = [record for record in records if record["outcome"] == "scored"]
    ordered = sorted(scored, key=lambda record: -record["si_sdri"])
    middle = max(0, (len(ordered) - typical) // 2)
    parts = {"good": ordered[:good], "typical": ordered[middle : middle + typical], "bad": ordered[::-1][:bad]}
    return {f"{name}_{i + 1}": record for name, part in parts.items() for i, record in enumerate(part)}


def main() -> None:
    """Extract the chosen trials again, and write their pictures and audio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder that `wesep evaluate` wrote")
    for name in ("--trials", "--enrollment", "--root"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--model", help="name or folder of the model; by default the bundled one")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--condition", choices=("clean", "noisy"), default="clean")
    for name, count in (("--good", 4), ("--typical", 2), ("--bad", 4)):
        parser.add_argument(name, type=int, default=count, help=f"number of such trials; {count}")
    arguments = parser.parse_args()

    rows = read_jsonl(arguments.results / "per_trial.jsonl", "trials of `wesep evaluate`")
    for row in rows:
        check_record(row, "mixture_id", "target_utterance_id", "outcome")
        if row.values["outcome"] == "scored":
            row.number("si_sdri")
    chosen = choose([dict(row.values) for row in rows], arguments.good, arguments.typical, arguments.bad)
    trial_list = read_trials(arguments.trials, arguments.enrollment, arguments.root)
    trials = {(trial.mixture_id, trial.target_utterance_id): trial for trial in trial_list}
    extractor = wesep_py.load(arguments.model, "cpu")
    rate = extractor.sample_rate
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, record in chosen.items():
        trial = trials[record["mixture_id"], record["target_utterance_id"]]
        parts = render_trial(trial, arguments.condition, rate)
        estimate = extractor.extract((parts.mixture, rate), extractor.enroll((parts.enrollment, rate))).waveform
        waveforms = {"mixture": parts.mixture, "enrollment": parts.enrollment, "estimate": estimate}
        waveforms["reference"] = parts.reference
        title = f"{record['target_utterance_id']} in {trial.mixture_id}: SI-SDRi {record['si_sdri']:.1f} dB"
        path = draw_spectrograms(arguments.out / f"{name}.png", waveforms, rate, title, overwrite=True)
        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(COLOURS)
        small.save(path, optimize=True)
        (arguments.out / name).mkdir(exist_ok=True)
        for part, waveform in waveforms.items():
            audio.write(arguments.out / name / f"{part}.wav", waveform, rate, overwrite=True)
        print(f"{path}: {title}, SIR {record['sir_db']:.1f} dB, {record.get('gender_pair', '')}")


if __name__ == "__main__":
    main()
