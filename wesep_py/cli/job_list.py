"""A CSV of extractions: a recording, whose voice, and where to, on each line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wesep_py.cli.outputs import check_places, make_folder, output_path, with_rests
from wesep_py.cli.targets import Job, Target, enrollment_files, require_alone
from wesep_py.errors import InputError, WesepError
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
    rows = _rows(path)
    if output is not None and not output.is_dir():
        make_folder(output)
    jobs: list[Job] = []
    bad: list[tuple[Job, Exception]] = []
    targets: dict[tuple[str, str], Target] = {}
    for number, row in enumerate(rows, start=2):
        files = [path.parent / name.strip() for name in row["enroll"].split(";") if name.strip()]
        name = row.get("name") or files[0].stem
        mixture, target = path.parent / row["mixture"], targets.get((row["enroll"], name))
        try:
            if target is None:
                target = Target(name, bool(row.get("name")), _enrollments(name, files))
                require_alone(target)
                targets[row["enroll"], name] = target
        except WesepError as error:
            bad.append((Job(mixture, Target(name, True), mixture), InputError(f"{path}: line {number}: {error}")))
            continue
        where = path.parent / row["output"] if row.get("output") else output_path(mixture, target, output)
        jobs.append(Job(mixture, target, where))
    order = {mixture: i for i, mixture in enumerate(dict.fromkeys(job.mixture for job in jobs))}
    jobs.sort(key=lambda job: order[job.mixture])
    if residual is not None and not residual.is_dir():
        make_folder(residual)
    jobs = with_rests(jobs, residual)
    check_places(jobs)
    return jobs, bad


def _enrollments(name: str, files: list[Path]) -> list[Path]:
    if "/" in name or "\\" in name:
        raise InputError(f"the name {name!r} becomes part of a file's; give one without a slash")
    return [found for file in files for found in enrollment_files(file)]


def _rows(path: Path) -> list[Mapping[str, str]]:
    what = f"a CSV with the columns {', '.join(COLUMNS)}"
    hint = "part the recordings of one voice by ; and quote a name that holds a comma"
    rows = [row.values for row in read_csv(path, what, NEEDED, COLUMNS, hint, may_be_short=True)]
    for number, row in enumerate(rows, start=2):
        if not row.get("mixture") or not row.get("enroll", "").strip(" ;"):
            raise InputError(f"{path}: line {number} names no {'enroll' if row.get('mixture') else 'mixture'}")
    if not rows:
        raise InputError(f"{path}: holds no lines; a recording and an enrollment a line are needed")
    return rows
