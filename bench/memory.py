"""Memory of a training's data workers over many mixtures, as a picture and a line: does it grow?

    OMP_NUM_THREADS=1 python bench/memory.py --data ../shared/data --cpu-min 5 -o docs/images/simulation_memory.png

Mixtures of 3 s in noise and rooms, from FLAC files, through the training's loader with `--workers` processes, until
there were at least `--count` and as many as fit into `--cpu-min` minutes of processor time. The memory is the sum over
the process and its workers of the proportional set size (PSS: what several processes share counts once), from
`/proc/PID/smaps_rollup` (Linux). The slope is a least-squares line through the second half.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.simulation import NOISY_ROOM
from bench.simulation_corpus import SAMPLE_RATE, BenchCorpus, add_arguments, make_corpus
from wesep_py.data import FileReader
from wesep_py.simulation import Simulator

BATCH, EPOCH_SIZE, CACHE_MIB = 8, 1000, 32
MIXTURE_S = NOISY_ROOM.duration_s
EVERY = 10  # batches


def pss_mib(pid: int) -> float:
    """Proportional set size of a process in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup: has no line Pss")


def cpu_s(pids: list[int]) -> float:
    """Processor seconds that processes have taken, user and system."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(corpus: BenchCorpus, workers: int, count: int, cpu_min: float) -> list[tuple[int, float]]:
    """Mixtures made so far and MiB, every few batches."""
    from wesep_py.training.batches import PositionSampler, SimulatedMixtures, make_loader
    from wesep_py.training.extraction_task import collate_targets, target_items

    labels = {speaker: label for label, speaker in enumerate(sorted({u.speaker_id for u in corpus.speech}))}
    simulator = Simulator(NOISY_ROOM, corpus.speech, corpus.noises, FileReader(SAMPLE_RATE, CACHE_MIB))
    dataset = SimulatedMixtures(simulator, labels, target_items)
    sampler = PositionSampler(0, 10**9, BATCH, EPOCH_SIZE)
    points: list[tuple[int, float]] = []
    began = time.monotonic()
    for number, _ in enumerate(make_loader(dataset, sampler, collate_targets, workers, 2), start=1):
        if number % EVERY:
            continue
        pids = [os.getpid(), *(child.pid for child in active_children() if child.pid)]
        points.append((number * BATCH, sum(map(pss_mib, pids))))
        if number * BATCH >= count and cpu_s(pids) >= 60 * cpu_min:
            break
        if len(points) % 20 == 0:
            print(
                f"{points[-1][0]} mixtures, {points[-1][1]:.0f} MiB, {time.monotonic() - began:.0f} s", file=sys.stderr
            )
    return points


def slope(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Mean in MiB, and MiB in a thousand mixtures, over the second half."""
    made, mib = np.array(points[len(points) // 2 :]).T
    return float(mib.mean()), float(np.polyfit(made, mib, 1)[0] * 1000)


def draw(points: list[tuple[int, float]], title: str, path: Path) -> None:
    """The picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made, mib = np.array(points).T
    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    axes.plot(made * MIXTURE_S / 3600, mib, color="#1f5fa8", linewidth=1.2)
    axes.set(xlabel="audio made (h)", ylabel="memory (MiB)", ylim=(0, 1.25 * mib.max()), xlim=(0, None))
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--count", type=int, default=1200, help="mixtures at least: an hour")
    parser.add_argument("--cpu-min", type=float, default=5.0, help="minutes of processor time at least")
    parser.add_argument("-o", "--output", type=Path, help="PNG")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        corpus = make_corpus(arguments, arguments.folder or Path(temporary))
        points = measure(corpus, arguments.workers, arguments.count, arguments.cpu_min)
    mean, growth = slope(points)
    hours = points[-1][0] * MIXTURE_S / 3600
    text = (
        f"{points[-1][0]:,} mixtures ({hours:.1f} h), {arguments.workers} workers: "
        f"{mean:.0f} MiB, {growth:+.2f} MiB in 1,000 mixtures over the second half"
    )
    print(text)
    if arguments.output:
        draw(points, text, arguments.output)


if __name__ == "__main__":
    main()
