"""Write and read the results of a run: one record per trial, saved audio, the summary.

In the order of the data flow: `TrialRecord` is one line of `per_trial.jsonl`; `AudioSaver` saves the audio of some
trials; `Journal` writes the folder of a run, so that an interrupted run can resume; `read_results` reads a finished
one.

    results/
      summary.json                  the summary of all trials
      per_trial.jsonl               one record per line
      audio/NUMBER_MIXTURE_TARGET/  mixture, enrollment, estimate, reference of some trials
      run.json                      only while a run is unfinished: its protocol
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from wesep_py.common.errors import InputError, WesepError, nearest, quoted, shorten
from wesep_py.common.files import is_folder, open_regular, refuse_inputs, write_json, write_text
from wesep_py.common.folders import JUNK, check_results_folder, folder_lock, remove_known
from wesep_py.common.names import file_name, listing
from wesep_py.common.textfiles import COUNT, Row, check_schema, parse_object, read_json, read_jsonl

if TYPE_CHECKING:
    from wesep_py.evaluation.trial_extraction import ExtractedTrial

Outcome = Literal["scored", "silent_reference", "absent", "failed"]
"""scored: the trial counts in every metric. silent_reference, absent: there was no target to extract; counted
separately, with the attenuation. failed: the trial could not be rendered or extracted; the record has the error."""
PER_TRIAL, SUMMARY, AUDIO, RUN = "per_trial.jsonl", "summary.json", "audio", "run.json"


@dataclass
class TrialRecord:
    """Results of one trial: one line of `per_trial.jsonl`.

    Attributes:
        mixture_id: name of the mixture.
        target_utterance_id: utterance id of the target, or "-".
        enrollment: file name of the enrollment.
        outcome: see `Outcome`.
        num_speakers: number of speakers in the mixture.
        duration_s: length of the mixture, in seconds.
        extraction_s: time that enrolling and extracting took, in seconds.
        sir_db: active level of the target over that of the sum of all interferers; `None` where either is silent.
        overlap: share of the frames with speech in which two or more speakers are active; `None` without speech.
        level_db: active level of the target's reference in dB of full scale; `None` where it is silent or absent.
        enrollment_s: length of the enrollment, in seconds.
        gender_pair: genders of all speakers, sorted ("f-m"); `None` where no list of speakers was given.
        age_group: of the target: child (under 13), teenager (under 18), adult, unknown; `None` likewise.
        presence: probability by the presence head that the target is present; `None` for a model without one.
        presence_frames: histogram of its frame logits (`frame_calibration.frame_histogram`); `None` likewise, or where
            it is not known when the target speaks.
        verified: probability by the presence verifier; `None` without a calibrated one.
        evidence: what the verifier measured (`presence_verifier.EVIDENCE`); `None` without one.
        repaired: true if the extraction seemed to hold the wrong voice and was repaired; `None` otherwise.
        attenuation_db: of the estimate against the mixture.
        silent_estimate: whether the model returned silence (its SI-SDR is 0 dB by definition).
        values: the value of each metric.
        missing: the reason for each metric without a value.
        weights: of the metrics whose mean is weighted: for `wer`, the number of words of the reference.
        error: why the trial failed.
        groups: of its mixture, by which results are broken down (`data.mixture_lists.Mixture.groups`).
        number: position in the list of trials, from 0.
    """

    mixture_id: str
    target_utterance_id: str
    enrollment: str
    outcome: Outcome = "scored"
    num_speakers: int = 0
    duration_s: float | None = None
    extraction_s: float | None = None
    sir_db: float | None = None
    overlap: float | None = None
    level_db: float | None = None
    enrollment_s: float | None = None
    gender_pair: str | None = None
    age_group: str | None = None
    presence: float | None = None
    presence_frames: dict[str, Any] | None = None
    verified: float | None = None
    evidence: dict[str, float] | None = None
    repaired: bool | None = None
    attenuation_db: float | None = None
    silent_estimate: bool = False
    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    groups: dict[str, str] = field(default_factory=dict)
    number: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON: metrics beside the other keys; keys without a value are left out."""
        plain = asdict(self)
        values = plain.pop("values")
        non_empty = {key: value for key, value in plain.items() if value is not None and value != {}}
        return {**non_empty, **values}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialRecord:
        """Return the record that `to_dict` wrote; a key that is not an attribute is a metric.

        Raises:
            InputError: an attribute is missing or has a wrong type.
        """
        return cls.from_row(Row("a trial", plain))

    @classmethod
    def from_row(cls, row: Row) -> TrialRecord:
        """Return the record of a line of `per_trial.jsonl`.

        Raises:
            InputError: an attribute is missing or has a wrong type; the message names the line.
        """
        check_record(row, "mixture_id", "target_utterance_id", "enrollment")
        attributes = {each.name for each in fields(cls)} - {"values"}
        values = {key: row.number(key) for key in row.values if key not in attributes}
        return cls(**{key: value for key, value in row.values.items() if key in attributes}, values=values)


_RECORD_SHAPE = {
    **dict.fromkeys(("mixture_id", "target_utterance_id", "enrollment", "outcome"), str),
    **dict.fromkeys(("gender_pair", "age_group", "error"), (str, None)),
    **dict.fromkeys(("duration_s", "extraction_s", "sir_db", "overlap", "level_db", "enrollment_s"), (float, None)),
    **dict.fromkeys(("presence", "verified", "attenuation_db"), (float, None)),
    "evidence": ({...: float}, None),
    "num_speakers": COUNT,
    "presence_frames": ({"lowest": range(-(10**6), 10**6), "active": [COUNT], "inactive": [COUNT]}, None),
    "silent_estimate": bool,
    "missing": {...: str},
    "groups": {...: str},
    "weights": {...: float},
    "number": (COUNT, None),
}


def check_record(row: Row, *required: str) -> None:
    """Refuse a line of `per_trial.jsonl` with an attribute of a wrong type, or without a required one.

    Raises:
        InputError: the message names the line and the attribute.
    """
    shape = {name if name in required else f"{name}?": kind for name, kind in _RECORD_SHAPE.items()}
    check_schema(row.values, shape, row.place, "evaluate again, or get a complete copy")
    if (outcome := row.values.get("outcome", "scored")) not in get_args(Outcome):
        raise InputError(f"{row.place}: outcome is {quoted(outcome)}; {nearest(outcome, get_args(Outcome))}")


# Saved audio: of the first trials, and of the worst and best.

RANKED_BY = ("si_sdri", "si_sdr")
SIGNALS = ("mixture", "enrollment", "estimate", "reference")
"""The signals of a trial that are saved, each in a file."""
_AUDIO_FOLDER = re.compile(r"\d{4,}_.*", re.DOTALL)
# The second form is a temporary file, as a process that was killed leaves it.
_AUDIO_FILE = re.compile(rf"({'|'.join(SIGNALS)})\.wav|\.({'|'.join(SIGNALS)})\.\w{{8}}\.wav")


def audio_folder(record: TrialRecord) -> str:
    """Return the name of a trial's folder of saved audio."""
    return file_name(f"{record.number or 0:04d}_{record.mixture_id}_{record.target_utterance_id}")


def rank(record: TrialRecord) -> float | None:
    """Return the value that trials are ranked by: SI-SDRi, else SI-SDR, else `None`."""
    return next((record.values[name] for name in RANKED_BY if name in record.values), None)


def foreign_files(folder: Path) -> list[str]:
    """Return the paths in a folder of saved audio that are not saved audio, sorted."""
    others = []
    for path in folder.iterdir() if is_folder(folder) else ():
        if path.name in JUNK:
            continue
        if not _AUDIO_FOLDER.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            others.append(path.name)
            continue
        names = [file for file in path.iterdir() if file.name not in JUNK]
        others += [
            f"{path.name}/{file.name}" for file in names if not _AUDIO_FILE.fullmatch(file.name) or file.is_dir()
        ]
    return sorted(others)


def remove_audio(folder: Path) -> None:
    """Remove the saved audio of all trials, and the folder if nothing else is in it."""
    for path in list(folder.iterdir()) if is_folder(folder) else ():
        if _AUDIO_FOLDER.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            _remove(path)
    remove_known(folder, ())


def _remove(folder: Path) -> None:
    """Remove the saved audio of one trial."""
    if folder.is_dir():
        remove_known(folder, [file.name for file in folder.iterdir() if _AUDIO_FILE.fullmatch(file.name)])


class AudioSaver:
    """Save `NUMBER_MIXTURE_TARGET/{mixture,enrollment,estimate,reference}.wav` of some trials, 32-bit float.

    Args:
        folder: made when it is needed; `None`: nothing is saved.
        first: number of trials at the beginning of the list whose audio is saved.
        extremes: number of worst and number of best trials, by SI-SDRi, whose audio is saved. The audio of a trial is
            removed once the trial is no longer among them.
        done: trials that an earlier, interrupted run has finished.
    """

    def __init__(self, folder: Path | None, first: int, extremes: int, done: Iterable[TrialRecord] = ()) -> None:
        self._folder, self._first, self._extremes = folder, first, extremes
        self._ranked: list[tuple[float, int, str]] = []
        for record in done:
            self._insert(record)

    def offer(self, extracted: ExtractedTrial) -> None:
        """Save the audio of a scored trial if it is one of the first, worst or best."""
        record = extracted.record
        if self._folder is None or extracted.audio is None or extracted.estimate is None:
            return
        is_first = (record.number or 0) < self._first
        if self._insert(record) or is_first:
            _save(self._folder / audio_folder(record), extracted)

    def _insert(self, record: TrialRecord) -> bool:
        """Enter a trial into the ranking, and return whether it is among the extremes now."""
        value = rank(record)
        if not self._extremes or value is None:
            return False
        entry = (value, record.number or 0, audio_folder(record))
        self._ranked = sorted([*self._ranked, entry])
        if len(self._ranked) > 2 * self._extremes:
            # worst … | middle | … best: with one trial too many, the one behind the worst is no extreme.
            dropped = self._ranked.pop(self._extremes)
            if self._folder is not None and dropped[1] >= self._first:
                _remove(self._folder / dropped[2])
            return dropped != entry
        return True


def _save(folder: Path, extracted: ExtractedTrial) -> None:
    from wesep_py.audio import write

    audio, estimate = extracted.audio, extracted.estimate
    assert audio is not None
    folder.mkdir(parents=True, exist_ok=True)
    signals = (audio.mixture, audio.enrollment, estimate, audio.reference)
    for name, signal in zip(SIGNALS, signals, strict=True):
        if signal is not None:
            write(folder / f"{name}.wav", signal, audio.sample_rate, overwrite=True)


# The folder of a run: one line per trial as soon as it is finished, so that an interrupted run can resume.

VOLATILE = ("command", "date")
"""Keys of the protocol that may differ between an interrupted run and its continuation."""
InputPaths = Sequence[tuple["str | Path | None", str]]
"""Files and folders that a run reads, each with the name of its option; `None` where an option is not used."""


def check_output(folder: Path, overwrite: bool, inputs: InputPaths = (), roots: InputPaths = ()) -> None:
    """Refuse a folder that cannot take results, before anything is computed; that of an unfinished run can.

    Args:
        folder: may be new, or hold other files.
        overwrite: whether earlier results may be replaced.
        inputs: files and folders that are read; none may be the folder, or a file of the results.
        roots: folders that paths in lists are relative to; one may be the folder, but not that of its audio.

    Raises:
        OutputExistsError: the folder holds results, and `overwrite` is false.
        InputError: it is a file, or is read; or other files than saved audio would be overwritten.
    """
    results = [folder / name for name in (AUDIO, PER_TRIAL, SUMMARY, RUN)]
    refuse_inputs([folder, *results], inputs)
    refuse_inputs(results, roots)
    for path, what in (*inputs, *roots):
        if path is not None and _is_inside(path, folder / AUDIO):
            raise InputError(f"{folder / AUDIO}: holds {what}, which is read; name another output")
    unfinished = (folder / RUN).exists()
    check_results_folder(folder, (PER_TRIAL, SUMMARY, AUDIO), overwrite or unfinished)
    if overwrite:
        _check_audio(folder / AUDIO)


def _check_audio(folder: Path) -> None:
    if (folder.is_symlink() or folder.exists()) and (folder.is_symlink() or not folder.is_dir()):
        raise InputError(f"{folder}: is not a folder of saved audio; move it away, or name another output")
    if others := foreign_files(folder):
        raise InputError(
            f"{folder}: holds other files than saved audio ({listing(others)}); move them away, or name another output"
        )


def _is_inside(path: str | Path, folder: Path) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([inner, outer]) == outer if is_folder(folder) and is_folder(Path(path)) else False


class Journal:
    """Write the results of a run into its folder.

    During the run, `run.json` holds the protocol and `per_trial.jsonl` gets one line per trial, in the order in which
    trials finish. At the end the lines are sorted by trial, `summary.json` is written and `run.json` removed. Until
    `finish` or `close` no other process can start a run in the folder.

    Args:
        folder: made if necessary.
        protocol: of this run; an unfinished run resumes only if its protocol differs in nothing but command and date.
        overwrite: replace earlier results; other files in the folder stay.

    Attributes:
        done: the trials that an unfinished run has finished, by number; failed trials are not among them, so that they
            are tried again.

    Raises:
        OutputExistsError: the folder holds results.
        InputError: it holds an unfinished run with another protocol; the message names the keys that differ.
        WesepError: another process writes to the folder, the disk is full, or the folder cannot be made.
    """

    def __init__(self, folder: str | Path, protocol: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder = Path(folder)
        check_output(self.folder, overwrite)
        self._protocol = json.loads(json.dumps(protocol))
        self.done: dict[int, TrialRecord] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as resources:
                resources.enter_context(folder_lock(self.folder, "writing its results"))
                self._begin(overwrite)
                lines = open_regular(self.folder / PER_TRIAL, os.O_WRONLY | os.O_APPEND)
                self._file = resources.enter_context(os.fdopen(lines, "a", encoding="utf-8"))
                self._resources = resources.pop_all()
        except OSError as error:
            raise WesepError(
                f"{self.folder}: cannot be written ({error.strerror or error}); name another folder"
            ) from error

    def append(self, record: TrialRecord) -> None:
        """Write the line of a finished trial at once, so that it survives if this process is killed."""
        try:
            self._file.write(_line(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise WesepError(f"{self.folder / PER_TRIAL}: writing failed ({error.strerror or error})") from error

    def finish(self, records: Sequence[TrialRecord], summary: Mapping[str, Any]) -> None:
        """Sort all lines by trial and write the summary."""
        self._file.close()
        self._write_lines(records)
        write_json(self.folder / SUMMARY, summary)
        (self.folder / RUN).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Stop writing; the run can resume later."""
        self._resources.close()

    def _begin(self, overwrite: bool) -> None:
        """Read the finished trials of an unfinished run, and mark the folder as that of a run."""
        check_output(self.folder, overwrite)  # another process may have finished since the first check
        if overwrite:
            self._clear()
        elif (self.folder / RUN).exists():
            unfinished = read_json(self.folder / RUN, "an unfinished run", "pass --overwrite to start again")
            check_schema(unfinished.values, {"protocol": dict}, unfinished.place, "pass --overwrite to start again")
            self._check_same(unfinished.values)
            self.done = {record.number: record for record in self._read() if record.number is not None}
        write_json(self.folder / RUN, {"protocol": self._protocol})
        self._write_lines(list(self.done.values()))

    def _write_lines(self, records: Sequence[TrialRecord]) -> None:
        write_text(self.folder / PER_TRIAL, "".join(_line(record) + "\n" for record in records))

    def _read(self) -> list[TrialRecord]:
        """Return the finished trials on disk.

        Damaged lines are skipped, with a warning unless it is the last one, which the end of the run cut short.
        """
        path = self.folder / PER_TRIAL
        records = []
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                record = TrialRecord.from_row(parse_object(line, f"{path}:{number}")) if line.strip() else None
            except InputError as error:
                if number < len(lines):
                    warnings.warn(f"{error}; the trial is repeated", stacklevel=4)
                continue
            if record is not None and record.outcome != "failed":
                records.append(record)
        return records

    def _check_same(self, unfinished: Mapping[str, Any]) -> None:
        before, now = (
            {key: value for key, value in protocol.items() if key not in VOLATILE}
            for protocol in (unfinished.get("protocol", {}), self._protocol)
        )
        differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if differing:
            raise InputError(
                f"{self.folder}: holds an unfinished run that differs in {shorten(', '.join(differing))}; repeat its "
                "command to resume it, name another folder, or pass --overwrite to start again"
            )

    def _clear(self) -> None:
        for name in (PER_TRIAL, SUMMARY, RUN):
            (self.folder / name).unlink(missing_ok=True)
        remove_audio(self.folder / AUDIO)


def _line(record: TrialRecord) -> str:
    return json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False)


# Reading a finished run.

TrialKey = tuple[str, ...]
REPEAT = "evaluate again, or get a complete copy"
_INTERVAL_SHAPE = {"mean": (float, None), "low": (float, None), "high": (float, None), "count": COUNT}
_WITHOUT_TARGET_SHAPE = {"count": COUNT, "attenuation_db": _INTERVAL_SHAPE, "false_alarm_rate?": {...: _INTERVAL_SHAPE}}
_SUMMARY_SHAPE = {
    "protocol": {
        "condition": str,
        "trials": {"sha256": str},
        "metrics": {...: str},
        "model?": (dict, None),
        "date?": (str, None),
        "presence_calibration?": (dict, None),
        "presence_verifier?": {"encoder": str, "encoder_hash": str, "calibration": (dict, None)},
    },
    "counts": {"trials": COUNT},
}
"""Keys of `summary.json` that every reader needs, and their types."""
_REPORT_SHAPE = {
    "protocol": {"model": {"name": str}, "date": str},
    "counts": {"scored": COUNT, "silent_estimate": COUNT},
    "missing": {...: {...: COUNT}},
    "absent": {**_WITHOUT_TARGET_SHAPE, "retention?": {...: _INTERVAL_SHAPE}},
    "silent_reference": _WITHOUT_TARGET_SHAPE,
    "failed": [{"mixture_id": str, "target_utterance_id": str, "error": (str, None)}],
    "speed": {"rtf": (float, None), "audio_s": float, "threads": (COUNT, None), "device": (str, None)},
}
"""Further keys of `summary.json` that a report needs, besides the interval of each metric."""


@dataclass(frozen=True)
class EvaluationResults:
    """The results of a finished run.

    Attributes:
        folder: of the results.
        summary: the content of `summary.json`.
        records: of all trials, in the order of their list.
    """

    folder: Path
    summary: dict[str, Any]
    records: list[TrialRecord]

    @property
    def metrics(self) -> list[str]:
        """Names of the values of each scored trial."""
        return [name for name in self.summary["protocol"]["metrics"] if name != "attenuation_db"]


def read_results(folder: str | Path) -> EvaluationResults:
    """Read the folder of a finished run.

    Raises:
        InputError: the folder holds no results, or unfinished or damaged ones.
    """
    folder = Path(folder)
    if not (folder / SUMMARY).is_file():
        unfinished = (folder / RUN).exists()
        hint = "repeat its command to finish it" if unfinished else "name a folder that wesep evaluate or score wrote"
        raise InputError(f"{folder}: holds no {SUMMARY}; {hint}")
    summary = dict(read_json(folder / SUMMARY, "a summary of results", REPEAT).values)
    check_schema(summary, _SUMMARY_SHAPE, str(folder / SUMMARY), REPEAT)
    rows = read_jsonl(folder / PER_TRIAL, "the trials of a result", f"the result is damaged: {REPEAT}")
    records = [TrialRecord.from_row(row) for row in rows]
    count = summary["counts"]["trials"]
    if count != len(records):
        raise InputError(f"{folder}: {SUMMARY} counts {count} trials and {PER_TRIAL} has {len(records)}; damaged")
    for number, record in enumerate(records):
        record.number = number if record.number is None else record.number
    return EvaluationResults(folder, summary, records)


def trial_key(record: TrialRecord, with_enrollment: bool = True) -> TrialKey:
    """Return what identifies a trial in its list: mixture, target and, where it is known, enrollment."""
    key = record.mixture_id, record.target_utterance_id
    return (*key, record.enrollment) if with_enrollment else key


def check_reportable(results: EvaluationResults) -> None:
    """Refuse results whose summary lacks what a report shows.

    Raises:
        InputError: the message names the missing key.
    """
    for record in results.records:
        if "si_sdri" in record.values and "si_sdr" not in record.values:
            raise InputError(f"{results.folder / PER_TRIAL}: trial {record.number} has si_sdri but no si_sdr; {REPEAT}")
    place = str(results.folder / SUMMARY)
    metrics = dict.fromkeys(results.metrics, _INTERVAL_SHAPE)
    groups = {...: {"trials": COUNT, **metrics}}
    check_schema(results.summary, {**_REPORT_SHAPE, **metrics, "breakdown": {...: groups}}, place, REPEAT)
