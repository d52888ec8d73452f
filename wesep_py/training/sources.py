"""From the configuration's `data` to utterances, noises and a reader of their samples."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from wesep_py.audio import info
from wesep_py.corpus import FileReader, PackedReader, Reader, Utterance, pack, read_manifest
from wesep_py.errors import InputError
from wesep_py.training.config import DataConfig

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")


def read_speech(config: DataConfig) -> list[Utterance]:
    """The utterances of all manifests of `data.train`.

    Raises:
        InputError: a manifest is missing or malformed, or an utterance stands in two of them.
    """
    root = Path(config.root)
    utterances = [u for name in config.train for u in read_manifest(_under(root, name), root)]
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.utterance_id in seen:
            raise InputError(f"data.train: utterance {utterance.utterance_id!r} is in two manifests; name it once")
        seen.add(utterance.utterance_id)
    return utterances


def read_noises(config: DataConfig) -> list[Utterance]:
    """The recordings of `data.noise`: of manifests, of folders (all audio files below them), and single files.

    Raises:
        InputError: a name that stands for nothing, a folder without audio.
    """
    root = Path(config.root)
    noises: list[Utterance] = []
    for name in config.noise:
        path = _under(root, name)
        if path.suffix in (".jsonl", ".csv"):
            noises.extend(read_manifest(path, root))
            continue
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix.lower() in AUDIO_SUFFIXES)
        if not files:
            raise InputError(f"data.noise: {path} is no manifest, no audio file and no folder that holds any")
        noises.extend(_noise(file, root) for file in files)
    return noises


def make_reader(
    config: DataConfig,
    recordings: list[Utterance],
    sample_rate: int,
    may_pack: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> Reader:
    """A reader of the recordings: of the memory map `data.packed`, made if it is not there, or of the files.

    Args:
        config: the `data` of the configuration.
        recordings: all that will be read.
        sample_rate: of the model, in Hz.
        may_pack: whether this process makes the memory map (one process of a run does, the others wait).
        on_progress: called with the number of recordings packed, and of all.
    """
    if config.packed is None:
        return FileReader(sample_rate)
    if may_pack:
        Path(config.packed).parent.mkdir(parents=True, exist_ok=True)
        pack(recordings, config.packed, sample_rate, os.cpu_count() or 1, on_progress)
    return PackedReader(config.packed)


def _noise(file: Path, root: Path) -> Utterance:
    """A noise recording; its id is its path under the root."""
    name = Path(os.path.relpath(file, root)).with_suffix("").as_posix()
    return Utterance(f"noise:{'_'.join(name.split())}", "noise", file, info(file).duration_s)


def _under(root: Path, name: str) -> Path:
    """The path under the root; an absolute one as it is."""
    return root / name
