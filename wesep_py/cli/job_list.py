"""A CSV of extractions: a recording, whose voice, and where to, on each line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from wesep_py.cli.outputs import check_places, make_folder, only_writable, output_path, require_suffix, with_rests
from wesep_py.cli.targets import (
    LONGEST_NAME,
    Job,
    Target,
    check_file_name,
    check_name,
    default_name,
    enrollment_files,
    file_of,
    require_alone,
)
from wesep_py.errors import InputError, WesepError, reason
from wesep_py.names import printable
from wesep_py.textfiles import read_csv

COLUMNS = ("mixture", "enroll", "name", "output")
NEEDED = ("mixture", "enroll")


def read_jobs(
    path: Path, output: Path | None = None, residual: Path | None = None
) -> tuple[list[Job], list[tuple[Job, Exception]]]:
    """The jobs in a CSV with the columns `mixture, enroll[, name][, output]`.

    Paths are relative to the CSV. Several recordings of one voice stand in `enroll` with `;` between them. A line
    without `output` goes where `targets.plan` says.

    Args:
        path: the CSV.
        output: folder for the lines without an output of their own; beside the recording if `None`.
        residual: folder for the rests.

    Returns:
        The jobs, lines of one recording together; and those of lines that cannot be done, with the reason.

    Raises:
        InputError: no such file, no lines, columns that are missing or unknown, two lines with one output.
    """
    from wesep_py.corpus.places import Places

    rows = _rows(path)
    if output is not None and not output.is_dir():
        make_folder(output)
    jobs: list[Job] = []
    bad: list[tuple[Job, Exception]] = []
    targets: dict[tuple[str, str], Target] = {}
    places = Places(path.parent, path, moved=False)
    for number, row in enumerate(rows, start=2):
        mixture, name = path.parent / row["mixture"], row.get("name") or ""
        try:
            mixture = places.find(row["mixture"], _is_recording)
            files = [places.find(each.strip(), _is_recording) for each in row["enroll"].split(";") if each.strip()]
            name = name or default_name(files[0])
            if row.get("name"):
                check_name(name)
            target = targets.get((row["enroll"], name))
            if target is None:
                target = Target(
                    name, bool(row.get("name")), [found for file in files for found in enrollment_files(file)]
                )
                require_alone(target)
                targets[row["enroll"], name] = target
            where = path.parent / row["output"] if row.get("output") else output_path(mixture, target, output)
            if row.get("output"):
                _check_output(where)
            (job,) = only_writable([Job(mixture, target, where)])
        except (WesepError, OSError, ValueError) as error:
            told = InputError(f"{path}: line {number}: {reason(error)}")
            bad.append((Job(mixture, Target(printable(name[:LONGEST_NAME]), True), mixture), told))
            continue
        jobs.append(job)
    order = {mixture: i for i, mixture in enumerate(dict.fromkeys(job.mixture for job in jobs))}
    jobs.sort(key=lambda job: order[job.mixture])
    if residual is not None and not residual.is_dir():
        make_folder(residual)
    jobs = only_writable(with_rests(jobs, residual), bad)
    check_places(jobs)
    return jobs, bad


def _is_recording(path: Path) -> bool:
    """Whether there is a file or folder, also where the path names a stretch of it."""
    try:
        return os.path.exists(file_of(path))  # noqa: PTH110
    except (WesepError, OSError, ValueError):
        return False


def _check_output(path: Path) -> None:
    """Refuse an output of a line that can never be written, before it costs another voice of the recording its own."""
    check_file_name(path)
    require_suffix(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")


def _rows(path: Path) -> list[Mapping[str, str]]:
    what = f"a CSV with the columns {', '.join(COLUMNS)}"
    hint = "part the recordings of one voice by ; and quote a name that holds a comma"
    rows = [row.values for row in read_csv(path, what, NEEDED, COLUMNS, hint, may_be_short=True, may_hold_nul=True)]
    for number, row in enumerate(rows, start=2):
        if not row.get("mixture") or not row.get("enroll", "").strip(" ;"):
            raise InputError(f"{path}: line {number} names no {'enroll' if row.get('mixture') else 'mixture'}")
    if not rows:
        raise InputError(f"{path}: holds no lines; a recording and an enrollment a line are needed")
    return rows
