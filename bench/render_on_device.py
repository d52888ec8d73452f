"""CPU time a mixture where workers render, and where a device renders what workers draw and read.

    OMP_NUM_THREADS=1 python bench/render_on_device.py MANIFEST --root DIR [--batch 16] [--rounds 6] [--device cpu]

Mixtures of 3 s of two speakers, noise and a fresh room each, early target, two enrollments of 3 to 6 s as they are;
then with noise and a room for every enrollment too. Best of the rounds, process CPU time, one thread, recordings
decoded before. The noises are utterances of the manifest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from wesep_py.data import FileReader, read_speech
from wesep_py.simulation import EnrollmentConfig, NoiseConfig, RoomConfig, SimulationConfig
from wesep_py.simulation.batched_rendering import render_on_device
from wesep_py.simulation.dry_batch import DrySimulator, collate_dry

SAMPLE_RATE = 16000
SPEAKERS = 20
Made = TypeVar("Made")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    speech = read_speech([arguments.manifest], arguments.root)
    chosen = sorted({utterance.speaker_id for utterance in speech})[:SPEAKERS]
    speech = [utterance for utterance in speech if utterance.speaker_id in chosen]
    reader = FileReader(SAMPLE_RATE, cache_mib=4096)
    noise, room = NoiseConfig(probability=1.0), RoomConfig()
    enrollments = {"as they are": EnrollmentConfig(), "in noise and rooms": EnrollmentConfig(noise=noise, room=room)}
    for utterance in speech:
        reader.read(utterance)
    print("| enrollments | workers render | worker draws, reads, pads | device renders | apart, of the peak |")
    print("| --- | --- | --- | --- | --- |")
    for name, enrollment in enrollments.items():
        config = SimulationConfig(noise=noise, room=room, target="early", enrollment=enrollment)
        simulator = DrySimulator(config, speech, speech[:8], reader, seed=1)
        times, apart = _measure(simulator, arguments.batch, arguments.rounds, arguments.device)
        print(f"| {name} | " + " | ".join(f"{ms:.1f} ms" for ms in times) + f" | {apart:.1e} |", flush=True)


def _measure(simulator: DrySimulator, size: int, rounds: int, device: str) -> tuple[list[float], float]:
    """The least time a mixture of each of three parts, in ms, and the greatest distance."""
    times, apart = [np.inf] * 3, 0.0

    def timed(part: int, make: Callable[[], Made]) -> Made:
        began = time.process_time()
        made = make()
        times[part] = min(times[part], 1000 * (time.process_time() - began) / size)
        return made

    for epoch in range(rounds):
        keys = [(epoch, index) for index in range(size)]
        expected = timed(0, lambda keys=keys: [simulator.sample(*key) for key in keys])
        batch = timed(1, lambda keys=keys: collate_dry([simulator.dry(*key) for key in keys], SAMPLE_RATE))
        found = timed(2, lambda batch=batch: render_on_device(batch.to(device)))
        for one, other in zip(found, expected, strict=True):
            difference = np.abs(one.mixture.cpu().numpy() - other.mixture).max() / np.abs(other.mixture).max()
            apart = max(apart, float(difference))
    return times, apart


if __name__ == "__main__":
    main()
