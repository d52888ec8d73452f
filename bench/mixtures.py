"""How long a training mixture takes to draw and render, from a packed corpus, on one core.

    python bench/mixtures.py MANIFEST --root DIR [--noise FILE_OR_FOLDER] [--packed FOLDER] [--count 300]

CPU milliseconds a mixture of 3 s, two speakers, an enrollment of 3 to 6 s for each, best of ten rounds: plain, with
noise, in a room. The packed corpus is made if it is not there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from wesep_py.corpus import find_noises, pack, read_manifest
from wesep_py.simulation import NoiseConfig, RoomConfig, SimulationConfig, Simulator

SAMPLE_RATE = 16000
ROUNDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--noise", action="append", default=[])
    parser.add_argument("--packed", type=Path, default=Path(tempfile.gettempdir()) / "wesep_bench_packed")
    parser.add_argument("--count", type=int, default=300)
    arguments = parser.parse_args()
    utterances = read_manifest(arguments.manifest, arguments.root)
    noises = find_noises(arguments.noise, arguments.root)
    reader = pack([*utterances, *noises], arguments.packed, SAMPLE_RATE)
    configs = {
        "plain": SimulationConfig(),
        "coloured noise": SimulationConfig(noise=NoiseConfig(probability=1.0, kinds={"coloured": 1.0})),
        "room, early target": SimulationConfig(room=RoomConfig(), target="early"),
    }
    if noises:
        configs["recorded noise"] = SimulationConfig(noise=NoiseConfig(probability=1.0))
    print("| mixtures | ms CPU each |\n| --- | --- |")
    for name, config in configs.items():
        simulator = Simulator(config, utterances, noises, reader)
        for index in range(arguments.count):  # levels of utterances are measured once, pages are read in
            simulator.sample(0, index)
        rounds = []
        for epoch in range(1, ROUNDS + 1):
            began = time.process_time()
            for index in range(arguments.count // ROUNDS):
                simulator.sample(epoch, index)
            rounds.append((time.process_time() - began) / (arguments.count // ROUNDS) * 1000)
        print(f"| {name} | {min(rounds):.1f} |", flush=True)


if __name__ == "__main__":
    main()
