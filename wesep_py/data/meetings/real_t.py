"""REAL-T, the data of the REAL-TSE challenge: mixtures of real conversations, with enrollments and transcripts.

    REAL-T-dev/
      mixtures/SESSION_mixture_START_END.wav         a part of a conversation, 16 kHz
      enrolment_speakers/SESSION_SPEAKER_START_END.wav
      DEV/CORPUS_meta.csv                            a trial per line: mixture, enrollment, speaker, transcript, …
      DEV/json/CORPUS/overlap_records.json           who speaks when in each mixture, in seconds of the session

Source: Li et al., "REAL-T: Real conversational mixtures for target speaker extraction", Interspeech 2025;
https://real-tse.github.io/challenge; the layout as the scripts of REAL-TSE-Challenge read it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wesep_py.common.errors import InputError, quoted
from wesep_py.common.textfiles import Row, check_schema, read_csv, read_json
from wesep_py.data.manifest import is_file
from wesep_py.data.meetings.meeting import Interval, clipped, merged
from wesep_py.data.meetings.recording_lists import RecordedMixture, RecordingTrial
from wesep_py.data.trials import ABSENT

META_SUFFIX = "_meta.csv"
META_COLUMNS = ("mixture_utterance", "enrolment_speakers_utterance", "source", "language", "speaker")
MATCH_TOLERANCE_S = 0.02
"""Greatest difference of the times in a mixture's name from those of its record."""
_MIXTURE = re.compile(r"(?P<session>.+)_mixture_(?P<start>\d+(?:\.\d+)?)_(?P<end>\d+(?:\.\d+)?)")
_TIME = (float, str)  # a number, or one written as text
_RECORD = {
    "overlap_info": {"overlap_start_time": _TIME, "overlap_end_time": _TIME},
    "overlap_segments": [{"speaker": str, "start_time": _TIME, "end_time": _TIME}],
}


@dataclass(frozen=True)
class RealTSet:
    """The trials of a set of REAL-T.

    Attributes:
        mixtures: each once.
        trials: those of each mixture together, one with an absent target last.
        unlabelled: number of mixtures of which nobody's activity is known.
    """

    mixtures: list[RecordedMixture]
    trials: list[RecordingTrial]
    unlabelled: int


def read_real_t(
    folder: str | os.PathLike[str],
    language: str | None = None,
    absent: bool = True,
    on_skip: Callable[[str], object] | None = None,
) -> RealTSet:
    """Return the trials of a set of REAL-T.

    Args:
        folder: with `mixtures`, `enrolment_speakers` and a folder that holds `CORPUS_meta.csv` (DEV, EVAL1, EVAL2).
        language: of the trials, as the metadata has it (`en`, `zh`); `None`: all.
        absent: add for each mixture a trial with a speaker of another session of its corpus, if there is one. The
            challenge has none.
        on_skip: called with a line for each trial whose recordings do not exist.

    Raises:
        InputError: a folder, column or file is missing or malformed, or no trial is left.
    """
    folder = Path(folder)
    metadata = _metadata_folder(folder)
    mixtures: dict[str, RecordedMixture] = {}
    trials: list[RecordingTrial] = []
    speakers: dict[str, dict[tuple[str, str], str]] = {}
    for path in sorted(metadata.glob(f"*{META_SUFFIX}")):
        records = _read_records(metadata, folder, path.name.removesuffix(META_SUFFIX))
        for row in read_csv(path, "the metadata of REAL-T", META_COLUMNS):
            if language is not None and row.text("language") != language:
                continue
            trial, missing = _trial_of(row, folder)
            if missing is not None:
                if on_skip is not None:
                    on_skip(f"{row.place}: {missing} does not exist")
                continue
            trials.append(trial)
            mixtures.setdefault(trial.mixture_id, _mixture_of(row, folder, records))
            session = _parse(trial.mixture_id, row.place)[0]
            speakers.setdefault(row.text("source"), {}).setdefault((session, trial.target), trial.enrollment)
    if not trials:
        of_language = "" if language is None else f" in the language {language!r}"
        raise InputError(f"{metadata}: no trial{of_language} has its recordings below {folder}; see where they are")
    unlabelled = sum(not mixture.activity for mixture in mixtures.values())
    if absent:
        trials += _absent_trials(list(mixtures.values()), speakers)
    order = {mixture_id: number for number, mixture_id in enumerate(mixtures)}
    trials.sort(key=lambda trial: order[trial.mixture_id])  # keeps the order within a mixture
    return RealTSet(list(mixtures.values()), trials, unlabelled)


def _metadata_folder(folder: Path) -> Path:
    """Return the folder with `CORPUS_meta.csv`: the only one below the folder, or the folder itself."""
    for name in ("mixtures", "enrolment_speakers"):
        if not (folder / name).is_dir():
            raise InputError(f"{folder}: has no folder {name}; give a set of REAL-T, such as REAL-T-dev")
    sets = sorted({path.parent for path in folder.glob(f"*/*{META_SUFFIX}")})
    if len(sets) != 1:
        names = ", ".join(path.name for path in sets) or "none"
        raise InputError(f"{folder}: one folder with CORPUS{META_SUFFIX} is needed, such as DEV; it has {names}")
    return sets[0]


def _trial_of(row: Row, folder: Path) -> tuple[RecordingTrial, Path | None]:
    """Return the trial of a line, and the first of its recordings that does not exist."""
    mixture, enrollment = row.text("mixture_utterance"), row.text("enrolment_speakers_utterance")
    paths = folder / "mixtures" / f"{mixture}.wav", folder / "enrolment_speakers" / f"{enrollment}.wav"
    transcript = row.optional_text("ground_truth_transcript")
    trial = RecordingTrial(mixture, row.text("speaker"), str(paths[1].absolute()), transcript)
    return trial, next((path for path in paths if not is_file(path)), None)


def _mixture_of(row: Row, folder: Path, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> RecordedMixture:
    name = row.text("mixture_utterance")
    session, start_s, end_s = _parse(name, row.place)
    activity: dict[str, list[Interval]] = {}
    for record in records.get(session, ()):
        first, last = (_seconds(record["overlap_info"][f"overlap_{key}_time"], session) for key in ("start", "end"))
        if max(abs(first - start_s), abs(last - end_s)) > MATCH_TOLERANCE_S:
            continue
        for segment in record["overlap_segments"]:
            first, last = (_seconds(segment[f"{key}_time"], session) - start_s for key in ("start", "end"))
            activity.setdefault(segment["speaker"], []).append((first, last))
        break
    return RecordedMixture(
        name,
        str((folder / "mixtures" / f"{name}.wav").absolute()),
        {speaker: merged(clipped(intervals, 0.0, end_s - start_s)) for speaker, intervals in activity.items()},
        {"corpus": row.text("source"), "language": row.text("language")},
    )


def _seconds(value: float | str, session: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(
            f"overlap_records.json: session {quoted(session)} has the time {quoted(str(value))}; seconds are needed"
        )
    return seconds


def _parse(mixture: str, place: str) -> tuple[str, float, float]:
    """Return session, start and end (s) that the name of a mixture states."""
    match = _MIXTURE.fullmatch(mixture)
    if match is None or float(match["end"]) <= float(match["start"]):
        raise InputError(f"{place}: mixture {quoted(mixture)} is not named SESSION_mixture_START_END")
    return match["session"], float(match["start"]), float(match["end"])


def _read_records(metadata: Path, folder: Path, corpus: str) -> dict[str, list[dict[str, Any]]]:
    """Return the records of a corpus by session; empty where the set has none, as that of an evaluation."""
    for base in (metadata, folder):
        path = base / "json" / corpus / "overlap_records.json"
        if is_file(path):
            records = read_json(path, "the records of who speaks when")
            check_schema(records.values, {...: [_RECORD]}, str(path))
            return dict(records.values)
    return {}


def _absent_trials(
    mixtures: Sequence[RecordedMixture], speakers: Mapping[str, Mapping[tuple[str, str], str]]
) -> list[RecordingTrial]:
    """Return for each mixture a trial with a speaker of another session of its corpus, taken in turn."""
    trials = []
    for number, mixture in enumerate(mixtures):
        session = _parse(mixture.mixture_id, mixture.mixture_id)[0]
        own = {name for other, name in speakers[mixture.groups["corpus"]] if other == session} | set(mixture.activity)
        others = [
            enrollment
            for (other, name), enrollment in speakers[mixture.groups["corpus"]].items()
            if other != session and name not in own
        ]
        if others:
            trials.append(RecordingTrial(mixture.mixture_id, ABSENT, others[number % len(others)]))
    return trials
