"""A recording and the voices wanted of it, from file to file: whole where it fits, block by block where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wesep_py import audio
from wesep_py.common.files import check_writable, path_exists, refuse_inputs, write_together
from wesep_py.inference.inputs import Recording, read_source
from wesep_py.inference.long_files import LongExtraction, Progress, extraction_identity
from wesep_py.inference.output_files import (
    ExtractionTarget,
    interrupted_outputs,
    remove_stale_blocks,
    journal_path,
    audio_writer,
)
from wesep_py.inference.overlap_add import FRAME_S, Blocks
from wesep_py.inference.presence import Presence
from wesep_py.inference.speech_activity import remove_low_frequencies
from wesep_py.inference.timeline import (
    Timeline,
    check_timeline_suffix,
    frame_energies,
    timeline_from_energies,
    timeline_from_presence,
    write_timeline,
)

if TYPE_CHECKING:
    from wesep_py.inference.extractor import Extractor
    from wesep_py.inference.result import Result


@dataclass(frozen=True)
class FileResult:
    """What was written of one voice.

    Attributes:
        name: of the target.
        output: the file.
        rest: the file with the rest; `None` where none was asked for.
        sample_rate: Hz.
        duration_s: seconds.
        presence: probability that the voice is in the recording; `None` without a presence head.
        threshold: from which on it counts as present; `None` without a presence head.
        absent: whether it is below the threshold.
        silenced: whether silence was written therefore.
        breaks_s: where one block of a long recording seems to hold another voice than the one before.
    """

    name: str
    output: Path
    rest: Path | None
    sample_rate: int
    duration_s: float
    presence: float | None
    threshold: float | None
    absent: bool
    silenced: bool
    breaks_s: tuple[float, ...] = ()


def extract_file(
    extractor: Extractor,
    mixture: str | Path,
    wanted: Sequence[ExtractionTarget],
    timelines: Sequence[Path] = (),
    force: bool = False,
    overwrite: bool = False,
    blocks: Blocks | None = None,
    progress: Progress = lambda done_s, own_s: None,
) -> list[FileResult]:
    """Extract voices from a recording, read once, into files.

    A recording of at most one block gives what `Extractor.extract` does, to the bit. All files appear together, the
    outputs last, or none does. What a killed run of the very same job left of them is replaced.

    Args:
        extractor: the model.
        mixture: a file of any length.
        wanted: one or more.
        timelines: files to write when the voices speak, `.rttm` or `.json`.
        force: write also what is extracted of a voice that is absent; else silence.
        overwrite: replace existing files.
        blocks: lengths of what a long recording is cut into.
        progress: for a long recording, called after every block.

    Raises:
        AudioError, InputError, OutputExistsError, WesepError: as `Extractor.extract` and `Result.save`.
    """
    blocks, output = blocks or Blocks(), wanted[0].output
    recorded = [path for one in wanted for path in (one.output, one.rest) if path is not None]
    outputs = [*recorded, *map(check_timeline_suffix, timelines)]
    refuse_inputs(outputs, [(mixture, "the recording")])
    journals = path_exists(journal_path(output))
    for path in outputs:  # before the recording is read; where a run was killed, once it is known which
        check_writable(path, overwrite or journals)
    about = audio.info(mixture)
    grid = blocks.grid(extractor.sample_rate, extractor.network.backbone.stride)
    is_long = audio.resampled_length(about.num_samples, about.sample_rate, extractor.sample_rate) > grid.block
    if journals and is_long:
        begun = interrupted_outputs(output, extraction_identity(extractor, Path(mixture), wanted, grid))
        for path in outputs:
            check_writable(path, overwrite or path.resolve() in begun)
        overwrite = overwrite or bool(begun)
    elif journals:
        for path in outputs:
            check_writable(path, overwrite)
    for path in recorded:
        audio_writer(path, about, overwrite)
    if is_long:
        return _long(extractor, mixture, wanted, timelines, force, overwrite, blocks, progress)
    recording = read_source(mixture)
    results = [extractor.extract(recording, one.voice) for one in wanted]
    outcomes = [
        _outcome(one, result.detection, recording.sample_rate, recording.duration_s, force)
        for one, result in zip(wanted, results, strict=True)
    ]
    lines = [
        _timeline_of(one, result, recording, outcome.silenced)
        for one, result, outcome in zip(wanted, results, outcomes, strict=True)
    ]
    with write_together():
        _write_timelines(timelines, recording.name, lines, outcomes, overwrite)
        for one, result, outcome in zip(wanted, results, outcomes, strict=True):
            result = result.silenced() if outcome.silenced else result
            if one.rest is None:
                result.save(one.output, overwrite)
            else:
                result.save_with_rest(one.output, one.rest, recording.waveform, overwrite)
    remove_stale_blocks(output)
    return outcomes


def _long(
    extractor: Extractor,
    mixture: str | Path,
    wanted: Sequence[ExtractionTarget],
    timelines: Sequence[Path],
    force: bool,
    overwrite: bool,
    blocks: Blocks,
    progress: Progress,
) -> list[FileResult]:
    work = LongExtraction(extractor, mixture, wanted, blocks)
    try:
        measured = work.run(progress)
        rate, duration_s = work.about.sample_rate, work.about.duration_s
        outcomes = [
            _outcome(one, found.presence, rate, duration_s, force, found.breaks_s)
            for one, found in zip(wanted, measured, strict=True)
        ]
        lines = []
        for one, found, outcome in zip(wanted, measured, outcomes, strict=True):
            if outcome.silenced:
                lines.append(_silent_timeline(one.name, found.presence, duration_s))
            elif found.presence is not None:
                track, frame_s = found.presence.track, found.presence.frame_s
                lines.append(timeline_from_presence(one.name, track, frame_s, duration_s))
            else:
                energies = (found.energies, found.mixture_energies)
                lines.append(timeline_from_energies(one.name, *energies, found.frame_s, duration_s))
        gains = [0.0 if outcome.silenced else found.gain for found, outcome in zip(measured, outcomes, strict=True)]
        work.announce(timelines)
        try:
            with write_together() as group:
                _write_timelines(timelines, str(mixture), lines, outcomes, overwrite)
                group.put()
                work.write(gains, overwrite)
        except BaseException:
            work.retract()
            raise
        work.forget()
        return outcomes
    finally:
        work.close()


def _outcome(
    one: ExtractionTarget,
    presence: Presence | None,
    sample_rate: int,
    duration_s: float,
    force: bool,
    breaks_s: tuple[float, ...] = (),
) -> FileResult:
    absent = presence is not None and not presence.is_present
    return FileResult(
        one.name,
        one.output,
        one.rest,
        sample_rate,
        duration_s,
        None if presence is None else presence.probability,
        None if presence is None else presence.calibration.threshold,
        absent,
        absent and not force,
        breaks_s,
    )


def _timeline_of(one: ExtractionTarget, result: Result, recording: Recording, silenced: bool) -> Timeline:
    if silenced:
        return _silent_timeline(one.name, result.detection, recording.duration_s)
    if result.detection is not None:
        return timeline_from_presence(one.name, result.detection.track, result.detection.frame_s, recording.duration_s)
    frame = max(1, round(FRAME_S * recording.sample_rate))
    heard = (remove_low_frequencies(waveform, recording.sample_rate) for waveform in (result.waveform, recording.waveform))
    estimate, mixture = (frame_energies(waveform, frame) for waveform in heard)
    return timeline_from_energies(one.name, estimate, mixture, frame / recording.sample_rate, recording.duration_s)


def _silent_timeline(name: str, presence: Presence | None, duration_s: float) -> Timeline:
    """Of a voice that is not in the recording: no segments, whatever single frames say."""
    assert presence is not None, "only a presence head says that a voice is absent"
    return Timeline(name, duration_s, (), "presence", presence.track, presence.frame_s)


def _write_timelines(
    paths: Sequence[Path], mixture: str, lines: Sequence[Timeline], outcomes: Sequence[FileResult], overwrite: bool
) -> None:
    more: list[dict[str, Any]] = [
        {"presence": outcome.presence, "threshold": outcome.threshold, "absent": outcome.absent} for outcome in outcomes
    ]
    for path in paths:
        write_timeline(path, mixture, list(zip(lines, more, strict=True)), overwrite)
