"""One extraction of the page: enroll, extract, draw, step by step in a thread that can be stopped.

`extract_voices` does the work with `inference.file_extraction.extract_file`, as `wesep extract` does, in a folder of
the session. `steps_of` runs such work in a thread and yields what it tells.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wesep_py.common.errors import InputError, WesepError
from wesep_py.common.names import file_name
from wesep_py.inference.file_extraction import FileResult, extract_file
from wesep_py.inference.inputs_outputs.output_files import ExtractionTarget
from wesep_py.ui.page_figures import recording_spectrogram, spectrogram_uri

if TYPE_CHECKING:
    from wesep_py.inference import Extractor
    from wesep_py.ui.sessions import NamedVoice, Session

RESULTS = "results"
"""Folder of a session with the outputs: always the same, so that a stopped extraction resumes."""
TIMELINE_KINDS = (".json", ".csv", ".rttm", ".srt")
T = TypeVar("T")


class ExtractionStopped(WesepError):
    """The visitor stopped the extraction."""


@dataclass(frozen=True)
class Step:
    """A step of the work.

    Attributes:
        text: for the visitor.
        share: of the work that is done, 0 to 1; `None` if that is not known.
    """

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Done(Generic[T]):
    """The last thing that `steps_of` yields: what the work returned."""

    value: T


@dataclass(frozen=True)
class VoiceOutcome:
    """One extracted voice.

    Attributes:
        result: files and presence.
        segments: in which the voice speaks: `start_s`, `end_s` and perhaps `probability` of each.
        spectrograms: pictures of the mixture, the voice and the residual, as URIs.
        remarks: warnings about the enrollment and the extraction.
    """

    result: FileResult
    segments: list[dict[str, Any]]
    spectrograms: tuple[str, str, str]
    remarks: list[str]


@dataclass(frozen=True)
class Outcome:
    """The result of an extraction.

    Attributes:
        voices: in the order asked for.
        timelines: files with the times at which the voices speak.
        duration_s: of the mixture.
        took_s: seconds that the extraction took.
        model: its name.
    """

    voices: list[VoiceOutcome]
    timelines: list[Path]
    duration_s: float
    took_s: float
    model: str


def steps_of(work: Callable[[Callable[[Step], None]], T]) -> Iterator[Step | Done[T]]:
    """Run work in a thread; yield each step that it tells, and at the end what it returned.

    Steps that nobody has waited for are left out but for the last.

    Raises:
        Exception: what the work raised.
    """
    told: queue.SimpleQueue[Step | Done[T] | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            told.put(Done(work(told.put)))
        except BaseException as error:  # is raised where the steps are waited for
            told.put(error)

    threading.Thread(target=run, name="extraction", daemon=True).start()
    while True:
        latest = told.get()
        while isinstance(latest, Step) and not told.empty():
            latest = told.get()
        if isinstance(latest, BaseException):
            raise latest
        yield latest
        if isinstance(latest, Done):
            return


def extract_voices(
    session: Session,
    extractor: Extractor,
    voices: Sequence[NamedVoice],
    force: bool,
    tell: Callable[[Step], None],
) -> Outcome:
    """Extract voices from the mixture of a session, with residuals and timelines.

    Args:
        session: with a mixture.
        extractor: the model.
        voices: one or more, with at least one recording each.
        force: write the estimate of an absent voice, too.
        tell: is called with each step.

    Raises:
        ExtractionStopped: `session.stop` was set. The same extraction resumes after the last finished block.
        InputError: there is no mixture, or an extraction of this session runs.
        AudioError, WesepError: as `Extractor.enroll` and `extract_file`.
    """
    if session.mixture is None:
        raise InputError("no mixture was given; drop or record one")
    if not session.busy.acquire(blocking=False):
        raise InputError("an extraction is running on this page; wait for it, or stop it")
    try:
        session.stop.clear()
        return _extract(session, extractor, voices, force, tell)
    finally:
        session.busy.release()


def _extract(
    session: Session,
    extractor: Extractor,
    voices: Sequence[NamedVoice],
    force: bool,
    tell: Callable[[Step], None],
) -> Outcome:
    mixture = session.mixture
    assert mixture is not None
    began = time.monotonic()

    def check() -> None:
        if session.stop.is_set():
            raise ExtractionStopped("stopped; Extract again continues where it stopped")

    targets, remarks = [], []
    folder = session.folder / RESULTS
    folder.mkdir(exist_ok=True)
    stem = file_name(mixture.path.stem)
    for voice in voices:
        check()
        tell(Step(f"enrolling {voice.name}"))
        enrolled = extractor.enroll(*(recording.path for recording in voice.recordings))
        notes = [] if enrolled.quality is None else [*enrolled.quality.notes, *enrolled.quality.warnings]
        remarks.append([session.one_line(WesepError(note)) for note in notes])
        name = file_name(f"{stem}_{voice.name}")
        residual = folder / f"{file_name(f'{stem}_without_{voice.name}')}.wav"
        targets.append(ExtractionTarget(voice.name, enrolled, folder / f"{name}.wav", residual))
    timelines = [folder / f"{stem}_timeline{kind}" for kind in TIMELINE_KINDS]
    check()
    tell(Step("extracting"))
    started = time.monotonic()

    def on_progress(done_s: float, computed_s: float) -> None:
        check()
        share = min(1.0, done_s / mixture.about.duration_s)
        note = ""
        if computed_s:
            left_s = (time.monotonic() - started) / computed_s * max(0.0, mixture.about.duration_s - done_s)
            note = f", about {left_s:.0f} s left" if left_s >= 1 else ""
        tell(Step(f"extracting: {clock(done_s)} of {clock(mixture.about.duration_s)}{note}", share))

    results = extract_file(extractor, mixture.path, targets, timelines, force, overwrite=True, progress=on_progress)
    _remove_others(folder, [*timelines, *(path for target in targets for path in (target.output, target.residual))])
    tell(Step("drawing"))
    outcomes = _outcomes(session, results, timelines[0], remarks, check)
    return Outcome(outcomes, timelines, mixture.about.duration_s, time.monotonic() - began, extractor.name)


def _outcomes(
    session: Session, results: Sequence[FileResult], timeline: Path, remarks: list[list[str]], check: Callable[[], None]
) -> list[VoiceOutcome]:
    assert session.mixture is not None
    entries = json.loads(timeline.read_text(encoding="utf-8"))["targets"]
    of_mixture = recording_spectrogram(session.mixture.path)
    loudest_db = float(of_mixture.max())
    outcomes = []
    for result, entry, notes in zip(results, entries, remarks, strict=True):
        check()
        assert result.residual is not None
        levels = [of_mixture, recording_spectrogram(result.output), recording_spectrogram(result.residual)]
        mixture, voice, residual = (spectrogram_uri(level, loudest_db) for level in levels)
        if result.voice_changes_s and not result.silenced:
            places = ", ".join(clock(at_s) for at_s in result.voice_changes_s[:5])
            notes = [*notes, f"the extracted voice may change at {places}"]
        outcomes.append(VoiceOutcome(result, entry["segments"], (mixture, voice, residual), notes))
    return outcomes


def _remove_others(folder: Path, outputs: Sequence[Path | None]) -> None:
    """Remove the outputs of earlier extractions."""
    for path in folder.iterdir():
        if path not in outputs and path.is_file():
            path.unlink()


def clock(seconds: float) -> str:
    """Return seconds as `2:03` or `1:02:03`.

    >>> clock(123.4), clock(3723)
    ('2:03', '1:02:03')
    """
    whole = int(seconds)
    minutes = f"{whole // 60 % 60:02d}" if whole >= 3600 else f"{whole // 60}"
    return (f"{whole // 3600}:" if whole >= 3600 else "") + f"{minutes}:{whole % 60:02d}"
