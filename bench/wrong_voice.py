"""Measure how well extractions of the wrong voice are recognised and repaired (module `repair`).

    python bench/wrong_voice.py --root DATA [--trials DATA/trials/dev_2mix] [--limit 40] [--verify dvector]

The target of each mixture of two speakers is extracted with the enrollment of the other speaker. The table has the mean
SI-SDRi of that extraction, of its residual, and of a second extraction from the residual with the right enrollment;
and the share of mixtures whose residual is nearer to the right enrollment, by several margins.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from wesep_py.data import read_trials
from wesep_py.evaluation.trial_extraction import render
from wesep_py.inference import load
from wesep_py.inference.presence_decision.repair import MARGIN, comparison
from wesep_py.metrics import si_sdr

MARGINS = (0.0, 0.02, MARGIN, 0.1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data")
    parser.add_argument("--trials", type=Path, help="list without its suffix; default ROOT/trials/dev_2mix")
    parser.add_argument("--model", help="a name or a folder; default: the bundled model")
    parser.add_argument("--verify", default="dvector", help="the encoder that compares")
    parser.add_argument("--limit", type=int, default=40, help="number of mixtures")
    arguments = parser.parse_args()
    trials = arguments.trials or arguments.root / "trials" / "dev_2mix"
    extractor = load(arguments.model, "cpu", verify=arguments.verify, repair="requery")
    rate = extractor.sample_rate
    by_mixture = defaultdict(list)
    names = (trials.with_suffix(".csv"), trials.with_suffix(".map_mixture2enrollment"))
    for trial in read_trials(*names, arguments.root, None):
        by_mixture[trial.mixture_id].append(trial)
    pairs = [pair for pair in by_mixture.values() if len(pair) == 2][: arguments.limit]

    rows, differences = [], []
    for pair in pairs:
        target, other = (render(trial, "clean", rate) for trial in pair)
        if isinstance(target, Exception) or isinstance(other, Exception):
            raise SystemExit(f"{pair[0].mixture_id}: cannot be rendered")
        right, wrong = (extractor.enroll(*audio.enrollment_sources) for audio in (target, other))
        mixture = (target.mixture, rate)
        estimate = extractor.extract(mixture, wrong, repair=False).waveform
        residual = target.mixture - estimate
        second = extractor.extract((residual, rate), right, repair=False).waveform
        usual = extractor.extract(mixture, right, repair=False).waveform
        of_estimate, of_residual = comparison(extractor, right)([estimate, residual])
        differences.append(of_residual - of_estimate)
        before = si_sdr(target.mixture, target.reference)
        rows.append([si_sdr(x, target.reference) - before for x in (estimate, residual, second, usual)])
    means = np.mean(rows, axis=0)
    print(f"{len(rows)} mixtures of {trials.name}, {extractor.name}, {arguments.verify}; SI-SDRi in dB:")
    for name, mean in zip(("wrong voice", "its residual", "second extraction", "right voice"), means, strict=True):
        print(f"  {name:<18}{mean:7.2f}")
    for margin in MARGINS:
        print(f"  recognised, margin {margin:.2f}: {np.mean(np.array(differences) > margin):.0%}")


if __name__ == "__main__":
    main()
