"""Plan which recordings are extracted and which file each result is written to; read a CSV of extractions.

No file that is read is ever replaced, and no two results are written to one file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wesep_py.audio.media_writing import MEDIA_KINDS
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

log = logging.getLogger(__name__)
# Containers that a result keeps; the result of a recording in another one is a wav file, unless its name says more.
KEPT_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".w64", ".rf64")
WRITABLE_SUFFIXES = (*KEPT_SUFFIXES, *MEDIA_KINDS)


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
    """Return one job per recording and target, with the file to write.

    For one recording and one target, `output` is the file (or an existing folder for it). Otherwise `output` is a
    folder, which is made if its parent exists. Without `output`, results are written beside the recordings. In a
    folder, a file has the name of the recording, followed by `_NAME` if the target has a name or if the folder is that
    of the recording. `residual` is the file for one residual, otherwise a folder; residuals have `_rest` in their name.

    A file in a folder, or one that matches a pattern, may be where the result of another recording goes. It is then
    taken for the result of an earlier run and left out, unless `overwrite`.

    Args:
        mixtures: recordings, folders of recordings, or patterns.
        targets: at least one.
        output, overwrite, residual, skip_existing: as the options.
        bad: receives the jobs with names that no file system can hold, with the reason; `None` makes them an error.
        several: whether more targets were named than these, so that `output` is a folder.

    Raises:
        AudioError: a folder holds no recordings, or a pattern (`*.wav`) matches none.
        InputError: the output folder cannot be made; two results would be written to the same file, or one would
            replace a recording that is read.
        OutputExistsError: the only output exists.
    """
    for path in filter(None, (output, residual)):
        check_name(path)
    expanded = _expand(mixtures)
    single = len(expanded) == 1 and len(targets) == 1 and not several and not is_folder(mixtures[0])
    # The number of recordings that a pattern matches must not decide whether `output` is a file or a folder.
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
    jobs = only_writable(with_residuals(jobs, residual), bad)
    if skip_existing or not overwrite:
        jobs = _without_results(jobs, mixtures)
    check_places(jobs)
    if single and jobs:
        check_writable(jobs[0].output, overwrite or skip_existing)
    return jobs


def only_writable(jobs: Sequence[Job], bad: list[tuple[Job, Exception]] | None = None) -> list[Job]:
    """Return the jobs whose file names are possible; append the others to `bad`, with the reason.

    Raises:
        InputError: a name is too long or holds a NUL, and `bad` is `None`.
    """
    writable = []
    for job in jobs:
        try:
            for path in (job.mixture, job.output, *([job.rest] if job.rest else [])):
                check_file_name(path)
        except InputError as error:
            if bad is None:
                raise
            bad.append((job, error))
        else:
            writable.append(job)
    return writable


def _without_results(jobs: Sequence[Job], named: Sequence[Path]) -> list[Job]:
    """Drop the jobs whose recording is the result of another job, unless the user named the recording itself."""
    results = {_identity(path) for job in jobs for path in (job.output, job.rest) if path is not None} - {None}
    dropped = {job.mixture for job in jobs if _identity(job.mixture) in results} - {*named}
    if dropped:
        log.warning(
            "%s: %d of the recordings are results of other recordings; they were left out",
            min(dropped),
            len(dropped),
        )
    return [job for job in jobs if job.mixture not in dropped]


def with_residuals(jobs: Sequence[Job], residual: Path | None) -> list[Job]:
    """Return the jobs with the files of their residuals.

    Raises:
        InputError: voice and residual have different formats; the folder cannot be made.
    """
    if residual is not None and len(jobs) == 1 and not is_folder(residual):
        if residual.suffix.lower() != jobs[0].output.suffix.lower():
            raise InputError(
                f"{residual}: the voice is written to {jobs[0].output.name}; give the residual the same suffix, so "
                "that the two sum to the mixture"
            )
        jobs = [replace(jobs[0], rest=residual)]
    elif residual is not None:
        if not is_folder(residual):
            make_folder(residual)
        jobs = [replace(job, rest=residual / f"{job.output.stem}_rest{job.output.suffix}") for job in jobs]
    return list(jobs)


def check_places(jobs: Sequence[Job]) -> None:
    """Check that no job overwrites the result of another, or a file that is read.

    Raises:
        InputError: two results would be written to the same file, or one would replace a recording.
    """
    jobs_by_place: dict[str, Job] = {}
    inputs = _inputs(jobs)
    for job in jobs:
        for path in (job.output, job.rest):
            if path is None:
                continue
            _check_not_input(path, inputs)
            if (other := jobs_by_place.get(_place(path))) is None:
                jobs_by_place[_place(path)] = job
                continue
            if other.mixture == job.mixture:
                raise InputError(f"{path}: two results would be written there; name another output for one")
            raise InputError(
                f"{path}: both {other.mixture} and {job.mixture} would be written there; "
                "name another output for one, or extract them into different folders"
            )


def _inputs(jobs: Sequence[Job]) -> dict[tuple[int, int] | None, str]:
    """Return the files that are read, by their identity."""
    inputs: dict[tuple[int, int] | None, str] = {}
    for job in jobs:
        inputs |= {_identity(file_of(path)): "an enrollment" for path in job.target.inputs}
    inputs |= {_identity(job.mixture): "the recording" for job in jobs}
    inputs.pop(None, None)
    return inputs


def _check_not_input(path: Path, inputs: dict[tuple[int, int] | None, str]) -> None:
    if (what := inputs.get(_identity(path))) is not None:
        raise InputError(f"{path}: is {what} itself; name another output")


def _place(path: Path) -> str:
    """Return where a file is or will be, with links resolved."""
    try:
        return os.path.realpath(path)
    except ValueError:  # no file can have this name; writing it says so
        return str(path)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode, which all names of one file share; `None` if the file does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def timeline_paths(jobs: Sequence[Job], timeline: Path | None) -> dict[Path, list[Path]]:
    """Return, for each recording, the files to write the times of speech to.

    Args:
        jobs: of all recordings.
        timeline: a file for one recording, in a format of `inference.timeline.TIMELINE_SUFFIXES`; or a folder (made if
            missing), which receives a `.rttm` and a `.json` of every recording.

    Raises:
        InputError: another suffix; a file for several recordings; two recordings of one name; a file that would replace
            an input or a result.
    """
    timelines = _timeline_paths(jobs, timeline)
    inputs, results = _inputs(jobs), {_place(path) for job in jobs for path in (job.output, job.rest) if path}
    for path in (path for paths in timelines.values() for path in paths):
        _check_not_input(path, inputs)
        if _place(path) in results:
            raise InputError(f"{path}: a result is written there; name another file for the timeline")
    return timelines


def _timeline_paths(jobs: Sequence[Job], timeline: Path | None) -> dict[Path, list[Path]]:
    mixtures = list(dict.fromkeys(job.mixture for job in jobs))
    if timeline is None:
        return {}
    if len(mixtures) == 1 and timeline.suffix and not is_folder(timeline):
        from wesep_py.inference.inputs_outputs.timeline import check_timeline_suffix

        return {mixtures[0]: [check_timeline_suffix(timeline)]}
    if not is_folder(timeline):
        make_folder(timeline)
    if len({mixture.stem for mixture in mixtures}) < len(mixtures):
        raise InputError(f"{timeline}: two recordings, and so their timelines, have one name; extract them separately")
    return {mixture: [timeline / f"{mixture.stem}{suffix}" for suffix in (".rttm", ".json")] for mixture in mixtures}


def segment_folders(jobs: Sequence[Job], folder: Path | None) -> dict[Path, Path]:
    """Return, for each recording, the folder for the segments of its voices; made if missing.

    Args:
        jobs: of all recordings.
        folder: for one recording this folder; for several, one in it for each, which has the recording's name.

    Raises:
        InputError: a folder cannot be made; two recordings of one name.
    """
    if folder is None:
        return {}
    if not is_folder(folder):
        make_folder(folder)
    mixtures = list(dict.fromkeys(job.mixture for job in jobs))
    if len(mixtures) == 1:
        return {mixtures[0]: folder}
    if len({mixture.stem for mixture in mixtures}) < len(mixtures):
        raise InputError(f"{folder}: two recordings, and so their folders, have one name; extract them separately")
    folders = {mixture: folder / mixture.stem for mixture in mixtures}
    for path in folders.values():
        if not is_folder(path):
            make_folder(path)
    return folders


def not_written(jobs: Sequence[Job], timelines: dict[Path, list[Path]]) -> list[Job]:
    """Return the jobs whose output does not exist yet.

    Args:
        jobs: of one or more recordings.
        timelines: result of `timeline_paths`, or other files that need all voices of a recording.

    Raises:
        InputError: of one recording some outputs exist and others do not, and its timeline would be incomplete.
    """
    done = {job.mixture: job for job in jobs if path_exists(job.output)}
    remaining = [job for job in jobs if not path_exists(job.output)]
    for job in remaining:
        if job.mixture in done and timelines.get(job.mixture):
            raise InputError(
                f"{job.mixture}: {done[job.mixture].target.name} is written already and {job.target.name} is not; "
                "a timeline needs both in one run: use --overwrite instead of --skip-existing, or leave out --timeline"
            )
    return remaining


def _expand(mixtures: Sequence[Path]) -> list[Path]:
    """Return the files themselves, the recordings in folders, and the recordings that match patterns."""
    from wesep_py.inference.inputs_outputs.inputs import audio_files, is_recording_name

    expanded: list[Path] = []
    for path in mixtures:
        if is_folder(path):
            expanded += audio_files(path)
        elif _is_pattern(path):
            root = Path(path.anchor or ".")
            matches = sorted(root.glob(str(path.relative_to(path.anchor) if path.anchor else path)))
            named = str(path).split("/")
            files = [
                file
                for file in matches
                if is_recording_name(file) and file.is_file() and not any(map(is_hidden, {*file.parts} - {*named}))
            ]
            if not files:
                raise AudioError(f"{path}: matches no recording; ** matches folders in folders")
            expanded += files
        else:
            expanded.append(path)
    return list(dict.fromkeys(expanded))


def _is_pattern(path: Path) -> bool:
    return any(sign in str(path) for sign in "*?[") and not path_exists(path)


def require_suffix(path: Path) -> None:
    """Check that the format of an output can be written, before anything is computed."""
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        problem = f"{path.suffix} is not a format that can be written" if path.suffix else "has no suffix"
        raise InputError(
            f"{path}: {problem}; name one of {', '.join(sorted(WRITABLE_SUFFIXES))}, or a folder that exists"
        )


def make_folder(folder: Path) -> None:
    """Make a folder whose parent exists.

    Raises:
        InputError: a file of that name exists, the parent does not exist, or the folder cannot be made.
    """
    if path_exists(folder):
        raise InputError(f"{folder}: is a file; several results need a folder")
    try:
        folder.mkdir()
    except FileNotFoundError:
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be created ({error.strerror})") from error


def output_path(mixture: Path, target: Target, folder: Path | None) -> Path:
    """Return the file for a result, in a folder or beside the recording."""
    folder = mixture.parent if folder is None else folder
    is_beside = folder.resolve() == mixture.parent.resolve()
    stem = f"{mixture.stem}_{target.name}" if target.named or is_beside else mixture.stem
    suffix = mixture.suffix if mixture.suffix.lower() in KEPT_SUFFIXES else ".wav"
    return folder / f"{stem}{suffix}"


COLUMNS = ("mixture", "enroll", "name", "output")
REQUIRED_COLUMNS = ("mixture", "enroll")


def read_jobs(
    path: Path, output: Path | None = None, residual: Path | None = None
) -> tuple[list[Job], list[tuple[Job, Exception]]]:
    """Read the jobs of a CSV with the columns `mixture, enroll[, name][, output]`.

    Paths are relative to the CSV. `;` separates several recordings of one voice in `enroll`. A line without `output` is
    written where `plan` says.

    Args:
        path: the CSV.
        output: folder for lines without an output; beside the recording if `None`.
        residual: folder for the residuals.

    Returns:
        The jobs, with those of one recording together; and the jobs that cannot be done, with the reason.

    Raises:
        InputError: no such file, no lines, missing or unknown columns, or two lines with one output.
    """
    from wesep_py.data.manifest import FileLocator

    rows = _rows(path)
    if output is not None and not output.is_dir():
        make_folder(output)
    jobs: list[Job] = []
    bad: list[tuple[Job, Exception]] = []
    targets: dict[tuple[str, str], Target] = {}
    locator = FileLocator(path.parent, path, search_moved=False)
    for number, row in enumerate(rows, start=2):
        mixture, name = path.parent / row["mixture"], row.get("name") or ""
        try:
            mixture = locator.find(row["mixture"], _is_recording)
            named = [text.strip() for text in row["enroll"].split(";") if text.strip()]
            files = [locator.find(text, _is_recording) for text in named]
            name = name or default_name(files[0])
            if row.get("name"):
                check_target_name(name)
            target = targets.get((row["enroll"], name))
            if target is None:
                target = Target(
                    name, bool(row.get("name")), [path for file in files for path in enrollment_files(file)]
                )
                require_alone(target)
                targets[row["enroll"], name] = target
            result = path.parent / row["output"] if row.get("output") else output_path(mixture, target, output)
            if row.get("output"):
                _check_output(result)
            (job,) = only_writable([Job(mixture, target, result)])
        except (WesepError, OSError, ValueError) as error:
            located = InputError(f"{path}: line {number}: {reason(error)}")
            bad.append((Job(mixture, Target(printable(name[:LONGEST_NAME]), True), mixture), located))
            continue
        jobs.append(job)
    order = {mixture: i for i, mixture in enumerate(dict.fromkeys(job.mixture for job in jobs))}
    jobs.sort(key=lambda job: order[job.mixture])
    if residual is not None and not residual.is_dir():
        make_folder(residual)
    jobs = only_writable(with_residuals(jobs, residual), bad)
    check_places(jobs)
    return jobs, bad


def _is_recording(path: Path) -> bool:
    """Return whether a file or folder exists, also if the path names a segment of it."""
    try:
        return os.path.exists(file_of(path))  # noqa: PTH110
    except (WesepError, OSError, ValueError):
        return False


def _check_output(path: Path) -> None:
    """Check that the output of a line can be written, before it makes other voices of the recording fail."""
    check_file_name(path)
    require_suffix(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")


def _rows(path: Path) -> list[Mapping[str, str]]:
    what = f"a CSV with the columns {', '.join(COLUMNS)}"
    hint = "separate the recordings of one voice by ; and quote a name that holds a comma"
    rows = [
        row.values
        for row in read_csv(path, what, REQUIRED_COLUMNS, COLUMNS, hint, may_be_short=True, may_hold_nul=True)
    ]
    for number, row in enumerate(rows, start=2):
        if not row.get("mixture") or not row.get("enroll", "").strip(" ;"):
            raise InputError(f"{path}: line {number} names no {'enroll' if row.get('mixture') else 'mixture'}")
    if not rows:
        raise InputError(f"{path}: holds no lines; each line needs a recording and an enrollment")
    return rows
