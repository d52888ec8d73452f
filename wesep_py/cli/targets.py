"""What `--enroll` says, and which file each extraction is written to. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wesep_py.errors import AudioError, InputError

VOICE_SUFFIX = ".voice"
# Containers that can be written; a recording in another one comes out as wav.
WRITABLE_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")


@dataclass
class Target:
    """One person to extract.

    Attributes:
        name: as given by `NAME=FILE`, else the first file's stem.
        named: whether the user gave the name.
        files: recordings of the voice; or one voice print.
        like: a voice print; of several voices in a recording the one that is nearest to it is meant.
    """

    name: str
    named: bool
    files: list[Path] = field(default_factory=list)
    like: Path | None = None

    @property
    def voice_print(self) -> Path | None:
        """The voice print, where one was given instead of recordings."""
        return next((file for file in self.files if file.suffix.lower() == VOICE_SUFFIX), None)


@dataclass(frozen=True)
class Job:
    """One recording, one target, one file to write."""

    mixture: Path
    target: Target
    output: Path
    rest: Path | None = None


def parse_targets(enrollments: Sequence[str], prints: Sequence[str] = ()) -> list[Target]:
    """The targets that `--enroll FILE`, `--enroll NAME=FILE`, … ask for, in order of first mention.

    Files without a name, and files under the same name, are all of one voice. A file may be a recording, a
    folder of recordings or a voice print.

    Args:
        enrollments: what `--enroll` was given.
        prints: what `--enroll-like` was given: `PRINT` or `NAME=PRINT`.

    Raises:
        InputError: none given; some files with a name and some without; a voice print and something else for
            one voice; a print to choose by that does not fit the enrollments.
        AudioError: a file that does not exist, a folder without recordings.
    """
    if not enrollments:
        raise InputError("no enrollment was given; add --enroll FILE with a recording of the voice")
    targets: dict[str | None, Target] = {}
    for text in enrollments:
        name, path = _split(text)
        if targets and (name is None) != (None in targets):
            raise InputError(f"--enroll {text}: give every file a NAME=, or none (then all are one voice)")
        files = enrollment_files(path)
        targets.setdefault(name, Target(name or _stem(path), name is not None)).files.extend(files)
    for target in targets.values():
        require_alone(target)
    for text in prints:
        _add_print(text, targets)
    return list(targets.values())


def require_alone(target: Target) -> None:
    """Refuse a voice print beside something else.

    Raises:
        InputError: there is one.
    """
    if target.voice_print is not None and len(target.files) > 1:
        raise InputError(
            f"{target.voice_print}: is a voice print, and stands alone; "
            "to join recordings, give them all to `wesep enroll`"
        )


def _add_print(text: str, targets: dict[str | None, Target]) -> None:
    """What `--enroll-like` says, entered at its target."""
    name, path = _split(text, "--enroll-like")
    if name not in targets:
        names = ", ".join(f"{known}={path}" for known in targets if known is not None)
        wanted = f"with a name of --enroll: {names}" if names else f"without a name: {path}"
        raise InputError(f"--enroll-like {text}: give it {wanted}")
    target = targets[name]
    if target.voice_print is not None:
        raise InputError(f"--enroll-like {text}: {target.voice_print} is one voice; the option is for recordings")
    if target.like is not None:
        raise InputError(f"--enroll-like {text}: {target.like} was given already; one print a voice is allowed")
    if path.suffix.lower() != VOICE_SUFFIX:
        raise InputError(f"--enroll-like {text}: a voice print (NAME.voice) is needed; `wesep enroll` makes one")
    target.like = path


def enrollment_files(path: Path) -> list[Path]:
    """The file itself, also where a stretch of it is meant (`FILE@12.3-17.8`), or the recordings in a folder.

    Raises:
        AudioError: it does not exist, or is a folder without recordings.
        InputError: a stretch that ends before it begins.
    """
    from wesep_py.inference import audio_files, stretch_of

    if path.is_dir():
        return audio_files(path)
    stretch = stretch_of(path)
    if not (path if stretch is None else Path(stretch.path)).is_file():
        raise AudioError(f"{path}: no such file; an enrollment is a recording, a folder of them or a voice print")
    return [path]


def plan(
    mixtures: Sequence[Path],
    targets: Sequence[Target],
    output: Path | None,
    overwrite: bool,
    residual: Path | None = None,
) -> list[Job]:
    """Which file each recording and target go to.

    One recording and one target: `output` is the file (or an existing folder for it). Otherwise `output`
    is a folder, made if its parent exists. Without `output` results are written beside the recordings. Inside
    a folder, files are called as the recording, followed by `_NAME` where the target has a name or the folder
    is the recording's own. `residual` is the file for the rest of one, else a folder: there `_rest` follows.

    Raises:
        AudioError: a folder given as mixture holds no recordings, or a pattern (`*.wav`) fits none.
        InputError: the output folder cannot be made; two results would be written to the same file.
        OutputExistsError: the one output exists.
    """
    from wesep_py.files import check_writable

    expanded = _expand(mixtures)
    single = len(expanded) == 1 and len(targets) == 1 and not mixtures[0].is_dir()
    if single and output is not None and not output.is_dir():
        check_writable(output, overwrite)
        return with_rests([Job(expanded[0], targets[0], output)], residual)
    if output is not None and not output.is_dir():
        make_folder(output)
    jobs = [Job(mixture, target, output_path(mixture, target, output)) for mixture in expanded for target in targets]
    if single:
        check_writable(jobs[0].output, overwrite)
    return with_rests(jobs, residual)


def with_rests(jobs: Sequence[Job], residual: Path | None) -> list[Job]:
    """The jobs with the files for their rests, checked that no two files are the same.

    Raises:
        InputError: two results would be written to the same file; the rest of one in another format than the voice.
    """
    if residual is not None and len(jobs) == 1 and not residual.is_dir():
        if residual.suffix.lower() != jobs[0].output.suffix.lower():
            raise InputError(
                f"{residual}: the voice goes to {jobs[0].output.name}; give the rest the same suffix, so that the two "
                "sum to the mixture"
            )
        jobs = [replace(jobs[0], rest=residual)]
    elif residual is not None:
        if not residual.is_dir():
            make_folder(residual)
        jobs = [replace(job, rest=residual / f"{job.output.stem}_rest{job.output.suffix}") for job in jobs]
    seen: dict[Path, Job] = {}
    for job in jobs:
        for path in (job.output, job.rest):
            if path is None:
                continue
            if (other := seen.get(path)) is not None:
                raise InputError(
                    f"{path}: both {other.mixture} and {job.mixture} would be written there; "
                    "extract them into different folders"
                )
            seen[path] = job
    return list(jobs)


def timeline_paths(jobs: Sequence[Job], timeline: Path | None) -> dict[Path, list[Path]]:
    """The files that say when the targets of each recording speak.

    Args:
        jobs: of all recordings.
        timeline: `.rttm` or `.json` for one recording; a folder (made if need be), for any number, gets both of each.

    Raises:
        InputError: another suffix; a file for several recordings; two recordings of one name.
    """
    mixtures = list(dict.fromkeys(job.mixture for job in jobs))
    if timeline is None:
        return {}
    if len(mixtures) == 1 and timeline.suffix and not timeline.is_dir():
        from wesep_py.inference.timeline import check_suffix

        return {mixtures[0]: [check_suffix(timeline)]}
    if not timeline.is_dir():
        make_folder(timeline)
    if len({mixture.stem for mixture in mixtures}) < len(mixtures):
        raise InputError(f"{timeline}: two recordings have one name, and so would their timelines; take them apart")
    return {mixture: [timeline / f"{mixture.stem}{suffix}" for suffix in (".rttm", ".json")] for mixture in mixtures}


def _split(text: str, option: str = "--enroll") -> tuple[str | None, Path]:
    """`NAME=FILE` or `FILE`; a path that exists is a path even if it holds an `=`."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    if not name or not path or "/" in name or "\\" in name:
        raise InputError(f"{option} {text}: FILE or NAME=FILE is needed, NAME without a slash")
    return name, Path(path)


def _stem(path: Path) -> str:
    """What a target without a name is called after its first file."""
    from wesep_py.inference import stretch_of

    stretch = stretch_of(path)
    return path.stem if stretch is None else Path(stretch.path).stem


def _expand(mixtures: Sequence[Path]) -> list[Path]:
    """Files as they are, the recordings in folders, and those that a pattern fits."""
    from wesep_py.inference import AUDIO_SUFFIXES, audio_files

    found: list[Path] = []
    for path in mixtures:
        if path.is_dir():
            found += audio_files(path)
        elif any(sign in str(path) for sign in "*?[") and not path.exists():
            root = Path(path.anchor or ".")
            fitting = sorted(root.glob(str(path.relative_to(path.anchor) if path.anchor else path)))
            files = [file for file in fitting if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file()]
            if not files:
                raise AudioError(f"{path}: no recording is called like this; ** stands for folders in folders")
            found += files
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def make_folder(folder: Path) -> None:
    """Make a folder whose parent exists.

    Raises:
        InputError: a file is there, there is no parent, or it cannot be made.
    """
    if folder.exists():
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
