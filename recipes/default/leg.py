"""Measure a model after a leg of training: a row for the table of legs in README.md.

    python recipes/default/leg.py --data DATA --model EXP -o OUT [--live] [--trials 100] [--keep FOLDER]

A leg is one of several trainings in which each starts from the weights of the one before. The script evaluates 100
trials of each list, at equal distances, with `wesep evaluate` (SI-SDRi in dB, accuracy): dev_2mix and dev_ls_2mix,
clean and noisy; without shifted copies (`--shifts 1`), in the offline or the live mode. A second call with the same OUT
and model reuses the results that exist. --keep stores the model in half precision, without paths of this machine, where
the next leg finds it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bundle import public_provenance, to_half_precision  # beside this script

import wesep_py
from wesep_py import checkpoint
from wesep_py.cli.main import main as wesep
from wesep_py.common.textfiles import open_lines, read_json
from wesep_py.training.task import spread

LISTS = ("dev_2mix", "dev_ls_2mix")
CONDITIONS = ("clean", "noisy")


def main() -> None:
    """Evaluate the model on the four lists, store it if asked to, and print the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with trials/, speech/ and noise/")
    parser.add_argument("--model", help="checkpoint or experiment folder; by default the bundled model")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=100, help="number of trials of each list; 100")
    parser.add_argument("--live", action="store_true", help="evaluate the live mode")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="folder to store the model in; needs --model")
    arguments = parser.parse_args()
    if arguments.keep and not arguments.model:
        parser.error("--keep stores the model that --model names; name one")

    model_hash = wesep_py.load(arguments.model, "cpu").model_hash
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = ["--model", arguments.model] if arguments.model else []
    options = ["--live"] if arguments.live else ["--shifts", "1", "--verify", "none"]
    cells = []
    for name in LISTS:
        enrollments = arguments.data / "trials" / f"{name}.map_mixture2enrollment"
        selection = arguments.out / f"{name}.map"
        lines = [line for line in open_lines(enrollments, "a list of trials") if line.strip()]
        selection.write_text("\n".join(spread(lines, arguments.trials)) + "\n", encoding="utf-8")
        for condition in CONDITIONS:
            results = arguments.out / name / condition
            if not (results / "summary.json").is_file():
                trials = ["--trials", str(enrollments.with_name(f"{name}.csv")), "--enrollment", str(selection)]
                data = ["--root", str(arguments.data), "--condition", condition, "-o", str(results)]
                if status := wesep(["evaluate", *trials, *data, *model, *options]):
                    sys.exit(status)
            summary = read_json(results / "summary.json", "a summary").values
            if summary["protocol"]["model"]["hash"] != model_hash:
                sys.exit(f"leg.py: {results} holds results of another model; name another folder with -o")
            cells.append(f"{summary['si_sdri']['mean']:.2f}, {100 * summary['accuracy']['mean']:.0f} %")
    if arguments.keep:
        saved = checkpoint.load(checkpoint.resolve(arguments.model))
        checkpoint.save(
            arguments.keep, saved.config, to_half_precision(saved.state_dict), public_provenance(saved.provenance)
        )
    print("| " + " | ".join(f"{name} {condition}" for name in LISTS for condition in CONDITIONS) + " |")
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
