"""Kaldi data folders: `wav.scp`, `utt2spk`, `segments` and what may stand beside them."""

from __future__ import annotations

import math
import os
from pathlib import Path

from wesep_py.common.errors import InputError
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import open_lines
from wesep_py.data.manifest import Places, Utterance
from wesep_py.data.reader import OnBad, OnProgress, measure_durations

# An utterance's recording, its start and its end in seconds (`None`: the end of the recording).
_Segment = tuple[str, float, "float | None"]


def read_kaldi(
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    on_bad: OnBad | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """The utterances of a Kaldi data folder (https://kaldi-asr.org/doc/data_prep.html), in the order of `utt2spk`.

    `wav.scp` and `utt2spk` are needed; `segments` (an end of -1 is the end of the recording), `utt2dur`,
    `spk2gender` and `text` are used if they are there. Without `segments` every recording is an utterance. A
    command in `wav.scp` (a line that ends in `|`) is never run.

    Args:
        folder: the data folder.
        root: the folder that relative paths start from; by default the data folder. Kaldi's own start from the
            folder that the recipe was run in.
        on_bad: called with each recording that cannot be read, whose utterances are then left out.
        on_progress: called with the number of recordings looked at and of all.

    Raises:
        InputError: a file is missing or malformed, or names something that another lacks; the message names
            file and line.
        AudioError: a bad recording, and there is no `on_bad`.
    """
    folder = Path(folder)
    base = Path(root) if root is not None else folder
    recordings = _recordings(folder / "wav.scp", base)
    speakers = _table(folder / "utt2spk")
    if (folder / "segments").is_file():
        segments = _segments(folder / "segments", recordings)
    else:
        segments = {recording: (recording, 0.0, None) for recording in recordings}
    genders = _optional_table(folder / "spk2gender")
    texts = _optional_table(folder / "text")
    known = _known_durations(folder) if not (folder / "segments").is_file() else {}
    named = {}
    for utterance_id, (place, speaker_id) in speakers.items():
        if utterance_id not in segments:
            where = "segments" if (folder / "segments").is_file() else "wav.scp"
            raise InputError(f"{place}: utterance {utterance_id!r} is not in {where}; run Kaldi's fix_data_dir.sh")
        named[utterance_id] = (speaker_id, segments[utterance_id])
    unmeasured = [recordings[name] for u, (_, (name, _, end)) in named.items() if end is None and u not in known]
    durations = measure_durations(unmeasured, on_bad, on_progress)
    utterances = []
    for utterance_id, (speaker_id, (name, start_s, end_s)) in named.items():
        path = recordings[name]
        if end_s is None and utterance_id in known:
            end_s = known[utterance_id]
        elif end_s is None:
            end_s = durations.get(path)
        if end_s is None:
            continue  # `on_bad` has been told of the recording
        place = speakers[utterance_id][0]
        if end_s <= start_s:
            raise InputError(f"{place}: utterance {utterance_id!r} begins at {start_s} s and ends at {end_s} s")
        utterances.append(
            Utterance(
                utterance_id,
                speaker_id,
                path,
                end_s - start_s,
                start_s,
                genders[canonical(speaker_id)][1] if canonical(speaker_id) in genders else None,
                None,
                (texts[utterance_id][1] or None) if utterance_id in texts else None,
            )
        )
    return utterances


def _table(path: Path) -> dict[str, tuple[str, str]]:
    """Of each line `key value…` the key, and under it the line's place and the value."""
    table: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(open_lines(path, f"a Kaldi data folder with {path.name}"), start=1):
        if not line.strip():
            continue
        key, *value = line.split(maxsplit=1)
        key = canonical(key)
        place = f"{path}:{number}"
        if key in table:
            raise InputError(f"{place}: {key!r} stands at {table[key][0]} already; it must be unique")
        if not value and path.name != "text":
            raise InputError(f"{place}: has one field; a name and a value are needed")
        table[key] = (place, value[0].strip() if value else "")
    if not table:
        raise InputError(f"{path}: is empty")
    return table


def _optional_table(path: Path) -> dict[str, tuple[str, str]]:
    return _table(path) if path.is_file() else {}


def _recordings(scp: Path, base: Path) -> dict[str, Path]:
    recordings, places = {}, Places(base, scp)
    for name, (place, value) in _table(scp).items():
        if value.endswith("|"):
            raise InputError(f"{place}: {value!r} is a command, which is not run; write its output to a file first")
        archive, colon, offset = value.rpartition(":")
        if colon and offset.isdigit() and archive.endswith(".ark"):
            raise InputError(f"{place}: {value!r} is in an archive; copy it to files first (Kaldi's wav-copy)")
        recordings[name] = places.find(value)
    return recordings


def _segments(path: Path, recordings: dict[str, Path]) -> dict[str, _Segment]:
    segments: dict[str, _Segment] = {}
    for utterance_id, (place, value) in _table(path).items():
        fields = value.split()
        if len(fields) != 3:
            raise InputError(f"{place}: has {len(fields) + 1} fields; utterance, recording, start and end are needed")
        name = canonical(fields[0])
        if name not in recordings:
            raise InputError(f"{place}: recording {name!r} is not in wav.scp; run Kaldi's fix_data_dir.sh")
        start_s, end_s = _seconds(fields[1], place), _seconds(fields[2], place)
        if start_s < 0 or (end_s != -1 and end_s <= start_s):
            raise InputError(f"{place}: a segment from {start_s} to {end_s} s; it must begin at 0 or later, and last")
        segments[utterance_id] = (name, start_s, None if end_s == -1 else end_s)
    return segments


def _known_durations(folder: Path) -> dict[str, float]:
    return {name: _seconds(value, place) for name, (place, value) in _optional_table(folder / "utt2dur").items()}


def _seconds(value: str, place: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"{place}: {value!r} is no time; seconds are needed")
    return seconds
