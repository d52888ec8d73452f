"""What the bench of simulation measures: named configurations, each over a reader of the same corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.simulation_corpus import SAMPLE_RATE, BenchCorpus
from wesep_py.data import Reader, Utterance, pack, read_speech, write_shards
from wesep_py.data.reader import FileReader
from wesep_py.data.recordings import open_reader
from wesep_py.simulation import EffectsConfig, EnrollmentConfig, NoiseConfig, RoomConfig, SimulationConfig, Simulator
from wesep_py.simulation.description.effects import (
    BandLimitConfig,
    ClipConfig,
    CodecConfig,
    EqualiseConfig,
    LevelConfig,
    PacketLossConfig,
    ResampleConfig,
)

CACHE_MIB = 8  # a large corpus does not fit: hardly a recording is still there when it is drawn again
NOISY_ROOM = SimulationConfig(noise=NoiseConfig(probability=1.0), room=RoomConfig())
ALL_BUT_CODECS = EffectsConfig(
    level=LevelConfig(),
    equalise=EqualiseConfig(),
    band_limit=BandLimitConfig(),
    clip=ClipConfig(),
    resample=ResampleConfig(),
    packet_loss=PacketLossConfig(),
)


@dataclass(frozen=True)
class Case:
    """A row of a table.

    Attributes:
        name: what is made, from what.
        open: a simulator that has read nothing yet.
        target: mixtures a second that are wanted; `None`: as it comes.
        first_time: whether every round begins with a new simulator: nothing decoded, no level of a recording known.
        share: of the mixtures of other cases, as this one is slow.
    """

    name: str
    open: Callable[[], Simulator]
    target: int | None = None
    first_time: bool = False
    share: float = 1.0


def main_cases(corpus: BenchCorpus) -> list[Case]:
    """What speed is promised of."""
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
    """What single options cost, and all of them together."""
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
