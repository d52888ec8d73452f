"""How long a training mixture takes to draw and render, from a packed corpus, on one core.

    python bench/mixtures.py MANIFEST --root DIR [--noise FILE_OR_FOLDER] [--packed FOLDER] [--count 300]

CPU milliseconds a mixture of 3 s, two speakers, an enrollment of 3 to 6 s for each, best of ten rounds: plain, with
noise, in a room, as a conversation, and with everything on: three noises, a room, every effect on every source, on the
mixture and on every enrollment, which have noise and rooms of their own; with and without codecs. The packed corpus is
made if it is not there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from wesep_py.corpus import find_noises, pack, read_manifest
from wesep_py.simulation import EffectsConfig, EnrollmentConfig, NoiseConfig, RoomConfig, SimulationConfig, Simulator
from wesep_py.simulation.effects_config import (
    BandLimitConfig,
    ClipConfig,
    CodecConfig,
    EqualiseConfig,
    LevelConfig,
    PacketLossConfig,
    ResampleConfig,
)

SAMPLE_RATE = 16000
ROUNDS = 10
ALL_BUT_CODECS = EffectsConfig(
    level=LevelConfig(),
    equalise=EqualiseConfig(),
    band_limit=BandLimitConfig(),
    clip=ClipConfig(),
    resample=ResampleConfig(),
    packet_loss=PacketLossConfig(),
)


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
    configs["conversation"] = SimulationConfig(overlap="conversation", overlap_ratio=(0.0, 0.3))
    configs["partial overlap by activity"] = SimulationConfig(
        overlap="partial", overlap_measure="activity", overlap_ratio=(0.0, 0.5)
    )
    configs["source, mixture and enrollment clipped"] = _everywhere(EffectsConfig(clip=ClipConfig()))
    kinds = {"coloured": 1.0, "babble": 1.0} | ({"recording": 1.0} if noises else {})
    configs["everything but codecs"] = _everywhere(ALL_BUT_CODECS, kinds)
    for codec in ("ulaw", "vorbis", "opus"):
        effects = replace(ALL_BUT_CODECS, codec=CodecConfig(codecs={codec: 1.0}))
        configs[f"everything, all through {codec}"] = _everywhere(effects, kinds)
    print("| mixtures | ms CPU each |\n| --- | --- |")
    for name, config in configs.items():
        simulator = Simulator(config, utterances, noises, reader)
        share = 10 if name.startswith("everything") else 1
        for index in range(arguments.count // share):  # levels of utterances are measured once, pages are read in
            simulator.sample(0, index)
        rounds, a_round = [], max(1, arguments.count // ROUNDS // share)
        for epoch in range(1, ROUNDS + 1):
            began = time.process_time()
            for index in range(a_round):
                simulator.sample(epoch, index)
            rounds.append((time.process_time() - began) / a_round * 1000)
        print(f"| {name} | {min(rounds):.1f} |", flush=True)


def _everywhere(effects: EffectsConfig, kinds: dict[str, float] | None = None) -> SimulationConfig:
    """The effects on sources, mixture and enrollments; with `kinds`, in noise and rooms of their own too."""
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


if __name__ == "__main__":
    main()
