"""WSJ0-2mix and its kin: utterances, mixtures, and the enrollments that papers evaluate with.

Hershey et al., "Deep clustering" (ICASSP 2016). A mixture is named by what it was made of, utterance and level in dB of
each speaker: `01aa010b_1.3972_20co0106_-1.3972`. The first three characters of an utterance are its speaker.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from wesep_py.common.errors import InputError
from wesep_py.common.textfiles import open_lines
from wesep_py.data.corpora import find_audio
from wesep_py.data.manifest import FileLocator, Utterance, is_file
from wesep_py.data.reader import OnProgress, OnSkip, measure_durations

SPEAKER_CHARACTERS = 3
MIXTURE_FOLDER = "mix"
_UTTERANCE = re.compile(r"[0-9a-z]{8}")


@dataclass(frozen=True)
class WSJ0Mixture:
    """One rendered mixture: its name, its file, and for each speaker utterance and image."""

    mixture_id: str
    path: Path
    utterance_ids: tuple[str, ...]
    sources: tuple[Path, ...]


def utterance_ids_of_mixture(mixture_id: str) -> tuple[str, ...]:
    """The utterances that a mixture's name says it is made of.

    Raises:
        InputError: it is not named as WSJ0-mix names them.

    >>> utterance_ids_of_mixture("01aa010b_1.3972_20co0106_-1.3972")
    ('01aa010b', '20co0106')
    """
    utterance_ids = tuple(mixture_id.split("_")[::2])
    if len(mixture_id.split("_")) % 2 or not all(map(_UTTERANCE.fullmatch, utterance_ids)):
        raise InputError(
            f"{mixture_id}: is no name of a WSJ0-mix mixture; utterance and level of each speaker make one, "
            "for example 01aa010b_1.3972_20co0106_-1.3972"
        )
    return utterance_ids


def read_wsj0_mixtures(folder: str | os.PathLike[str]) -> list[WSJ0Mixture]:
    """The mixtures of a rendered set, for example `2speakers/wav8k/min/tt`, in the order of their names.

    Raises:
        InputError: no folders `mix`, `s1`, `s2`, …, a source that is missing, a name of another corpus, or a mixture of
            one speaker.
    """
    folder = Path(folder)
    mixed = {path.stem: path for path in find_audio(folder / MIXTURE_FOLDER)}
    if not mixed:
        raise InputError(
            f"{folder}: has no folder {MIXTURE_FOLDER} with recordings; "
            "give a set of WSJ0-mix, such as 2speakers/wav8k/min/tt"
        )
    mixtures = []
    for mixture_id, path in sorted(mixed.items()):
        utterance_ids = utterance_ids_of_mixture(mixture_id)
        if len({utterance_id[:SPEAKER_CHARACTERS] for utterance_id in utterance_ids}) < len(utterance_ids):
            raise InputError(f"{path}: two of its sources are of one speaker; the speakers of a mixture have to differ")
        sources = tuple(folder / f"s{k}" / path.name for k in range(1, len(utterance_ids) + 1))
        for source in sources:
            if not source.is_file():
                raise InputError(f"{source}: no such file, and {path} is there; render the set again")
        mixtures.append(WSJ0Mixture(mixture_id, path, utterance_ids, sources))
    return mixtures


def read_wsj0mix(
    source: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    on_skip: OnSkip | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """The utterances of WSJ0 or of WSJ0-mix, as a corpus.

    Args:
        source: a folder with WSJ0's recordings (`wsj0/si_tr_s`, with `01a/01aa010b.wav`); a list `mix_2_spk_tr.txt`, of
            which every utterance is taken once; or a rendered set, whose sources are utterances
            `<mixture>-s<k>` of their own.
        root: the folder that holds `wsj0`, from which the paths of a list start; by default the list's own.
        on_skip: called with each recording that cannot be read, which is then left out.
        on_progress: called with the number of recordings looked at and of all.

    Raises:
        InputError: nothing of the kind is there, or a line or a name is malformed.
        AudioError: a bad recording, and there is no `on_skip`.
    """
    source = Path(source)
    if source.is_file():
        named = _read_list(source, Path(root) if root is not None else source.parent)
    elif (source / MIXTURE_FOLDER).is_dir():
        named = [
            (f"{mixture.mixture_id}-s{k}", utterance_id, path)
            for mixture in read_wsj0_mixtures(source)
            for k, (utterance_id, path) in enumerate(zip(mixture.utterance_ids, mixture.sources, strict=True), start=1)
        ]
    else:
        named = [(utterance_id, utterance_id, path) for utterance_id, path in _recordings(source).items()]
    durations = measure_durations((path for _, _, path in named), on_skip, on_progress)
    return [
        Utterance(name, spoken[:SPEAKER_CHARACTERS], path, durations[path])
        for name, spoken, path in named
        if path in durations
    ]


def mixture_list_csv(mixtures: Sequence[WSJ0Mixture]) -> str:
    """The mixtures as a list in LibriMix's form, which says who speaks; paths as they are given, made absolute."""
    most = max(len(mixture.sources) for mixture in mixtures)
    numbers = range(1, most + 1)
    columns = [f"source_{k}_{what}" for what in ("path", "utterance_id", "speaker_id") for k in numbers]
    text = io.StringIO()
    table = csv.DictWriter(text, ["mixture_ID", "mixture_path", *columns], restval="", lineterminator="\n")
    table.writeheader()
    for mixture in mixtures:
        row = {"mixture_ID": mixture.mixture_id, "mixture_path": str(mixture.path.absolute())}
        for k, (utterance_id, path) in enumerate(zip(mixture.utterance_ids, mixture.sources, strict=True), start=1):
            row[f"source_{k}_path"] = str(path.absolute())
            row[f"source_{k}_utterance_id"] = utterance_id
            row[f"source_{k}_speaker_id"] = utterance_id[:SPEAKER_CHARACTERS]
        table.writerow(row)
    return text.getvalue()


def convert_enrollment_list(
    mixtures: Sequence[WSJ0Mixture], listing: str | os.PathLike[str], wsj0: str | os.PathLike[str]
) -> str:
    """The trials of an enrollment list in SpEx's form, as a map in SpeakerBeam's.

    A line of `aux.scp` (https://github.com/gemengtju/SpEx_Plus, data/wsj0_2mix) is `<mixture>_<utterance> path`. The
    target is the mixture's speaker of that utterance.

    Args:
        mixtures: of the rendered set; lines for other mixtures are passed over.
        listing: the list.
        wsj0: the folder of WSJ0, where an utterance is looked for that is not at the path the line gives.

    Raises:
        InputError: a line is malformed or names an utterance of nobody in the mixture or that is nowhere, or no line is
            of these mixtures.
    """
    known = {mixture.mixture_id: mixture for mixture in mixtures}
    recordings: Mapping[str, Path] | None = None
    lines = []
    for number, line in enumerate(open_lines(listing, "a list of enrollments"), start=1):
        if not line.strip():
            continue
        place = f"{listing}:{number}"
        fields = line.split(maxsplit=1)
        mixture_id, _, utterance_id = fields[0].rpartition("_")
        if not mixture_id or len(fields) < 2:
            raise InputError(f"{place}: is {line.strip()!r}; <mixture>_<utterance> and a path are needed")
        if mixture_id not in known:
            continue
        path = Path(fields[1].strip())
        if not is_file(path):
            recordings = _recordings(Path(wsj0)) if recordings is None else recordings
            if utterance_id not in recordings:
                raise InputError(f"{place}: {path} is not there, and {utterance_id!r} is nowhere in {wsj0}")
            path = recordings[utterance_id]
        target = _target_of(known[mixture_id], utterance_id, place)
        lines.append(f"{mixture_id} {target} {path.absolute()}\n")
    if not lines:
        raise InputError(f"{listing}: none of its lines is of the mixtures given; give the list of that set")
    return "".join(lines)


def draw_enrollment_map(mixtures: Sequence[WSJ0Mixture], wsj0: str | os.PathLike[str], seed: int = 0) -> str:
    """A map in SpeakerBeam's form with a trial for every speaker of every mixture, introduced by another utterance.

    Args:
        mixtures: of the rendered set.
        wsj0: the folder of WSJ0, whose recordings introduce the voices.
        seed: another seed, other enrollments; a mixture's do not depend on the other mixtures.

    Raises:
        InputError: a speaker says nothing but what is in the mixture.
    """
    of_speaker: dict[str, list[str]] = defaultdict(list)
    recordings = _recordings(Path(wsj0))
    for utterance_id in sorted(recordings):
        of_speaker[utterance_id[:SPEAKER_CHARACTERS]].append(utterance_id)
    lines = []
    for mixture in mixtures:
        for k, target in enumerate(mixture.utterance_ids):
            others = [other for other in of_speaker[target[:SPEAKER_CHARACTERS]] if other != target]
            if not others:
                raise InputError(f"{wsj0}: holds nothing but {target!r} of its speaker; give the folder of all WSJ0")
            rng = np.random.default_rng([seed, k, *mixture.mixture_id.encode()])
            lines.append(f"{mixture.mixture_id} {target} {recordings[others[rng.integers(len(others))]].absolute()}\n")
    return "".join(lines)


def check_set_is_complete(mixtures: Iterable[WSJ0Mixture], listing: str | os.PathLike[str]) -> None:
    """Refuse a set that lacks a mixture of its list `mix_2_spk_*.txt`.

    Raises:
        InputError: mixtures are missing; the message names the first, and how many.
    """
    there = {_digest(mixture.mixture_id.split("_")) for mixture in mixtures}
    missing = []
    for line in open_lines(listing, "a list of WSJ0-mix"):
        fields = [field if k % 2 else PureWindowsPath(field).stem for k, field in enumerate(line.split())]
        if fields and _digest(fields) not in there:
            missing.append("_".join(fields))
    if missing:
        raise InputError(
            f"{listing}: {len(missing)} of its mixtures are not there, the first {missing[0]}; render them"
        )


def _digest(parts: Sequence[str]) -> tuple[str, ...]:
    """Utterances and levels; these to three digits, for a file's name may have fewer than the list."""
    return tuple(f"{float(part):.3g}" if k % 2 else part for k, part in enumerate(parts))


def _target_of(mixture: WSJ0Mixture, enrollment: str, place: str) -> str:
    speaker_id = enrollment[:SPEAKER_CHARACTERS]
    for utterance_id in mixture.utterance_ids:
        if utterance_id[:SPEAKER_CHARACTERS] == speaker_id:
            if utterance_id == enrollment:
                raise InputError(f"{place}: {enrollment!r} is what is said in the mixture; another utterance is needed")
            return utterance_id
    raise InputError(f"{place}: {enrollment!r} is of speaker {speaker_id!r}, who is not in {mixture.mixture_id}")


def _recordings(folder: Path) -> dict[str, Path]:
    """WSJ0's recordings below a folder, by their names; of two of one name the first."""
    found: dict[str, Path] = {}
    for path in find_audio(folder) if folder.is_dir() else ():
        if _UTTERANCE.fullmatch(path.stem):
            found.setdefault(path.stem, path)
    if not found:
        raise InputError(
            f"{folder}: holds no recording named like 01aa010b.wav; give wsj0, or a part of it such as wsj0/si_tr_s, "
            "converted from sphere to wav"
        )
    return dict(sorted(found.items()))


def _read_list(path: Path, root: Path) -> list[tuple[str, str, Path]]:
    """The utterances of a list of mixtures, each once: `wsj0/si_tr_s/01a/01aa010b.wav 1.39 wsj0/… -1.39` a line."""
    named: dict[str, Path] = {}
    places = FileLocator(root, path)
    for number, line in enumerate(open_lines(path, "a list of WSJ0-mix"), start=1):
        fields = line.split()
        if len(fields) % 2 or not all(_is_number(level) for level in fields[1::2]):
            raise InputError(f"{path}:{number}: is {line!r}; a path and a level in dB for each speaker are needed")
        for recording in fields[::2]:
            named.setdefault(PureWindowsPath(recording).stem, places.find(recording))
    if not named:
        raise InputError(f"{path}: names no utterance")
    return [(utterance_id, utterance_id, place) for utterance_id, place in named.items()]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
