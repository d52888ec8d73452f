"""Results on disk, as `evaluate` and `score` write them."""

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

from wesep_py.common.errors import InputError, WesepError, nearest, quoted
from wesep_py.common.files import is_folder, open_regular, refuse_inputs, write_json, write_text
from wesep_py.common.folders import JUNK, check_results_folder, folder_lock, remove_known
from wesep_py.common.names import file_name, listing
from wesep_py.common.textfiles import COUNT, Row, check_shape, parse_object, read_json, read_jsonl

if TYPE_CHECKING:
    from wesep_py.evaluation.trial_extraction import ExtractedTrial


# ----------------------------------------
# What is known of one trial once it has been extracted and scored.

Outcome = Literal["scored", "silent_reference", "absent", "failed"]
"""scored: it counts in every metric. silent_reference, absent: nothing was there to extract; counted apart, with
the attenuation. failed: it could not be rendered or extracted; the record has the error."""


@dataclass
class TrialRecord:
    """One line of `per_trial.jsonl`.

    Attributes:
        mixture_id: name of the mixture.
        target_utterance_id: the target's utterance, or "-".
        enrollment: name of the enrollment's file.
        outcome: see `Outcome`.
        num_speakers: number of speakers in the mixture.
        duration_s: length of the mixture.
        extraction_s: time that enrolling and extracting took.
        sir_db: active level of the target over that of all interferers together; None where either is silent.
        overlap: share of the frames with speech in which two speakers or more are active; None where nobody speaks.
        level_db: active level of the target's reference in dB of full scale; None where it is silent or absent.
        enrollment_s: length of the enrollment.
        gender_pair: genders of all speakers, sorted ("f-m"); None where they were not asked for.
        age_group: of the target: child (under 13), teenager (under 18), adult, unknown; None likewise.
        presence: probability that the model gave for the target's presence; None if it gives none.
        presence_frames: its frames by their logits (`frame_calibration.frame_histogram`); None likewise, or where
            nobody knows when the target speaks.
        attenuation_db: of the estimate against the mixture.
        silent_estimate: whether the model returned silence (its SI-SDR is 0 dB by definition).
        values: a number for each metric.
        missing: the reason for each metric without one.
        weights: of the metrics whose mean is not one over trials: for `wer`, the words of the reference.
        error: why the trial failed.
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
    attenuation_db: float | None = None
    silent_estimate: bool = False
    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    number: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record for JSON: the metrics stand beside the other keys; keys without a value are left out."""
        plain = asdict(self)
        values = plain.pop("values")
        kept = {key: value for key, value in plain.items() if value is not None and value != {}}
        return {**kept, **values}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialRecord:
        """The record that `to_dict` wrote; what is none of its attributes is a metric.

        Raises:
            InputError: an attribute is missing, or is of another kind.
        """
        return cls.from_row(Row("a trial", plain))

    @classmethod
    def from_row(cls, row: Row) -> TrialRecord:
        """The record of a line of `per_trial.jsonl`.

        Raises:
            InputError: an attribute is missing, or is of another kind; the message names the line.
        """
        check_record(row, "mixture_id", "target_utterance_id", "enrollment")
        known = {each.name for each in fields(cls)} - {"values"}
        values = {key: row.number(key) for key in row.values if key not in known}
        return cls(**{key: value for key, value in row.values.items() if key in known}, values=values)


_RECORD_SHAPE = {
    **dict.fromkeys(("mixture_id", "target_utterance_id", "enrollment", "outcome"), str),
    **dict.fromkeys(("gender_pair", "age_group", "error"), (str, None)),
    **dict.fromkeys(("duration_s", "extraction_s", "sir_db", "overlap", "level_db", "enrollment_s"), (float, None)),
    **dict.fromkeys(("presence", "attenuation_db"), (float, None)),
    "num_speakers": COUNT,
    "presence_frames": ({"lowest": range(-(10**6), 10**6), "active": [COUNT], "inactive": [COUNT]}, None),
    "silent_estimate": bool,
    "missing": {...: str},
    "weights": {...: float},
    "number": (COUNT, None),
}


def check_record(row: Row, *needed: str) -> None:
    """Refuse a line of `per_trial.jsonl` with an attribute of another kind, or without one that is needed.

    Raises:
        InputError: naming the line and the attribute.
    """
    shape = {name if name in needed else f"{name}?": kind for name, kind in _RECORD_SHAPE.items()}
    check_shape(row.values, shape, row.place, "evaluate again, or get a whole copy")
    if (outcome := row.values.get("outcome", "scored")) not in get_args(Outcome):
        raise InputError(f"{row.place}: outcome is {quoted(outcome)}; {nearest(outcome, get_args(Outcome))}")


# ----------------------------------------
# Audio of some trials beside their numbers: of the first, and of the worst and best.

RANKED_BY = ("si_sdri", "si_sdr")
SIGNALS = ("mixture", "enrollment", "estimate", "reference")
"""What is saved of a trial, each in a file."""
FOLDER = re.compile(r"\d{4,}_.*", re.DOTALL)
# The second form is a temporary file, as a process that was killed leaves it.
FILE = re.compile(rf"({'|'.join(SIGNALS)})\.wav|\.({'|'.join(SIGNALS)})\.\w{{8}}\.wav")


def audio_folder(record: TrialRecord) -> str:
    """The name of a trial's folder of audio."""
    return file_name(f"{record.number or 0:04d}_{record.mixture_id}_{record.target_utterance_id}")


def rank(record: TrialRecord) -> float | None:
    """What trials are ranked by: SI-SDRi, else SI-SDR."""
    return next((record.values[name] for name in RANKED_BY if name in record.values), None)


def others_in(folder: Path) -> list[str]:
    """What lies in a folder of saved audio and is not saved audio, by its path within, sorted."""
    others = []
    for path in folder.iterdir() if is_folder(folder) else ():
        if path.name in JUNK:
            continue
        if not FOLDER.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            others.append(path.name)
            continue
        names = [file for file in path.iterdir() if file.name not in JUNK]
        others += [f"{path.name}/{file.name}" for file in names if not FILE.fullmatch(file.name) or file.is_dir()]
    return sorted(others)


def remove_audio(folder: Path) -> None:
    """Remove the audio of all trials, and the folder; whatever else is in it stays."""
    for path in list(folder.iterdir()) if is_folder(folder) else ():
        if FOLDER.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            _remove(path)
    remove_known(folder, ())


def _remove(folder: Path) -> None:
    """Remove the audio of one trial."""
    if folder.is_dir():
        remove_known(folder, [file.name for file in folder.iterdir() if FILE.fullmatch(file.name)])


class AudioSaver:
    """Saves `NUMBER_MIXTURE_TARGET/{mixture,enrollment,estimate,reference}.wav`, 32-bit float.

    Args:
        folder: where; made when it is needed. None: nothing is saved.
        first: of so many trials, the first ones of the list.
        extremes: of so many of the worst trials and as many of the best, by SI-SDRi: a trial that is none of them any
            more loses its audio.
        done: trials of an earlier part of the run.
    """

    def __init__(self, folder: Path | None, first: int, extremes: int, done: Iterable[TrialRecord] = ()) -> None:
        self._folder, self._first, self._extremes = folder, first, extremes
        self._ranked: list[tuple[float, int, str]] = []
        for record in done:
            self._insert(record)

    def offer(self, extracted: ExtractedTrial) -> None:
        """Save the trial's audio if it is wanted; call it once the trial is scored."""
        record = extracted.record
        if self._folder is None or extracted.audio is None or extracted.estimate is None:
            return
        wanted = (record.number or 0) < self._first
        if self._insert(record) or wanted:
            _save(self._folder / audio_folder(record), extracted)

    def _insert(self, record: TrialRecord) -> bool:
        """Enter a trial into the ranking; whether it is among the extremes now."""
        value = rank(record)
        if not self._extremes or value is None:
            return False
        entry = (value, record.number or 0, audio_folder(record))
        self._ranked = sorted([*self._ranked, entry])
        if len(self._ranked) > 2 * self._extremes:
            out = self._ranked.pop(self._extremes)
            if self._folder is not None and out[1] >= self._first:
                _remove(self._folder / out[2])
            return out != entry
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


# ----------------------------------------
# A run on disk: a line a trial as soon as it is done, so that a run that was killed goes on where it was.

PER_TRIAL, SUMMARY, AUDIO, RUN = "per_trial.jsonl", "summary.json", "audio", "run.json"
VOLATILE = ("command", "date")
Inputs = Sequence[tuple["str | Path | None", str]]
"""Files and folders that are read, each with what it is; `None` where there is none."""


def check_output(folder: Path, overwrite: bool, inputs: Inputs = (), roots: Inputs = ()) -> None:
    """Refuse a folder that cannot take results, before anything is computed; one of an unfinished run can.

    Args:
        folder: may be new, or hold other things.
        overwrite: whether results may be there.
        inputs: what is read; none of it may be the folder, or a file of the results.
        roots: folders that lists start from; these may be the folder, but not that of its audio.

    Raises:
        OutputExistsError: it holds results, and `overwrite` is false.
        InputError: it is a file, or what is read; what would be overwritten as saved audio is something else.
    """
    results = [folder / name for name in (AUDIO, PER_TRIAL, SUMMARY, RUN)]
    refuse_inputs([folder, *results], inputs)
    refuse_inputs(results, roots)
    for path, what in (*inputs, *roots):
        if path is not None and _is_inside(path, folder / AUDIO):
            raise InputError(f"{folder / AUDIO}: holds {what}, which is read; name another output")
    goes_on = (folder / RUN).exists()
    check_results_folder(folder, (PER_TRIAL, SUMMARY, AUDIO), overwrite or goes_on)
    if overwrite:
        _check_audio(folder / AUDIO)


def _check_audio(folder: Path) -> None:
    if (folder.is_symlink() or folder.exists()) and (folder.is_symlink() or not folder.is_dir()):
        raise InputError(f"{folder}: is no folder of saved audio; move it away, or name another output")
    if others := others_in(folder):
        raise InputError(
            f"{folder}: holds other things than saved audio ({listing(others)}); move them away, or name another output"
        )


def _is_inside(path: str | Path, folder: Path) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([inner, outer]) == outer if is_folder(folder) and is_folder(Path(path)) else False


class Journal:
    """The results of a run in its folder, while they come and when they are complete.

    While it runs, `run.json` holds the protocol and `per_trial.jsonl` grows by a line a trial, in the order in which
    they are done. At the end `per_trial.jsonl` is put in the order of the trials, `summary.json` appears and `run.json`
    goes. Until `finish` or `close` no other process can begin a run in the folder.

    Args:
        folder: made if it is not there.
        protocol: of this run; an unfinished one goes on only if its own differs in nothing but command and date.
        overwrite: begin anew, in the place of earlier results; other things in the folder stay.

    Attributes:
        done: the trials that an unfinished run has done, by their number; those that failed are tried again.

    Raises:
        OutputExistsError: the folder holds results.
        InputError: it holds an unfinished run with another protocol; the keys that differ are named.
        WesepError: another run is at work in the folder; the disk is full, or the folder cannot be made.
    """

    def __init__(self, folder: str | Path, protocol: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder = Path(folder)
        check_output(self.folder, overwrite)
        self._protocol = json.loads(json.dumps(protocol))
        self.done: dict[int, TrialRecord] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as held:
                held.enter_context(folder_lock(self.folder, "writing its results"))
                self._begin(overwrite)
                lines = open_regular(self.folder / PER_TRIAL, os.O_WRONLY | os.O_APPEND)
                self._file = held.enter_context(os.fdopen(lines, "a", encoding="utf-8"))
                self._held = held.pop_all()
        except OSError as error:
            raise WesepError(
                f"{self.folder}: cannot be written ({error.strerror or error}); name another folder"
            ) from error

    def append(self, record: TrialRecord) -> None:
        """Write the line of a trial that is done; it survives this process being killed."""
        try:
            self._file.write(_line(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise WesepError(f"{self.folder / PER_TRIAL}: writing failed ({error.strerror or error})") from error

    def finish(self, records: Sequence[TrialRecord], summary: Mapping[str, Any]) -> None:
        """Put all lines in order and write the summary."""
        self._file.close()
        self._write_lines(records)
        write_json(self.folder / SUMMARY, summary)
        (self.folder / RUN).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Stop writing; the run can go on later."""
        self._held.close()

    def _begin(self, overwrite: bool) -> None:
        """Take over what an earlier part of the run has done, and say in the folder that it goes on."""
        check_output(self.folder, overwrite)  # another run may have ended since
        if overwrite:
            self._clear()
        elif (self.folder / RUN).exists():
            begun = read_json(self.folder / RUN, "an unfinished run", "pass --overwrite to begin anew")
            check_shape(begun.values, {"protocol": dict}, begun.place, "pass --overwrite to begin anew")
            self._check_same(begun.values)
            self.done = {record.number: record for record in self._read() if record.number is not None}
        write_json(self.folder / RUN, {"protocol": self._protocol})
        self._write_lines(list(self.done.values()))

    def _write_lines(self, records: Sequence[TrialRecord]) -> None:
        write_text(self.folder / PER_TRIAL, "".join(_line(record) + "\n" for record in records))

    def _read(self) -> list[TrialRecord]:
        """The trials on disk that need not be done again.

        Damaged lines are left out, with a warning unless it is the last, which the end of the run cut short.
        """
        path = self.folder / PER_TRIAL
        records = []
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                record = TrialRecord.from_row(parse_object(line, f"{path}:{number}")) if line.strip() else None
            except InputError as error:
                if number < len(lines):
                    warnings.warn(f"{error}; the trial is done again", stacklevel=4)
                continue
            if record is not None and record.outcome != "failed":
                records.append(record)
        return records

    def _check_same(self, begun: Mapping[str, Any]) -> None:
        before, now = (
            {key: value for key, value in protocol.items() if key not in VOLATILE}
            for protocol in (begun.get("protocol", {}), self._protocol)
        )
        differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if differing:
            raise InputError(
                f"{self.folder}: holds an unfinished run that differs in {', '.join(differing)}; repeat its command to "
                "go on, name another folder, or pass --overwrite to begin anew"
            )

    def _clear(self) -> None:
        for name in (PER_TRIAL, SUMMARY, RUN):
            (self.folder / name).unlink(missing_ok=True)
        remove_audio(self.folder / AUDIO)


def _line(record: TrialRecord) -> str:
    return json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False)


Key = tuple[str, ...]
AGAIN = "evaluate again, or get a whole copy"
_INTERVAL = {"mean": (float, None), "low": (float, None), "high": (float, None), "count": COUNT}
_NOTHING_THERE = {"count": COUNT, "attenuation_db": _INTERVAL, "false_alarm_rate?": {...: _INTERVAL}}
_SHAPE = {
    "protocol": {
        "condition": str,
        "trials": {"sha256": str},
        "metrics": {...: str},
        "model?": (dict, None),
        "date?": (str, None),
        "presence_calibration?": (dict, None),
    },
    "counts": {"trials": COUNT},
}
"""What everything reads of a summary."""
_REPORT_SHAPE = {
    "protocol": {"model": {"name": str}, "date": str},
    "counts": {"scored": COUNT, "silent_estimate": COUNT},
    "missing": {...: {...: COUNT}},
    "absent": {**_NOTHING_THERE, "retention?": {...: _INTERVAL}},
    "silent_reference": _NOTHING_THERE,
    "failed": [{"mixture_id": str, "target_utterance_id": str, "error": (str, None)}],
    "speed": {"rtf": (float, None), "audio_s": float, "threads": (COUNT, None), "device": (str, None)},
}
"""What a report shows of a summary, beside the interval of each metric."""


@dataclass(frozen=True)
class EvaluationResults:
    """A finished run.

    Attributes:
        folder: where it lies.
        summary: the content of `summary.json`.
        records: the trials, in their order.
    """

    folder: Path
    summary: dict[str, Any]
    records: list[TrialRecord]

    @property
    def metrics(self) -> list[str]:
        """The names of what was measured of each scored trial."""
        return [name for name in self.summary["protocol"]["metrics"] if name != "attenuation_db"]


def read_results(folder: str | Path) -> EvaluationResults:
    """Read the folder of a finished run.

    Raises:
        InputError: it is none, is not finished, or is damaged.
    """
    folder = Path(folder)
    if not (folder / SUMMARY).is_file():
        unfinished = (folder / RUN).exists()
        hint = "repeat its command to finish it" if unfinished else "name a folder that wesep evaluate or score wrote"
        raise InputError(f"{folder}: holds no {SUMMARY}; {hint}")
    summary = dict(read_json(folder / SUMMARY, "a summary of results", AGAIN).values)
    check_shape(summary, _SHAPE, str(folder / SUMMARY), AGAIN)
    rows = read_jsonl(folder / PER_TRIAL, "the trials of a result", f"the result is damaged: {AGAIN}")
    records = [TrialRecord.from_row(row) for row in rows]
    count = summary["counts"]["trials"]
    if count != len(records):
        raise InputError(f"{folder}: {SUMMARY} counts {count} trials and {PER_TRIAL} has {len(records)}; damaged")
    for number, record in enumerate(records):
        record.number = number if record.number is None else record.number
    return EvaluationResults(folder, summary, records)


def trial_key(record: TrialRecord, with_enrollment: bool = True) -> Key:
    """What tells a trial from the others of its list: mixture, target and, where they are known, enrollment."""
    key = record.mixture_id, record.target_utterance_id
    return (*key, record.enrollment) if with_enrollment else key


def check_reportable(results: EvaluationResults) -> None:
    """Refuse results whose summary is none of this program's, before a report shows them.

    Raises:
        InputError: naming the key.
    """
    for record in results.records:
        if "si_sdri" in record.values and "si_sdr" not in record.values:
            raise InputError(
                f"{results.folder / PER_TRIAL}: trial {record.number} has si_sdri and no si_sdr; it is damaged: {AGAIN}"
            )
    place = str(results.folder / SUMMARY)
    metrics = dict.fromkeys(results.metrics, _INTERVAL)
    groups = {...: {"trials": COUNT, **metrics}}
    check_shape(results.summary, {**_REPORT_SHAPE, **metrics, "breakdown": {...: groups}}, place, AGAIN)
