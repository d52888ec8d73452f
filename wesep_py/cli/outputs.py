"""A CSV of extractions: a recording, whose voice, and where to, on each line."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wesep_py.cli.targets import (
    LONGEST_NAME,
    Job,
    Target,
    check_file_name,
    check_target_name,
    default_name,
    enrollment_files,
    file_of,
    require_alone,
)
from wesep_py.common.errors import AudioError, InputError, WesepError, reason
from wesep_py.common.files import check_name, check_writable, is_folder, path_exists
from wesep_py.common.names import is_hidden, printable
from wesep_py.common.textfiles import read_csv

# ----------------------------------------
# Which recordings are meant, and which file each extraction is written to; none that is read is ever replaced.

log = logging.getLogger(__name__)
# Containers that can be written; a recording in another one comes out as wav.
WRITABLE_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".w64", ".rf64")


def plan(
    mixtures: Sequence[Path],
    targets: Sequence[Target],
    output: Path | None,
    overwrite: bool,
    residual: Path | None = None,
    skip_existing: bool = False,
    bad: list[tuple[Job, Exception]] | None = None,
    several: bool = False,
) -> list[Job]:
    """Which file each recording and target go to.

    One recording and one target: `output` is the file (or an existing folder for it). Otherwise `output`
    is a folder, made if its parent exists. Without `output` results are written beside the recordings. Inside
    a folder, files are called as the recording, followed by `_NAME` where the target has a name or the folder
    is the recording's own. `residual` is the file for the rest of one, else a folder: there `_rest` follows.

    What is found in a folder, or by a pattern, and is where the result of another recording goes, is taken for the
    result of an earlier run and left out, unless `overwrite`.

    Args:
        mixtures: recordings, folders of them, patterns.
        targets: at least one.
        output, overwrite, residual, skip_existing: as the options.
        bad: gets the jobs whose file no file system can hold, with the reason; without it they are an error.
        several: more targets were named than these, so `output` is a folder.

    Raises:
        AudioError: a folder given as mixture holds no recordings, or a pattern (`*.wav`) fits none.
        InputError: the output folder cannot be made; a result would be written to the same file as another, or in the
            place of a recording that is read.
        OutputExistsError: the one output exists.
    """
    for path in filter(None, (output, residual)):
        check_name(path)
    expanded = _expand(mixtures)
    single = len(expanded) == 1 and len(targets) == 1 and not several and not is_folder(mixtures[0])
    # How many recordings a pattern fits should not decide on what `output` stands for.
    as_file = not _is_pattern(mixtures[0]) or (output is not None and output.suffix.lower() in WRITABLE_SUFFIXES)
    if single and as_file and output is not None and not is_folder(output):
        require_suffix(output)
        places = [output]
    else:
        if output is not None and not is_folder(output):
            make_folder(output)
        places = [output_path(mixture, target, output) for mixture in expanded for target in targets]
    pairs = [(mixture, target) for mixture in expanded for target in targets]
    jobs = [Job(*pair, place) for pair, place in zip(pairs, places, strict=True)]
    jobs = only_writable(with_rests(jobs, residual), bad)
    if skip_existing or not overwrite:
        jobs = _without_results(jobs, mixtures)
    check_places(jobs)
    if single and jobs:
        check_writable(jobs[0].output, overwrite or skip_existing)
    return jobs


def only_writable(jobs: Sequence[Job], bad: list[tuple[Job, Exception]] | None = None) -> list[Job]:
    """The jobs whose files can have their names; the others go to `bad`, with the reason.

    Raises:
        InputError: a name is too long, or holds a NUL, and there is no `bad`.
    """
    good = []
    for job in jobs:
        try:
            for path in (job.mixture, job.output, *([job.rest] if job.rest else [])):
                check_file_name(path)
        except InputError as error:
            if bad is None:
                raise
            bad.append((job, error))
        else:
            good.append(job)
    return good


def _without_results(jobs: Sequence[Job], named: Sequence[Path]) -> list[Job]:
    """The jobs, but for those whose recording is where another's result goes, and was not `named` itself."""
    results = {_identity(path) for job in jobs for path in (job.output, job.rest) if path is not None} - {None}
    dropped = {job.mixture for job in jobs if _identity(job.mixture) in results} - {*named}
    if dropped:
        log.warning(
            "%s: of the recordings %d are where the results of others go, and were not extracted from",
            min(dropped),
            len(dropped),
        )
    return [job for job in jobs if job.mixture not in dropped]


def with_rests(jobs: Sequence[Job], residual: Path | None) -> list[Job]:
    """The jobs with the files for their rests.

    Raises:
        InputError: the rest of one in another format than the voice; the folder cannot be made.
    """
    if residual is not None and len(jobs) == 1 and not is_folder(residual):
        if residual.suffix.lower() != jobs[0].output.suffix.lower():
            raise InputError(
                f"{residual}: the voice goes to {jobs[0].output.name}; give the rest the same suffix, so that the two "
                "sum to the mixture"
            )
        jobs = [replace(jobs[0], rest=residual)]
    elif residual is not None:
        if not is_folder(residual):
            make_folder(residual)
        jobs = [replace(job, rest=residual / f"{job.output.stem}_rest{job.output.suffix}") for job in jobs]
    return list(jobs)


def check_places(jobs: Sequence[Job]) -> None:
    """Refuse jobs of which one would undo what another wrote, or replace what is read.

    Raises:
        InputError: two results would be written to the same file, or one in the place of a recording.
    """
    seen: dict[str, Job] = {}
    read = _read_files(jobs)
    for job in jobs:
        for path in (job.output, job.rest):
            if path is None:
                continue
            _refuse_read(path, read)
            if (other := seen.get(_place(path))) is None:
                seen[_place(path)] = job
                continue
            if other.mixture == job.mixture:
                raise InputError(f"{path}: two results would be written there; name another output for one")
            raise InputError(
                f"{path}: both {other.mixture} and {job.mixture} would be written there; "
                "name another output for one, or extract them into different folders"
            )


def _read_files(jobs: Sequence[Job]) -> dict[tuple[int, int] | None, str]:
    """What is read, by the identity of the file."""
    found: dict[tuple[int, int] | None, str] = {}
    for job in jobs:
        given = [*job.target.files, *([job.target.like] if job.target.like else [])]
        found |= {_identity(file_of(path)): "an enrollment" for path in given}
    found |= {_identity(job.mixture): "the recording" for job in jobs}
    found.pop(None, None)
    return found


def _refuse_read(path: Path, read: dict[tuple[int, int] | None, str]) -> None:
    if (what := read.get(_identity(path))) is not None:
        raise InputError(f"{path}: is {what} itself; name another output")


def _place(path: Path) -> str:
    """Where a file lies or will lie, whatever links lead there."""
    try:
        return os.path.realpath(path)
    except ValueError:  # no file can have this name, as is said when it is to be written
        return str(path)


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common; `None` of what is not there."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino


def timeline_paths(jobs: Sequence[Job], timeline: Path | None) -> dict[Path, list[Path]]:
    """The files that say when the targets of each recording speak.

    Args:
        jobs: of all recordings.
        timeline: `.rttm` or `.json` for one recording; a folder (made if need be), for any number, gets both of each.

    Raises:
        InputError: another suffix; a file for several recordings; two recordings of one name; a file in the place of
            what is read, or of a result.
    """
    found = _timeline_paths(jobs, timeline)
    read, written = _read_files(jobs), {_place(path) for job in jobs for path in (job.output, job.rest) if path}
    for path in (path for paths in found.values() for path in paths):
        _refuse_read(path, read)
        if _place(path) in written:
            raise InputError(f"{path}: a result is written there; name another file for the timeline")
    return found


def _timeline_paths(jobs: Sequence[Job], timeline: Path | None) -> dict[Path, list[Path]]:
    mixtures = list(dict.fromkeys(job.mixture for job in jobs))
    if timeline is None:
        return {}
    if len(mixtures) == 1 and timeline.suffix and not is_folder(timeline):
        from wesep_py.inference.timeline import check_timeline_suffix

        return {mixtures[0]: [check_timeline_suffix(timeline)]}
    if not is_folder(timeline):
        make_folder(timeline)
    if len({mixture.stem for mixture in mixtures}) < len(mixtures):
        raise InputError(f"{timeline}: two recordings have one name, and so would their timelines; take them apart")
    return {mixture: [timeline / f"{mixture.stem}{suffix}" for suffix in (".rttm", ".json")] for mixture in mixtures}


def not_written(jobs: Sequence[Job], timelines: dict[Path, list[Path]]) -> list[Job]:
    """The jobs whose output is not there yet.

    Args:
        jobs: of one or more recordings.
        timelines: what `timeline_paths` said.

    Raises:
        InputError: of one recording some are there and some not, and its timeline would lack those that are.
    """
    done = {job.mixture: job for job in jobs if path_exists(job.output)}
    left = [job for job in jobs if not path_exists(job.output)]
    for job in left:
        if job.mixture in done and timelines.get(job.mixture):
            raise InputError(
                f"{job.mixture}: {done[job.mixture].target.name} is written already and {job.target.name} is not; "
                "a timeline needs both in one pass: --overwrite instead of --skip-existing, or no --timeline"
            )
    return left


def _expand(mixtures: Sequence[Path]) -> list[Path]:
    """Files as they are, the recordings in folders, and those that a pattern fits."""
    from wesep_py.inference import AUDIO_SUFFIXES, audio_files

    found: list[Path] = []
    for path in mixtures:
        if is_folder(path):
            found += audio_files(path)
        elif _is_pattern(path):
            root = Path(path.anchor or ".")
            fitting = sorted(root.glob(str(path.relative_to(path.anchor) if path.anchor else path)))
            named = str(path).split("/")
            files = [
                file
                for file in fitting
                if file.suffix.lower() in AUDIO_SUFFIXES
                and file.is_file()
                and not any(map(is_hidden, {*file.parts} - {*named}))
            ]
            if not files:
                raise AudioError(f"{path}: no recording is called like this; ** stands for folders in folders")
            found += files
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _is_pattern(path: Path) -> bool:
    return any(sign in str(path) for sign in "*?[") and not path_exists(path)


def require_suffix(path: Path) -> None:
    """Refuse an output of no format that can be written, before anything is computed."""
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        given = f"{path.suffix} is not a format to write" if path.suffix else "has no suffix"
        raise InputError(
            f"{path}: {given}; name one of {', '.join(sorted(WRITABLE_SUFFIXES))}, or a folder that exists"
        )


def make_folder(folder: Path) -> None:
    """Make a folder whose parent exists.

    Raises:
        InputError: a file is there, there is no parent, or it cannot be made.
    """
    if path_exists(folder):
        raise InputError(f"{folder}: is a file; several results need a folder to be written to")
    try:
        folder.mkdir()
    except FileNotFoundError:
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be created ({error.strerror})") from error


def output_path(mixture: Path, target: Target, folder: Path | None) -> Path:
    """Where the result goes in a folder, or beside the recording."""
    folder = mixture.parent if folder is None else folder
    own = folder.resolve() == mixture.parent.resolve()
    stem = f"{mixture.stem}_{target.name}" if target.named or own else mixture.stem
    suffix = mixture.suffix if mixture.suffix.lower() in WRITABLE_SUFFIXES else ".wav"
    return folder / f"{stem}{suffix}"


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
    from wesep_py.data.manifest import FileLocator

    rows = _rows(path)
    if output is not None and not output.is_dir():
        make_folder(output)
    jobs: list[Job] = []
    bad: list[tuple[Job, Exception]] = []
    targets: dict[tuple[str, str], Target] = {}
    places = FileLocator(path.parent, path, search_moved=False)
    for number, row in enumerate(rows, start=2):
        mixture, name = path.parent / row["mixture"], row.get("name") or ""
        try:
            mixture = places.find(row["mixture"], _is_recording)
            files = [places.find(each.strip(), _is_recording) for each in row["enroll"].split(";") if each.strip()]
            name = name or default_name(files[0])
            if row.get("name"):
                check_target_name(name)
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
