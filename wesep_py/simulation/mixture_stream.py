"""Mixtures drawn from a stream of shards: each from the speakers of the window that its position belongs to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wesep_py.common.errors import InputError
from wesep_py.data import Reader, RoutedReader, Utterance, find_noises, perturb_speed, read_speech
from wesep_py.data.recordings import resolve_location, open_reader
from wesep_py.data.shard_stream import StreamPool, StreamWindow
from wesep_py.simulation.description.simulation_config import RoomConfig, SimulationConfig
from wesep_py.simulation.dry_batch import DryMixture, DrySimulator
from wesep_py.simulation.rendering import Sample
from wesep_py.simulation.simulator import UnreadableFiles, Simulator

# ----------------------------------------
# A corpus of mixtures as one YAML file: which recordings, at what rate, mixed how.


@dataclass(frozen=True)
class CorpusConfig:
    """What `wesep simulate` reads.

    Args:
        speech: manifests (`wesep prepare` writes them), relative to `root`.
        noise: manifests, audio files, or folders of audio files, relative to `root`.
        root: the folder that relative paths start from, also those inside the manifests; null: the working
            folder, and in a manifest its own folder. Recipes hold paths relative to `root`, or absolute ones
            without it.
        sample_rate: of the mixtures, in Hz.
        seed: another seed, other mixtures.
        simulation: how mixtures are drawn.
        speeds: every recording of `speech` is there at each of these speeds; at another than 1, its speaker is another
            one (`corpus.perturb_speed`).

    Raises:
        ValueError: a value out of its range, or no speech.
    """

    speech: list[str]
    noise: list[str] = field(default_factory=list)
    root: str | None = None
    sample_rate: int = 16000
    seed: int = 0
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    speeds: list[float] = field(default_factory=lambda: [1.0])

    def __post_init__(self) -> None:
        if not self.speech:
            raise ValueError("speech: is empty; name at least one manifest")
        if not 1000 <= self.sample_rate <= 192000:
            raise ValueError(f"sample_rate: is {self.sample_rate}; give 1000 to 192000 Hz")
        if self.simulation.enrollment.count < 1:
            raise ValueError(
                "simulation.enrollment.count: is 0; the trials of a corpus need an enrollment each, give 1"
            )
        if self.seed < 0:
            raise ValueError(f"seed: is {self.seed}; a whole number of 0 or more is needed")


def make_simulator(config: CorpusConfig, reader: Reader | None = None) -> Simulator:
    """The simulator of a corpus.

    Args:
        config: the corpus.
        reader: reads its recordings at `config.sample_rate`; by default a `FileReader`.

    Raises:
        InputError: a manifest, a file or a folder is missing, an utterance is in two manifests, impossible speeds, or
            as `Simulator`.
    """
    root = None if config.root is None else Path(config.root)
    utterances = perturb_speed(read_speech(config.speech, root), config.speeds)
    noises = find_noises(config.noise, Path.cwd() if root is None else root)
    if reader is None:
        base = Path.cwd() if root is None else root
        reader = open_reader([resolve_location(name, base) for name in (*config.speech, *config.noise)], config.sample_rate)
    simulation = config.simulation if root is None else _with_banks_in(root, config.simulation)
    return Simulator(simulation, utterances, noises, reader, config.seed)


def _with_banks_in(root: Path, config: SimulationConfig) -> SimulationConfig:
    """The configuration with room banks relative to the root."""

    def place(room: RoomConfig | None) -> RoomConfig | None:
        return room if room is None or room.bank is None else replace(room, bank=str(root / room.bank))

    enrollment = replace(config.enrollment, room=place(config.enrollment.room))
    return replace(config, room=place(config.room), enrollment=enrollment)


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WindowSimulator:
    """Makes a simulator of a window; what of the window cannot be used is named on the log.

    Args:
        config: how mixtures are drawn.
        noises: noise recordings, the same for all windows.
        reader: reads them.
        seed: of the run.
        speeds: every utterance is there at each of them.
        kind: what is made: `Simulator`, or `DrySimulator` for mixtures that a device renders.
        broken: the recordings that could not be read so far, in whatever window.
    """

    config: SimulationConfig
    noises: tuple[Utterance, ...]
    reader: Reader
    seed: int = 0
    speeds: tuple[float, ...] = (1.0,)
    kind: type[Simulator] = Simulator
    broken: UnreadableFiles = field(default_factory=UnreadableFiles)

    def __call__(self, window: StreamWindow) -> Simulator:
        if window.left_out:
            logger.warning(
                "%s and what follows: %d utterances are left out, the first: %s",
                window.shards[0],
                len(window.left_out),
                window.left_out[0],
            )
        speech = perturb_speed(window.utterances, self.speeds)
        reader = RoutedReader([window.reader], self.reader)
        try:
            simulator = self.kind(self.config, speech, self.noises, reader, self.seed)
        except InputError as error:
            raise InputError(
                f"{window.shards[0]} and what follows: {error}; or raise the stream's min_speakers or shards_per_window"
            ) from error
        simulator.broken = self.broken
        return simulator


class StreamSimulator:
    """Stands for a `Simulator` where speech is a stream: a mixture is a function of (seed, epoch, index).

    Args:
        shards: paths or URLs of tar files, in any order.
        build: makes the simulator of a window.
        epoch_size: mixtures in an epoch; the stream goes on from epoch to epoch, however many shards there are.
        windows: further arguments of `StreamPool`.

    Raises:
        InputError: as `StreamPool`.

    >>> build = WindowSimulator(SimulationConfig(), (), FileReader(16000))         # doctest: +SKIP
    >>> StreamSimulator(["a.tar", "b.tar"], build, epoch_size=1000).sample(0, 5)   # doctest: +SKIP
    """

    def __init__(self, shards: Sequence[str], build: WindowSimulator, epoch_size: int, **windows: int) -> None:
        self.sample_rate = build.reader.sample_rate
        self.pool = StreamPool(shards, build, self.sample_rate, epoch_size, build.seed, **windows)

    def sample(self, epoch: int, index: int) -> Sample:
        """As `Simulator.sample`; the first of a window reads its shards.

        Raises:
            AudioError: a shard is missing, no tar file, or cut short.
            InputError: too few speakers, or as `Simulator.sample`.
        """
        return self.pool.at(epoch, index).sample(epoch, index)

    def dry(self, epoch: int, index: int) -> DryMixture:
        """As `DrySimulator.dry`, where `build` makes these."""
        simulator = self.pool.at(epoch, index)
        if not isinstance(simulator, DrySimulator):
            raise TypeError(f"windows give {type(simulator).__name__}; dry mixtures need DrySimulator")
        return simulator.dry(epoch, index)
