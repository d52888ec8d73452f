"""A corpus of mixtures as one YAML file: which recordings, at what rate, mixed how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wesep_py.audio.files import info
from wesep_py.corpus import FileReader, Reader, Utterance, find_audio, read_manifest
from wesep_py.errors import InputError
from wesep_py.simulation.config import SimulationConfig
from wesep_py.simulation.draw import Simulator

MANIFEST_SUFFIXES = (".jsonl", ".csv")


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

    Raises:
        ValueError: a value out of its range, or no speech.
    """

    speech: list[str]
    noise: list[str] = field(default_factory=list)
    root: str | None = None
    sample_rate: int = 16000
    seed: int = 0
    simulation: SimulationConfig = field(default_factory=SimulationConfig)

    def __post_init__(self) -> None:
        if not self.speech:
            raise ValueError("speech: is empty; name at least one manifest")
        if not 1000 <= self.sample_rate <= 192000:
            raise ValueError(f"sample_rate: is {self.sample_rate}; give 1000 to 192000 Hz")
        if self.seed < 0:
            raise ValueError(f"seed: is {self.seed}; a whole number of 0 or more is needed")


def make_simulator(config: CorpusConfig, reader: Reader | None = None) -> Simulator:
    """The simulator of a corpus.

    Args:
        config: the corpus.
        reader: reads its recordings at `config.sample_rate`; by default a `FileReader`.

    Raises:
        InputError: a manifest, a file or a folder is missing, an utterance is in two manifests, or as
            `Simulator`.
    """
    root = None if config.root is None else Path(config.root)
    base = Path.cwd() if root is None else root
    utterances = [u for name in config.speech for u in read_manifest(base / name, root)]
    noises = find_noises(config.noise, base)
    reader = FileReader(config.sample_rate) if reader is None else reader
    return Simulator(config.simulation, utterances, noises, reader, config.seed)


def find_noises(names: Sequence[str], root: Path) -> list[Utterance]:
    """Noise recordings as utterances of a speaker `noise`.

    Args:
        names: manifests, audio files, or folders, all of whose audio files are taken; relative to `root`.
        root: a folder.

    Raises:
        InputError: a name that stands for nothing, or a folder without audio.
    """
    noises: list[Utterance] = []
    for name in names:
        path = root / name
        if path.suffix in MANIFEST_SUFFIXES:
            noises.extend(read_manifest(path, root))
            continue
        files = list(find_audio(path)) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise InputError(f"noise: {path} is no manifest, no audio file and no folder that holds any")
        for file in files:
            place = file.relative_to(root) if file.is_relative_to(root) else file
            noise_id = "noise/" + "/".join(
                "_".join(part.split()) for part in place.with_suffix("").parts if part != "/"
            )
            noises.append(Utterance(noise_id, "noise", file, info(file).duration_s))
    return noises
