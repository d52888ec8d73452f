"""Mixtures a second on one core: 2 speakers, 3 s, 16 kHz, an enrollment of 3 to 6 s for each; by stage and as a whole.

    OMP_NUM_THREADS=1 python bench/simulation.py --data ../shared/data
    OMP_NUM_THREADS=1 python bench/simulation.py --items 16 --step-s 0.25     # synthetic voices; needs the extra demo

Processor time, so that what else the machine does counts as little as it can. The recordings are written as FLAC files
into a temporary folder first (`--folder` keeps them). Each round makes the same mixtures; the best round counts. Cases
"decoded before" read a memory map and know the level of every recording, as in a run's later epochs; the others begin
each round with a new simulator, as in a run's first: nearly every recording is decoded, whole, when it is drawn. The
stages are measured in a round of their own; each second counts for the innermost stage, so that a room of an enrollment
is under "rooms". `--options` prints what single options cost instead.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.simulation_cases import Case, main_cases, option_cases
from bench.simulation_corpus import add_arguments, make_corpus
from bench.simulation_device import device_line
from bench.simulation_stages import STAGES, StageClock
from wesep_py.simulation import Simulator

LATER_EPOCH = 1


def opened(case: Case, count: int) -> Simulator:
    """A simulator as the case wants it at the beginning of a round."""
    simulator = case.open()
    if not case.first_time:
        make(simulator, count)
    return simulator


def make(simulator: Simulator, count: int) -> None:
    """Make the mixtures of a round."""
    for index in range(count):
        simulator.sample(LATER_EPOCH, index)


def seconds_a_mixture(case: Case, count: int, rounds: int) -> float:
    """Processor seconds of a mixture in the best of the rounds."""
    simulator = opened(case, count)
    took = []
    for _ in range(rounds):
        if case.first_time:
            simulator = opened(case, count)
        began = time.process_time()
        make(simulator, count)
        took.append(time.process_time() - began)
    return min(took) / count


def stages_ms(case: Case, count: int) -> list[float]:
    """Processor milliseconds of each stage of a mixture."""
    simulator, clock = opened(case, count), StageClock()
    with clock.installed():
        make(simulator, count)
    return [1000 * clock.seconds[stage] / count for stage in STAGES]


def workers_needed(items: int, step_s: float, seconds: float) -> int:
    """How many processes keep up with training steps of so many mixtures.

    >>> workers_needed(16, 0.25, 0.01)
    1
    >>> workers_needed(64, 0.1, 0.01)
    7
    """
    return max(1, math.ceil(items / step_s * seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--count", type=int, default=200, help="mixtures of a round (default 200)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=16, help="mixtures in a training step")
    parser.add_argument("--step-s", type=float, default=0.25, help="seconds that a training step takes")
    parser.add_argument("--options", action="store_true", help="what single options cost")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        corpus = make_corpus(arguments, folder)
        print(f"{corpus.about}; {arguments.count} mixtures, best of {arguments.rounds} rounds.\n", flush=True)
        if arguments.options:
            print("| mixtures | ms CPU each |\n| --- | --- |", flush=True)
            for case in option_cases(corpus):
                count = max(1, round(arguments.count * case.share))
                print(f"| {case.name} | {1000 * seconds_a_mixture(case, count, arguments.rounds):.1f} |", flush=True)
            return
        print(f"| mixtures | a second | wanted | ms CPU each | {' | '.join(STAGES)} |")
        print("| --- " * (4 + len(STAGES)) + "|", flush=True)
        needed = []
        for case in main_cases(corpus):
            seconds = seconds_a_mixture(case, arguments.count, arguments.rounds)
            stages = " | ".join(f"{ms:.2f}" for ms in stages_ms(case, arguments.count))
            wanted = "" if case.target is None else f"{case.target}"
            print(f"| {case.name} | {1 / seconds:.0f} | {wanted} | {1000 * seconds:.1f} | {stages} |", flush=True)
            needed.append(f"{workers_needed(arguments.items, arguments.step_s, seconds)} for {case.name}")
        print(f"\n{device_line(corpus, arguments.count, arguments.rounds)}", flush=True)
        step = f"{arguments.items} mixtures every {arguments.step_s:g} s"
        print(f"\nWorkers (each on a core of its own) that keep up with training steps of {step}: {'; '.join(needed)}.")


if __name__ == "__main__":
    main()
