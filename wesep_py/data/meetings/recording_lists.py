"""The four files of a list of recordings without references: recordings, trials, activity labels, transcripts.

`docs/formats.md` describes them. `wesep evaluate` reads them by `data.trials`, `evaluation.activity_labels` and
`evaluation.metric_backends`.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wesep_py.common.errors import InputError, quoted
from wesep_py.common.files import check_writable, write_text, write_together
from wesep_py.common.names import canonical
from wesep_py.data.meetings.meeting import Interval
from wesep_py.data.mixture_lists import GROUP_COLUMN
from wesep_py.data.trials import ABSENT

RECORDINGS_NAME, TRIALS_NAME = "recordings.csv", "map_mixture2enrollment"
LABELS_NAME, TRANSCRIPTS_NAME = "labels.rttm", "transcripts.txt"


@dataclass(frozen=True)
class RecordedMixture:
    """A recording, or a segment of one, with several speakers.

    Attributes:
        mixture_id: its name, without white space.
        path: the recording, or a segment `FILE@START-STOP` of it.
        activity: when each speaker speaks, in seconds from its start, by speaker.
        groups: by which results are broken down.
    """

    mixture_id: str
    path: str
    activity: Mapping[str, Sequence[Interval]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordingTrial:
    """A target in a recorded mixture.

    Attributes:
        mixture_id: of the mixture.
        target: the speaker, without white space; `ABSENT` for one who is not in the mixture.
        enrollment: a recording of the target, or a segment of one.
        transcript: what the target says in the mixture; `None` if that is not known.
    """

    mixture_id: str
    target: str
    enrollment: str
    transcript: str | None = None


@dataclass(frozen=True)
class WrittenRecordings:
    """The files of a written list, and its numbers of mixtures, trials and trials with an absent target."""

    files: tuple[Path, ...]
    mixtures: int
    trials: int
    absent: int


def file_segment(path: Path, start_s: float, end_s: float) -> str:
    """Return the name of a segment, in whole milliseconds within the given times.

    >>> file_segment(Path("/a/b.wav"), 1.0, 2.3456)
    '/a/b.wav@1.000-2.345'
    """
    start_ms, end_ms = -int(-start_s * 1000 // 1), int(end_s * 1000 // 1)
    return f"{path}@{start_ms / 1000:.3f}-{end_ms / 1000:.3f}"


def write_recording_lists(
    folder: str | os.PathLike[str],
    mixtures: Iterable[RecordedMixture],
    trials: Iterable[RecordingTrial],
    overwrite: bool = False,
) -> WrittenRecordings:
    """Write the list of some recordings; labels and transcripts only where there are any.

    Args:
        folder: created if it does not exist; its parent must exist.
        mixtures: those without a trial are left out.
        trials: each once.
        overwrite: replace the files of an earlier run; those that are not written now are removed.

    Raises:
        InputError: there is no trial, a name has white space, or two mixtures have one name.
        OutputExistsError: a file exists, and `overwrite` is false.
    """
    trials = list(dict.fromkeys(trials))
    used = {trial.mixture_id for trial in trials}
    mixtures = [mixture for mixture in mixtures if mixture.mixture_id in used]
    _check_names(mixtures, trials)
    labels = "".join(_labels_of(mixture) for mixture in mixtures)
    transcripts = "".join(
        f"{trial.mixture_id}/{trial.target} {' '.join(trial.transcript.split())}\n"
        for trial in {(trial.mixture_id, trial.target): trial for trial in trials}.values()
        if trial.transcript is not None and trial.transcript.split()
    )
    texts = {
        RECORDINGS_NAME: _recordings_as_csv(mixtures),
        TRIALS_NAME: "".join(f"{trial.mixture_id} {trial.target} {trial.enrollment}\n" for trial in trials),
        LABELS_NAME: labels,
        TRANSCRIPTS_NAME: transcripts,
    }
    folder = Path(folder)
    if folder.exists():
        for name in texts:
            check_writable(folder / name, overwrite)
    folder.mkdir(exist_ok=True)
    with write_together():
        for name, text in texts.items():
            if text:
                write_text(folder / name, text, overwrite)
    for name, text in texts.items():
        if not text:
            (folder / name).unlink(missing_ok=True)
    files = tuple(folder / name for name, text in texts.items() if text)
    return WrittenRecordings(files, len(mixtures), len(trials), sum(trial.target == ABSENT for trial in trials))


def _labels_of(mixture: RecordedMixture) -> str:
    lines = sorted(
        (start_s, f"SPEAKER {mixture.mixture_id} 1 {start_s:.3f} {end_s - start_s:.3f} <NA> <NA> {name} <NA> <NA>\n")
        for name, intervals in mixture.activity.items()
        for start_s, end_s in intervals
    )
    return "".join(line for _, line in lines)


def _recordings_as_csv(mixtures: Sequence[RecordedMixture]) -> str:
    names = list(dict.fromkeys(name for mixture in mixtures for name in mixture.groups))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["mixture_ID", "mixture_path", *(f"{GROUP_COLUMN}{name}" for name in names)])
    for mixture in mixtures:
        table.writerow([mixture.mixture_id, mixture.path, *(mixture.groups.get(name, "") for name in names)])
    return text.getvalue()


def _check_names(mixtures: Sequence[RecordedMixture], trials: Sequence[RecordingTrial]) -> None:
    if not trials:
        raise InputError(
            "there is no trial: no speaker has both speech in a window and enough speech alone outside of it"
        )
    speakers = {name for mixture in mixtures for name in mixture.activity} | {trial.target for trial in trials}
    for name in (*(mixture.mixture_id for mixture in mixtures), *speakers):
        if not name or name.split() != [name]:
            raise InputError(f"the name {quoted(name)} has white space, which the lists cannot hold; rename it")
    ((name, count),) = Counter(canonical(mixture.mixture_id) for mixture in mixtures).most_common(1)
    if count > 1:
        raise InputError(f"{count} mixtures are named {quoted(name)}; their names must differ")
