"""A corpus of mixtures as one YAML file: which recordings, at what rate, mixed how."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from wesep_py.corpus import Reader, find_noises, perturb_speed, read_speech
from wesep_py.corpus.stores import locate, reader_of
from wesep_py.simulation.config import RoomConfig, SimulationConfig
from wesep_py.simulation.draw import Simulator


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
        reader = reader_of([locate(name, base) for name in (*config.speech, *config.noise)], config.sample_rate)
    simulation = config.simulation if root is None else _with_banks_in(root, config.simulation)
    return Simulator(simulation, utterances, noises, reader, config.seed)


def _with_banks_in(root: Path, config: SimulationConfig) -> SimulationConfig:
    """The configuration with room banks relative to the root."""

    def place(room: RoomConfig | None) -> RoomConfig | None:
        return room if room is None or room.bank is None else replace(room, bank=str(root / room.bank))

    enrollment = replace(config.enrollment, room=place(config.enrollment.room))
    return replace(config, room=place(config.room), enrollment=enrollment)
