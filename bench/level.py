"""At which level voices come out, by whose level it is: the network's own, that corrected a little, or the fitted one.

    python bench/level.py --model base --trials ../shared/data/trials/dev_2mix --root ../shared/data

Prints Markdown: for the voices of LIST.csv the level of the voice in the output re its level in the mixture, for those
of LIST_absent the level of the output re mixture; means in dB over --limit trials, spread over the list. Processor
time: one extraction a trial and condition, with the defaults a minute.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import wesep_py
from wesep_py.data import Trial, read_trials
from wesep_py.inference import Extractor
from wesep_py.inference.result import level_gain
from wesep_py.simulation import render_trial


def levels(extractor: Extractor, trial: Trial, condition: str) -> list[float]:
    """In dB, with the network's own level, with that of `learned`, and with that of `fitted`."""
    rendered = render_trial(trial, condition, extractor.sample_rate)
    mixture = rendered.mixture[None]
    with torch.inference_mode():
        prepared = extractor.network.prepare(torch.from_numpy(rendered.enrollment)[None])
        made = extractor.network.extract(torch.from_numpy(mixture), prepared).waveforms[0].numpy()
    if rendered.reference is None or not rendered.reference.any():
        own = np.sqrt((made**2).sum() / (mixture**2).sum())
    else:
        own = abs((made[0] * rendered.reference).sum()) / (rendered.reference**2).sum()
    gains = (1.0, level_gain(made, mixture, "learned"), level_gain(made, mixture))
    return [20 * float(np.log10(abs(gain) * own + 1e-12)) for gain in gains]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--trials", type=Path, required=True, metavar="LIST", help="without .csv")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    extractor = wesep_py.load(arguments.model, "cpu")
    print("| list | condition | the network's own (dB) | learned (dB) | fitted (dB) |\n| --- | --- | --- | --- | --- |")
    for end in ("", "_absent"):
        name = f"{arguments.trials.name}{end}"
        enrollments = arguments.trials.with_name(f"{name}.map_mixture2enrollment")
        trials = list(read_trials(arguments.trials.with_suffix(".csv"), enrollments, arguments.root))
        chosen = trials[:: max(1, len(trials) // arguments.limit)][: arguments.limit]
        for condition in ("clean", "noisy"):
            means = np.mean([levels(extractor, trial, condition) for trial in chosen], axis=0)
            print(f"| {name} | {condition} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |", flush=True)


if __name__ == "__main__":
    main()
