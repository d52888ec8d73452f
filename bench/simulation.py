"""Speed of simulation on one core: mixtures per second, by stage and in total.

    OMP_NUM_THREADS=1 python bench/simulation.py --data ../shared/data
    OMP_NUM_THREADS=1 python bench/simulation.py --data ../shared/data --options    # the cost of single options
    OMP_NUM_THREADS=1 python bench/simulation.py --items 16 --step-s 0.25     # synthetic voices; needs the extra demo

A mixture has two speakers, 3 s at 16 kHz, and an enrollment of 3 to 6 s for each. Processor time is measured, so that
other processes matter as little as possible. The recordings are first written as FLAC files to a temporary folder
(`--folder` keeps them). Each round makes the same mixtures; the best round counts. Cases "decoded before" read a memory
map and know the level of every recording, as in the later epochs of a training; the others begin each round with a new
simulator, as in the first epoch: nearly every recording is decoded completely when it is drawn. The stages are measured
in a round of their own; each second counts for the innermost stage, so the room of an enrollment counts as "rooms". The
last line but one is for mixtures that a worker draws and reads, and a device renders (`data.render: device`).
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.simulation_corpus import SAMPLE_RATE, BenchCorpus, add_arguments, make_corpus
from wesep_py.data import PackedReader, Reader, RoutedReader, Utterance, pack, read_speech, write_shards
from wesep_py.data.reader import FileReader
from wesep_py.data.recordings import open_reader
from wesep_py.simulation import (
    EffectsConfig,
    EnrollmentConfig,
    NoiseConfig,
    RoomConfig,
    SimulationConfig,
    Simulator,
    level_setting,
    rendering,
    simulator,
)
from wesep_py.simulation.batched_rendering import render_on_device
from wesep_py.simulation.description.effects import (
    BandLimitConfig,
    ClipConfig,
    CodecConfig,
    EqualiseConfig,
    LevelConfig,
    PacketLossConfig,
    ResampleConfig,
)
from wesep_py.simulation.dry_batch import DrySimulator, collate_dry
from wesep_py.simulation.rooms import reverberation
from wesep_py.simulation.speech import speaker_pool

LATER_EPOCH = 1
CACHE_MIB = 8  # as for a large corpus: hardly any recording is still in memory when it is drawn again
DEVICE_BATCH = 16
NOISY_ROOM = SimulationConfig(noise=NoiseConfig(probability=1.0), room=RoomConfig())
ALL_BUT_CODECS = EffectsConfig(
    level=LevelConfig(),
    equalise=EqualiseConfig(),
    band_limit=BandLimitConfig(),
    clip=ClipConfig(),
    resample=ResampleConfig(),
    packet_loss=PacketLossConfig(),
)


# What is measured.


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        name: name of the row.
        open: returns a simulator that has read nothing yet.
        target: desired mixtures per second; `None`: no target.
        first_time: whether every round begins with a new simulator, with nothing decoded and no level known.
        share: share of the mixtures of other cases, for a slow case.
    """

    name: str
    open: Callable[[], Simulator]
    target: int | None = None
    first_time: bool = False
    share: float = 1.0


def main_cases(corpus: BenchCorpus) -> list[Case]:
    """Return the cases with a promised speed."""
    packed = pack([*corpus.speech, *corpus.noises], corpus.folder / "packed", SAMPLE_RATE)
    shards = corpus.folder / "shards"
    write_shards(corpus.speech, shards, size_mib=16)

    def of(config: SimulationConfig, reader: Callable[[], Reader], speech: list[Utterance] = corpus.speech):
        return lambda: Simulator(config, speech, corpus.noises, reader())

    def files() -> Reader:
        return FileReader(SAMPLE_RATE, CACHE_MIB)

    def tar() -> Reader:
        return open_reader([shards], SAMPLE_RATE, CACHE_MIB)

    stored = read_speech([str(shards)], shards)
    return [
        Case("dry, decoded before", of(SimulationConfig(), lambda: packed), 300),
        Case("noise and room, decoded before", of(NOISY_ROOM, lambda: packed), 100),
        Case("dry, from FLAC", of(SimulationConfig(), files), first_time=True),
        Case("noise and room, from FLAC", of(NOISY_ROOM, files), 60, first_time=True),
        Case("noise and room, from tar shards", of(NOISY_ROOM, tar, stored), first_time=True),
    ]


def option_cases(corpus: BenchCorpus) -> Iterator[Case]:
    """Yield a case for each single option, and for all of them together."""
    packed = pack([*corpus.speech, *corpus.noises], corpus.folder / "packed", SAMPLE_RATE)
    kinds = {"recording": 1.0, "coloured": 1.0, "babble": 1.0}
    configs = {
        "recorded noise": SimulationConfig(noise=NoiseConfig(probability=1.0)),
        "coloured noise": SimulationConfig(noise=NoiseConfig(probability=1.0, kinds={"coloured": 1.0})),
        "room, early target": SimulationConfig(room=RoomConfig(), target="early"),
        "conversation": SimulationConfig(overlap="conversation", overlap_ratio=(0.0, 0.3)),
        "partial overlap by activity": SimulationConfig(
            overlap="partial", overlap_measure="activity", overlap_ratio=(0.0, 0.5)
        ),
        "source, mixture and enrollment clipped": _everywhere(EffectsConfig(clip=ClipConfig())),
        "everything but codecs": _everywhere(ALL_BUT_CODECS, kinds),
    }
    for codec in ("ulaw", "vorbis", "opus"):
        effects = replace(ALL_BUT_CODECS, codec=CodecConfig(codecs={codec: 1.0}))
        configs[f"everything, all through {codec}"] = _everywhere(effects, kinds)
    for name, config in configs.items():

        def open_simulator(config: SimulationConfig = config) -> Simulator:
            return Simulator(config, corpus.speech, corpus.noises, packed)

        yield Case(name, open_simulator, share=0.1 if name.startswith("everything") else 1.0)


def _everywhere(effects: EffectsConfig, kinds: dict[str, float] | None = None) -> SimulationConfig:
    """Apply effects to sources, mixture and enrollments; with `kinds`, also noise and rooms to all of them."""
    if kinds is None:
        enrollment = EnrollmentConfig(effects=effects)
        return SimulationConfig(source_effects=effects, mixture_effects=effects, enrollment=enrollment)
    noise = NoiseConfig(probability=1.0, kinds=kinds, count=3)
    return SimulationConfig(
        noise=noise,
        room=RoomConfig(),
        target="early",
        source_effects=effects,
        mixture_effects=effects,
        enrollment=EnrollmentConfig(noise=replace(noise, count=1), room=RoomConfig(), effects=effects),
    )


# How it is measured: in total, by stage, on a device.


def opened(case: Case, count: int) -> Simulator:
    """Return the simulator of a case at the beginning of a round."""
    case_simulator = case.open()
    if not case.first_time:
        make(case_simulator, count)
    return case_simulator


def make(case_simulator: Simulator, count: int) -> None:
    """Make the mixtures of a round."""
    for index in range(count):
        case_simulator.sample(LATER_EPOCH, index)


def seconds_per_mixture(case: Case, count: int, rounds: int) -> float:
    """Return the processor seconds per mixture in the best of the rounds."""
    case_simulator = opened(case, count)
    took = []
    for _ in range(rounds):
        if case.first_time:
            case_simulator = opened(case, count)
        began = time.process_time()
        make(case_simulator, count)
        took.append(time.process_time() - began)
    return min(took) / count


def workers_needed(items: int, step_s: float, seconds: float) -> int:
    """Return the number of processes that keep up with training steps of `items` mixtures.

    >>> workers_needed(16, 0.25, 0.01)
    1
    >>> workers_needed(64, 0.1, 0.01)
    7
    """
    return max(1, math.ceil(items / step_s * seconds))


STAGES: dict[str, list[tuple[Any, str]]] = {
    "draw": [(simulator.Simulator, "_draw")],
    "read": [(kind, name) for kind in (FileReader, PackedReader, RoutedReader) for name in ("read", "length")],
    "rooms": [(reverberation, "room_responses")],
    "convolution": [(reverberation, "reverberate")],
    "noise": [(rendering, "render_noise")],
    "effects": [(rendering, "apply_effects"), (rendering, "_apply_mixture_effects")],
    "levels": [(module, "active_level_db") for module in (speaker_pool, rendering, level_setting)]
    + [(simulator, "set_levels")],
    "enrollment": [(rendering, "render_enrollment")],
    "sum, activity": [(simulator, "apply_gains")],
}
"""The functions of each stage, by the modules or classes in which they are looked up."""


class StageClock:
    """Measures processor seconds by stage, for all calls while it is installed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Measure the functions of the stages."""
        with ExitStack() as patches:
            for stage, functions in STAGES.items():
                for owner, name in functions:
                    timed = self._timed(stage, getattr(owner, name))
                    patches.enter_context(mock.patch.object(owner, name, timed))
            yield

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*positional: Any, **named: Any) -> Any:
            self._switch(stage)
            try:
                return function(*positional, **named)
            finally:
                self._switch(None)

        return run

    def _switch(self, stage: str | None) -> None:
        """Enter a stage, or leave the innermost one (`None`); the time until now counts for the innermost stage."""
        now = time.process_time()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        if stage is None:
            self._running.pop()
        else:
            self._running.append(stage)
        self._since = now


def stages_ms(case: Case, count: int) -> list[float]:
    """Return the processor milliseconds per mixture of each stage."""
    case_simulator, clock = opened(case, count), StageClock()
    with clock.installed():
        make(case_simulator, count)
    return [1000 * clock.seconds[stage] / count for stage in STAGES]


def device_line(corpus: BenchCorpus, count: int, rounds: int) -> str:
    """Measure noise and rooms, decoded before, rendered in batches on a GPU if there is one."""
    import torch

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reader = pack([*corpus.speech, *corpus.noises], corpus.folder / "packed", SAMPLE_RATE)
    dry_simulator = DrySimulator(NOISY_ROOM, corpus.speech, corpus.noises, reader)
    batches = max(1, count // DEVICE_BATCH)
    drawing, rendering_times = [], []
    for number in range(rounds + 1):  # the first round measures the levels of recordings, and is not counted
        drawn = rendered = 0.0
        for first in range(0, batches * DEVICE_BATCH, DEVICE_BATCH):
            began = time.process_time()
            mixtures = [dry_simulator.dry(LATER_EPOCH, index) for index in range(first, first + DEVICE_BATCH)]
            batch = collate_dry(mixtures, SAMPLE_RATE)
            drawn += time.process_time() - began
            clock = time.perf_counter if device.type == "cuda" else time.process_time
            began = clock()
            samples = render_on_device(batch.to(device))
            _ = float(samples[-1].mixture[0])  # waits for the device
            rendered += clock() - began
        if number:
            drawing.append(drawn)
            rendering_times.append(rendered)
    worker_ms, device_ms = (1000 * min(took) / (batches * DEVICE_BATCH) for took in (drawing, rendering_times))
    name = f"{torch.cuda.get_device_name()}, wall clock" if device.type == "cuda" else "the CPU, one thread"
    return (
        f"Noise and room, decoded before, batched on the device ({DEVICE_BATCH} at once): {worker_ms:.1f} ms CPU a "
        f"mixture for the worker, which draws, reads and pads ({1000 / worker_ms:.0f} a second), and {device_ms:.1f} "
        f"ms for the device, {name} ({1000 / device_ms:.0f} a second)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--count", type=int, default=200, help="mixtures of a round (default 200)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=16, help="mixtures in a training step")
    parser.add_argument("--step-s", type=float, default=0.25, help="seconds that a training step takes")
    parser.add_argument("--options", action="store_true", help="measure the cost of single options instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        corpus = make_corpus(arguments, folder)
        print(f"{corpus.about}; {arguments.count} mixtures, best of {arguments.rounds} rounds.\n", flush=True)
        if arguments.options:
            print("| mixtures | ms CPU each |\n| --- | --- |", flush=True)
            for case in option_cases(corpus):
                count = max(1, round(arguments.count * case.share))
                print(f"| {case.name} | {1000 * seconds_per_mixture(case, count, arguments.rounds):.1f} |", flush=True)
            return
        print(f"| mixtures | per second | target | ms CPU each | {' | '.join(STAGES)} |")
        print("| --- " * (4 + len(STAGES)) + "|", flush=True)
        needed = []
        for case in main_cases(corpus):
            seconds = seconds_per_mixture(case, arguments.count, arguments.rounds)
            stages = " | ".join(f"{ms:.2f}" for ms in stages_ms(case, arguments.count))
            target = "" if case.target is None else f"{case.target}"
            print(f"| {case.name} | {1 / seconds:.0f} | {target} | {1000 * seconds:.1f} | {stages} |", flush=True)
            needed.append(f"{workers_needed(arguments.items, arguments.step_s, seconds)} for {case.name}")
        print(f"\n{device_line(corpus, arguments.count, arguments.rounds)}", flush=True)
        step = f"{arguments.items} mixtures every {arguments.step_s:g} s"
        print(f"\nWorkers (each on a core of its own) that keep up with training steps of {step}: {'; '.join(needed)}.")


if __name__ == "__main__":
    main()
