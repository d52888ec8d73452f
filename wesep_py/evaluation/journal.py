"""A run on disk: a line a trial as soon as it is done, so that a run that was killed goes on where it was."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from wesep_py.errors import InputError, WesepError
from wesep_py.evaluation.keeping import others_in, remove_audio
from wesep_py.evaluation.record import TrialRecord
from wesep_py.files import check_results_folder, is_folder, listing, open_regular, refuse_inputs, write_json, write_text
from wesep_py.lock import locked
from wesep_py.textfiles import check_shape, parse_object, read_json

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
                held.enter_context(locked(self.folder, "writing its results"))
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
