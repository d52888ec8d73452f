"""Audio made elsewhere, matched by name: which estimate belongs to which reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wesep_py.corpus.mixtures import MIXTURE_FOLDERS, source_ids
from wesep_py.errors import InputError
from wesep_py.names import canonical, is_hidden, printable

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}


@dataclass(frozen=True)
class Pair:
    """One estimate and what it is scored against.

    Attributes:
        name: the mixture's: path of the reference under its folder, without suffix; in a tree, of the mixture.
        target: the target's utterance; in a folder that is no tree, the name again.
        reference: the target alone; `None` if it is not known.
        estimate: what was made; `None` if there is none.
        mixture: what it was made from, where that is known.
        interferers: the other speakers; `None` if they are not known.
        enrollment: the recording that shows the voice, where that is known.
    """

    name: str
    target: str
    reference: Path | None
    estimate: Path | None
    mixture: Path | None = None
    interferers: tuple[Path, ...] | None = None
    enrollment: Path | None = None


def find_pairs(
    reference: Path | None,
    estimate: Path,
    mixture: Path | None = None,
    interferers: Sequence[Path] = (),
    enrollment: Path | None = None,
    condition: Literal["clean", "noisy"] = "clean",
) -> list[Pair]:
    """All references with their estimates, in the order of their names.

    A folder with `s1`, `s2`, … is a LibriMix tree: each of its sources is a reference, the others of the mixture are
    the interferers, and `mix_clean` or `mix_both` holds the mixtures. Estimates then lie in folders of the same names,
    `s1/MIXTURE.wav`, `s2/MIXTURE.wav`. In any other folder, files of one name (and sub-folder) belong together;
    suffixes may differ.

    Without references every estimate is a trial. One in a sub-folder, `MEETING/ALICE.wav`, is of the recording
    `MEETING` and the speaker `ALICE`, whose mixture and enrollment may bear these names alone.

    Args:
        reference: folder of the targets alone, or a tree; `None` if there is none.
        estimate: folder of what was made.
        mixture: folder of the mixtures; in a tree by default its own.
        interferers: folders of the other speakers, one a speaker; in a tree its own.
        enrollment: folder of the enrollments, named like the estimates.
        condition: which of a tree's mixtures: `clean` or `noisy`.

    Raises:
        InputError: a folder is missing; no estimate matches; interferers are named for a tree, or without references.
    """
    for folder in (
        *([reference] if reference else []),
        estimate,
        *([mixture] if mixture else []),
        *interferers,
        *([enrollment] if enrollment else []),
    ):
        if not folder.is_dir():
            raise InputError(f"{folder}: is no folder; name one with audio files")
    if reference is None:
        if interferers:
            raise InputError("interferers are compared with references, and there are none; leave out --interferers")
        pairs = _by_estimate(estimate, mixture, enrollment)
        if not pairs:
            raise InputError(f"{estimate}: holds no audio files")
        return pairs
    sources = _sources_of(reference)
    if sources:
        if interferers:
            raise InputError(f"{reference}: is a tree with {', '.join(sources)}; its interferers are known, name none")
        pairs = _in_tree(reference, sources, estimate, mixture, enrollment, condition)
    else:
        pairs = _in_folder(reference, estimate, mixture, interferers, enrollment)
    if not pairs:
        raise InputError(f"{reference}: holds no audio files")
    if all(pair.estimate is None for pair in pairs):
        wanted = Path(f"s1/{pairs[0].name}.*" if sources else f"{pairs[0].name}.*")
        raise InputError(f"{estimate}: no file has the name of a reference; {wanted} is looked for, for example")
    return pairs


def unmatched(pairs: Sequence[Pair], estimate: Path) -> list[str]:
    """The names of the estimates that no reference belongs to."""
    used = {pair.estimate for pair in pairs}
    return sorted(name for name, path in _files(estimate).items() if path not in used)


def _by_estimate(estimate: Path, mixture: Path | None, enrollment: Path | None) -> list[Pair]:
    mixtures, enrollments = _files(mixture), _files(enrollment)
    pairs = []
    for name, path in _files(estimate).items():
        recording, _, target = name.rpartition("/")
        recording, target = recording or name, target or name
        pairs.append(
            Pair(
                recording,
                target,
                None,
                path,
                mixtures.get(name, mixtures.get(recording)),
                None,
                enrollments.get(name, enrollments.get(target)),
            )
        )
    return pairs


def _in_folder(
    reference: Path, estimate: Path, mixture: Path | None, interferers: Sequence[Path], enrollment: Path | None
) -> list[Pair]:
    estimates, mixtures, enrollments = (_files(folder) for folder in (estimate, mixture, enrollment))
    others = [_files(folder) for folder in interferers]
    return [
        Pair(
            name,
            name,
            path,
            estimates.get(name),
            mixtures.get(name),
            tuple(files[name] for files in others if name in files) if interferers else None,
            enrollments.get(name),
        )
        for name, path in _files(reference).items()
    ]


def _in_tree(
    tree: Path, sources: list[str], estimate: Path, mixture: Path | None, enrollment: Path | None, condition: str
) -> list[Pair]:
    images = {source: _files(tree / source) for source in sources}
    mixtures = _files(mixture or tree / MIXTURE_FOLDERS[condition])
    estimates, enrollments = _files(estimate), _files(enrollment)
    pairs = []
    for name in images[sources[0]]:
        own = [source for source in sources if name in images[source]]
        ids = source_ids(name, [Path(name)] * len(own))
        for source, target in zip(own, ids, strict=True):
            pairs.append(
                Pair(
                    name,
                    target if len(set(ids)) == len(ids) else source,
                    images[source][name],
                    estimates.get(f"{source}/{name}"),
                    mixtures.get(name),
                    tuple(images[other][name] for other in own if other != source),
                    enrollments.get(f"{source}/{name}"),
                )
            )
    return pairs


def _sources_of(folder: Path) -> list[str]:
    numbered = [(int(m[1]), e.name) for e in folder.iterdir() if e.is_dir() and (m := re.fullmatch(r"s(\d+)", e.name))]
    return [name for _, name in sorted(numbered)]


def _files(folder: Path | None) -> dict[str, Path]:
    """Audio files below a folder, by their path in it without suffix; hidden ones are passed over.

    Raises:
        InputError: two files have one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")) if folder is not None and folder.is_dir() else []:
        within = path.relative_to(folder)
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and not any(map(is_hidden, within.parts)):
            name = printable(canonical(within.with_suffix("").as_posix()))
            if name in found:
                raise InputError(f"{path}: has the name of {found[name].name}; which of them is meant?")
            found[name] = path
    return found
