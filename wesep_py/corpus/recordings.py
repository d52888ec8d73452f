"""From names in a configuration to recordings: speech by manifests, noise also by files and folders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wesep_py.audio.files import info
from wesep_py.corpus.durations import check_name
from wesep_py.corpus.folders import find_audio
from wesep_py.corpus.manifest import read_manifest
from wesep_py.corpus.places import is_file
from wesep_py.corpus.stores import is_store, locate, open_store
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import AudioError, InputError

logger = logging.getLogger(__name__)

MANIFEST_SUFFIXES = (".jsonl", ".csv")


def read_speech(names: Sequence[str], root: Path | None = None) -> list[Utterance]:
    """The utterances of several manifests, or of stores.

    Args:
        names: manifests, folders of shards or LMDB files, relative to `root`, or URLs of folders of shards.
        root: a folder, from which paths inside the manifests start too; `None`: the working folder for the names, and
            each manifest's own folder for the paths inside it.

    Raises:
        InputError: a manifest is missing or malformed, or an utterance stands in two of them.
    """
    base = Path.cwd() if root is None else root
    utterances = [utterance for name in names for utterance in _read(name, base, root)]
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.utterance_id in seen:
            raise InputError(f"speech: utterance {utterance.utterance_id!r} is in two manifests; name it once")
        seen.add(utterance.utterance_id)
    return utterances


def find_noises(names: Sequence[str], root: Path) -> list[Utterance]:
    """Noise recordings as utterances of a speaker `noise`.

    Args:
        names: manifests, LMDB files, folders of shards, audio files, or folders, all of whose audio files are taken
            but those that cannot be read, which the log names; relative to `root`.
        root: a folder.

    Raises:
        AudioError: an audio file that is named itself cannot be read, or none of a folder.
        InputError: a name that stands for nothing, or a folder without audio.
    """
    noises: list[Utterance] = []
    for name in names:
        path = root / name
        if path.suffix in MANIFEST_SUFFIXES or is_store(locate(name, root)):
            noises.extend(_read(name, root, root))
            continue
        files = list(find_audio(path)) if path.is_dir() else [path]
        if not files or not all(map(is_file, files)):
            raise InputError(f"noise: {path} is no manifest, no audio file and no folder that holds any")
        left_out = 0
        for file in files:
            try:
                check_name(file)
                duration_s = info(file).duration_s
            except AudioError as error:
                left_out += 1
                if left_out == len(files):
                    raise
                logger.warning("noise: left out of %s (%d so far): %s", path, left_out, error)
                continue
            place = file.relative_to(root) if file.is_relative_to(root) else file
            noise_id = "noise/" + "/".join(
                "_".join(part.split()) for part in place.with_suffix("").parts if part != "/"
            )
            noises.append(Utterance(noise_id, "noise", file, duration_s))
    return noises


def _read(name: str, base: Path, root: Path | None) -> list[Utterance]:
    place = locate(name, base)
    return open_store(place).utterances(root) if is_store(place) else read_manifest(base / name, root)


def perturb_speed(utterances: Sequence[Utterance], speeds: Sequence[float]) -> list[Utterance]:
    """Every utterance at every speed; at another speed than recorded, its speaker is another speaker.

    Tempo and pitch change together, as does everything that a voice is known by: Ko et al., "Audio augmentation for
    speech recognition" (Interspeech 2015); as further speakers: Yamamoto et al., "Speaker augmentation and bandwidth
    extension for deep speaker embedding" (Interspeech 2019).

    Args:
        utterances: as recorded.
        speeds: factors above 0, for example `[0.9, 1, 1.1]`, none twice.

    Raises:
        InputError: no speed, one that comes twice, or one that is not above 0.

    >>> [u.speaker_id for u in perturb_speed([Utterance("a-1", "a", Path("1.wav"), 2.2)], [1, 1.1])]
    ['a', 'a@1.1']
    """
    if not speeds or len(set(speeds)) < len(speeds) or min(speeds) <= 0:
        raise InputError(
            f"speeds: is {list(speeds)}; factors above 0, each once, are needed, for example [0.9, 1, 1.1]"
        )
    changed = []
    for speed in speeds:
        if speed == 1:
            changed.extend(utterances)
            continue
        mark = f"@{speed:g}"
        changed.extend(
            replace(
                utterance,
                utterance_id=utterance.utterance_id + mark,
                speaker_id=utterance.speaker_id + mark,
                duration_s=utterance.duration_s / speed,
                speed=utterance.speed * speed,
            )
            for utterance in utterances
        )
    return changed
