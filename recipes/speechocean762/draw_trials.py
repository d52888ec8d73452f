"""Draw the best and the worst trials of an evaluation: mixture, enrollment, estimate and reference as spectrograms.

    python recipes/speechocean762/draw_trials.py RESULTS --model EXP --trials CSV --enrollment MAP --root DATA -o DIR

RESULTS is a folder that `wesep evaluate` wrote. The pictures are DIR/good_1.png … and DIR/bad_1.png ….
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import wesep_py
from wesep_py.cli.picture import draw_spectrograms
from wesep_py.corpus import read_trials
from wesep_py.simulation import render_trial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    for name in ("--model", "--trials", "--enrollment", "--root"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--condition", choices=("clean", "noisy"), default="clean")
    parser.add_argument("--count", type=int, default=3)
    arguments = parser.parse_args()

    lines = (arguments.results / "per_trial.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["outcome"] == "scored"]
    records.sort(key=lambda record: record["si_sdri"])
    chosen = {f"bad_{i + 1}": record for i, record in enumerate(records[: arguments.count])}
    chosen |= {f"good_{i + 1}": record for i, record in enumerate(records[::-1][: arguments.count])}

    listed = read_trials(arguments.trials, arguments.enrollment, arguments.root)
    trials = {(trial.mixture_id, trial.target_utterance_id): trial for trial in listed}
    extractor = wesep_py.load(arguments.model)
    rate = extractor.sample_rate
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, record in chosen.items():
        trial = trials[record["mixture_id"], record["target_utterance_id"]]
        audio = render_trial(trial, arguments.condition, rate)
        estimate = extractor.extract((audio.mixture, rate), extractor.enroll((audio.enrollment, rate))).waveform
        waveforms = {"mixture": audio.mixture, "enrollment": audio.enrollment, "estimate": estimate}
        waveforms["reference"] = audio.reference
        title = f"{record['target_utterance_id']} in {trial.mixture_id}: SI-SDRi {record['si_sdri']:.1f} dB"
        path = draw_spectrograms(arguments.out / f"{name}.png", waveforms, rate, title, overwrite=True)
        print(f"{path}: {title}, SIR {record['sir_db']:.1f} dB, {record.get('gender_pair', '')}")


if __name__ == "__main__":
    main()
