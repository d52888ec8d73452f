"""WSJ0-2mix and its relatives: utterances, mixtures, and the enrollments that papers evaluate with.

Hershey et al., "Deep clustering" (ICASSP 2016). The name of a mixture lists utterance and level in dB of each speaker:
`01aa010b_1.3972_20co0106_-1.3972`. The first three characters of an utterance's id are its speaker.

- `read_wsj0mix`: WSJ0, a list of mixtures, or a rendered set, as a corpus of utterances.
- `read_wsj0_mixtures`, `check_set_is_complete`, `mixture_list_csv`: a rendered set as a list of mixtures.
- `convert_enrollment_list`, `draw_enrollment_map`: the trials of a rendered set.
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

from wesep_py.common.errors import InputError, quoted
from wesep_py.common.textfiles import open_lines
from wesep_py.data.corpora import find_audio
from wesep_py.data.manifest import FileLocator, Utterance, is_file
from wesep_py.data.reader import OnProgress, OnSkip, measure_durations

SPEAKER_CHARACTERS = 3
WSJ0_MIXTURE_FOLDER = "mix"
_UTTERANCE_ID = re.compile(r"[0-9a-z]{8}")


def read_wsj0mix(
    source: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    on_skip: OnSkip | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """Return the utterances of WSJ0 or of WSJ0-mix, as a corpus.

    Args:
        source: a folder with WSJ0's recordings (`wsj0/si_tr_s`, with `01a/01aa010b.wav`); a list `mix_2_spk_tr.txt`, of
            which every utterance is taken once; or a rendered set, whose sources are utterances `<mixture>-s<k>` of
            their own.
        root: the folder that holds `wsj0`, from which the paths of a list start; by default the list's own.
        on_skip: called with each recording that cannot be read; the recording is skipped.
        on_progress: called with the number of recordings measured and the total number.

    Raises:
        InputError: the source is none of these, or a line or a name is malformed.
        AudioError: a recording cannot be read, and `on_skip` is `None`.
    """
    source = Path(source)
    if source.is_file():
        recordings = _read_mixing_list(source, Path(root) if root is not None else source.parent)
        entries = [(utterance_id, utterance_id, path) for utterance_id, path in recordings.items()]
    elif (source / WSJ0_MIXTURE_FOLDER).is_dir():
        entries = [
            (f"{mixture.mixture_id}-s{k}", utterance_id, path)
            for mixture in read_wsj0_mixtures(source)
            for k, (utterance_id, path) in enumerate(zip(mixture.utterance_ids, mixture.sources, strict=True), start=1)
        ]
    else:
        entries = [(utterance_id, utterance_id, path) for utterance_id, path in _find_recordings(source).items()]
    durations = measure_durations((path for _, _, path in entries), on_skip, on_progress)
    return [
        Utterance(utterance_id, recorded_id[:SPEAKER_CHARACTERS], path, durations[path])
        for utterance_id, recorded_id, path in entries
        if path in durations
    ]


def _find_recordings(folder: Path) -> dict[str, Path]:
    """Return WSJ0's recordings below a folder, by their ids; the first if there are two of one id."""
    recordings: dict[str, Path] = {}
    for path in find_audio(folder) if folder.is_dir() else ():
        if _UTTERANCE_ID.fullmatch(path.stem):
            recordings.setdefault(path.stem, path)
    if not recordings:
        raise InputError(
            f"{folder}: holds no recording named like 01aa010b.wav; give wsj0, or a part of it such as wsj0/si_tr_s, "
            "converted from sphere to wav"
        )
    return dict(sorted(recordings.items()))


def _read_mixing_list(path: Path, root: Path) -> dict[str, Path]:
    """Return the recordings of a list of mixtures, each once.

    A line names recording and level in dB of each speaker: `wsj0/si_tr_s/01a/01aa010b.wav 1.39 wsj0/… -1.39`.
    """
    recordings: dict[str, Path] = {}
    locator = FileLocator(root, path)
    for number, line in enumerate(open_lines(path, "a list of WSJ0-mix"), start=1):
        fields = line.split()
        if len(fields) % 2 or not all(_is_number(level) for level in fields[1::2]):
            raise InputError(
                f"{path}:{number}: is {quoted(line)}; a path and a level in dB for each speaker are needed"
            )
        for recording in fields[::2]:
            recordings.setdefault(PureWindowsPath(recording).stem, locator.find(recording))
    if not recordings:
        raise InputError(f"{path}: names no utterance")
    return recordings


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# Rendered sets.


@dataclass(frozen=True)
class WSJ0Mixture:
    """One rendered mixture: its id, its file, and for each speaker the utterance and its image."""

    mixture_id: str
    path: Path
    utterance_ids: tuple[str, ...]
    sources: tuple[Path, ...]


def read_wsj0_mixtures(folder: str | os.PathLike[str]) -> list[WSJ0Mixture]:
    """Return the mixtures of a rendered set, for example `2speakers/wav8k/min/tt`, sorted by their ids.

    Raises:
        InputError: there are no folders `mix`, `s1`, `s2`, …; or a source is missing, a name is of another corpus, or a
            mixture has one speaker twice.
    """
    folder = Path(folder)
    mixture_files = {path.stem: path for path in find_audio(folder / WSJ0_MIXTURE_FOLDER)}
    if not mixture_files:
        raise InputError(
            f"{folder}: has no folder {WSJ0_MIXTURE_FOLDER} with recordings; "
            "give a set of WSJ0-mix, such as 2speakers/wav8k/min/tt"
        )
    mixtures = []
    for mixture_id, path in sorted(mixture_files.items()):
        utterance_ids = utterance_ids_of_mixture(mixture_id)
        if len({utterance_id[:SPEAKER_CHARACTERS] for utterance_id in utterance_ids}) < len(utterance_ids):
            raise InputError(f"{path}: two of its sources are of one speaker; the speakers of a mixture must differ")
        sources = tuple(folder / f"s{k}" / path.name for k in range(1, len(utterance_ids) + 1))
        for source in sources:
            if not source.is_file():
                raise InputError(f"{source}: no such file, and {path} is there; render the set again")
        mixtures.append(WSJ0Mixture(mixture_id, path, utterance_ids, sources))
    return mixtures


def utterance_ids_of_mixture(mixture_id: str) -> tuple[str, ...]:
    """Return the ids of the utterances that the id of a mixture lists.

    Raises:
        InputError: it is not named as WSJ0-mix names mixtures.

    >>> utterance_ids_of_mixture("01aa010b_1.3972_20co0106_-1.3972")
    ('01aa010b', '20co0106')
    """
    utterance_ids = tuple(mixture_id.split("_")[::2])
    if len(mixture_id.split("_")) % 2 or not all(map(_UTTERANCE_ID.fullmatch, utterance_ids)):
        raise InputError(
            f"{mixture_id}: is not the name of a WSJ0-mix mixture, which lists utterance and level of each speaker, "
            "for example 01aa010b_1.3972_20co0106_-1.3972"
        )
    return utterance_ids


def check_set_is_complete(mixtures: Iterable[WSJ0Mixture], listing: str | os.PathLike[str]) -> None:
    """Refuse a set that lacks a mixture of its list `mix_2_spk_*.txt`.

    Raises:
        InputError: mixtures are missing. The message names the first, and their number.
    """
    rendered = {_comparable(mixture.mixture_id.split("_")) for mixture in mixtures}
    missing = []
    for line in open_lines(listing, "a list of WSJ0-mix"):
        fields = [field if k % 2 else PureWindowsPath(field).stem for k, field in enumerate(line.split())]
        if fields and _comparable(fields) not in rendered:
            missing.append("_".join(fields))
    if missing:
        raise InputError(
            f"{listing}: {len(missing)} of its mixtures are not there, the first {missing[0]}; render them"
        )


def _comparable(parts: Sequence[str]) -> tuple[str, ...]:
    """Return utterances and levels, levels with three digits: the name of a file may have fewer than the list."""
    return tuple(f"{float(part):.3g}" if k % 2 else part for k, part in enumerate(parts))


def mixture_list_csv(mixtures: Sequence[WSJ0Mixture]) -> str:
    """Return the mixtures as a list in LibriMix's form, with speakers; relative paths are made absolute."""
    max_sources = max(len(mixture.sources) for mixture in mixtures)
    numbers = range(1, max_sources + 1)
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


# Trials of a rendered set, as a map in SpeakerBeam's form: `<mixture> <target> <enrollment>` per line.


def convert_enrollment_list(
    mixtures: Sequence[WSJ0Mixture], listing: str | os.PathLike[str], wsj0: str | os.PathLike[str]
) -> str:
    """Return the trials of an enrollment list in SpEx's form as a map in SpeakerBeam's form.

    A line of `aux.scp` (https://github.com/gemengtju/SpEx_Plus, data/wsj0_2mix) is `<mixture>_<utterance> path`. The
    target is the mixture's speaker of that utterance.

    Args:
        mixtures: of the rendered set; lines for other mixtures are ignored.
        listing: the list.
        wsj0: the folder of WSJ0, in which an utterance is searched that is not at the path of its line.

    Raises:
        InputError: a line is malformed, names an utterance of no speaker in the mixture or one that is found nowhere,
            or no line is of these mixtures.
    """
    by_id = {mixture.mixture_id: mixture for mixture in mixtures}
    recordings: Mapping[str, Path] | None = None
    lines = []
    for number, line in enumerate(open_lines(listing, "a list of enrollments"), start=1):
        if not line.strip():
            continue
        place = f"{listing}:{number}"
        fields = line.split(maxsplit=1)
        mixture_id, _, utterance_id = fields[0].rpartition("_")
        if not mixture_id or len(fields) < 2:
            raise InputError(f"{place}: is {quoted(line.strip())}; <mixture>_<utterance> and a path are needed")
        if mixture_id not in by_id:
            continue
        path = Path(fields[1].strip())
        if not is_file(path):
            recordings = _find_recordings(Path(wsj0)) if recordings is None else recordings
            if utterance_id not in recordings:
                raise InputError(f"{place}: {path} is not there, and {quoted(utterance_id)} is nowhere in {wsj0}")
            path = recordings[utterance_id]
        target = _target_of(by_id[mixture_id], utterance_id, place)
        lines.append(f"{mixture_id} {target} {path.absolute()}\n")
    if not lines:
        raise InputError(f"{listing}: none of its lines is of the mixtures given; give the list of that set")
    return "".join(lines)


def _target_of(mixture: WSJ0Mixture, enrollment_id: str, place: str) -> str:
    """Return the utterance of a mixture that has the speaker of an enrollment."""
    speaker_id = enrollment_id[:SPEAKER_CHARACTERS]
    for utterance_id in mixture.utterance_ids:
        if utterance_id[:SPEAKER_CHARACTERS] == speaker_id:
            if utterance_id == enrollment_id:
                raise InputError(
                    f"{place}: {quoted(enrollment_id)} is what is said in the mixture; another utterance is needed"
                )
            return utterance_id
    raise InputError(
        f"{place}: {quoted(enrollment_id)} is of speaker {quoted(speaker_id)}, who is not in {mixture.mixture_id}"
    )


def draw_enrollment_map(mixtures: Sequence[WSJ0Mixture], wsj0: str | os.PathLike[str], seed: int = 0) -> str:
    """Return a map in SpeakerBeam's form with a trial per speaker and mixture; enrollments are other utterances.

    Args:
        mixtures: of the rendered set.
        wsj0: the folder of WSJ0, whose recordings are the enrollments.
        seed: seed of the drawn enrollments; those of a mixture do not depend on the other mixtures.

    Raises:
        InputError: a speaker has no utterance other than the one in the mixture.
    """
    ids_of_speaker: dict[str, list[str]] = defaultdict(list)
    recordings = _find_recordings(Path(wsj0))
    for utterance_id in sorted(recordings):
        ids_of_speaker[utterance_id[:SPEAKER_CHARACTERS]].append(utterance_id)
    lines = []
    for mixture in mixtures:
        for k, target in enumerate(mixture.utterance_ids):
            others = [other for other in ids_of_speaker[target[:SPEAKER_CHARACTERS]] if other != target]
            if not others:
                raise InputError(
                    f"{wsj0}: holds nothing but {quoted(target)} of its speaker; give the folder of all WSJ0"
                )
            rng = np.random.default_rng([seed, k, *mixture.mixture_id.encode()])
            lines.append(f"{mixture.mixture_id} {target} {recordings[others[rng.integers(len(others))]].absolute()}\n")
    return "".join(lines)
