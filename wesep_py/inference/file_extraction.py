"""Extraction from file to file: a recording in, a file per voice, residuals and timelines out.

A recording of at most one block is extracted in memory (`Extractor.extract`), a longer one block by block
(`wesep_py.inference.long_files`). All files of a recording appear together, or none does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wesep_py import audio
from wesep_py.common.errors import InputError
from wesep_py.common.files import check_writable, path_exists, refuse_inputs, remove_temporary_files, write_together
from wesep_py.inference.enrolling.speech_activity import remove_low_frequencies
from wesep_py.inference.inputs_outputs.inputs import Recording, read_source
from wesep_py.inference.inputs_outputs.output_files import (
    FLOAT_SUBTYPES,
    ExtractionTarget,
    audio_writer,
    segment_writer,
)
from wesep_py.inference.inputs_outputs.segment_files import (
    LIST_NAME,
    SegmentFile,
    listed_files,
    remove_earlier,
    segment_files,
    segment_suffix,
    write_segment_list,
)
from wesep_py.inference.inputs_outputs.timeline import (
    Timeline,
    check_timeline_suffix,
    frame_energies,
    timeline_from_energies,
    timeline_from_presence,
    write_timeline,
)
from wesep_py.inference.long_files import LongExtraction, Progress, extraction_identity
from wesep_py.inference.long_recordings.block_store import interrupted_outputs, journal_path, remove_stale_blocks
from wesep_py.inference.long_recordings.blocks import ENERGY_FRAME_S, Blocks
from wesep_py.inference.presence_decision.presence import Presence

if TYPE_CHECKING:
    from wesep_py.inference.extractor import Extractor
    from wesep_py.inference.result import Result


@dataclass(frozen=True)
class FileResult:
    """Result of extracting one voice from a file.

    Attributes:
        name: of the target.
        output: file of the voice.
        residual: file of the residual; `None` without one.
        sample_rate: Hz.
        duration_s: seconds.
        presence: probability that the voice is in the recording; `None` without a presence head.
        verifier: name of the encoder that verified the presence; `None` where the presence head decided alone.
        threshold: probability from which on it counts as present; `None` without a presence head.
        absent: true if the probability is below the threshold.
        silenced: true if silence was written because the voice is absent.
        repaired: true if the first extraction seemed to hold the wrong voice, and was repaired (`repair`).
        voice_changes_s: times at which a block of a long recording may hold another voice than the block before.
    """

    name: str
    output: Path
    residual: Path | None
    sample_rate: int
    duration_s: float
    presence: float | None
    threshold: float | None
    absent: bool
    silenced: bool
    voice_changes_s: tuple[float, ...] = ()
    verifier: str | None = None
    repaired: bool = False


def extract_file(
    extractor: Extractor,
    mixture: str | Path,
    targets: Sequence[ExtractionTarget],
    timelines: Sequence[Path] = (),
    force: bool = False,
    overwrite: bool = False,
    blocks: Blocks | None = None,
    progress: Progress = lambda done_s, computed_s: None,
    shifts: int | None = None,
    segments: Path | None = None,
) -> list[FileResult]:
    """Extract voices from a recording, which is read once, into files.

    A recording of at most one block gives the same samples as `Extractor.extract`, bit-exact. All files appear
    together, the outputs last, or none does. Files that a killed run of the same job left are replaced.

    Args:
        extractor: the model.
        mixture: a file of any length.
        targets: the voices and their files, one or more.
        timelines: files for the times at which the voices speak, in a format of `write_timeline`.
        force: write the estimate of an absent voice too, instead of silence.
        overwrite: replace existing files.
        blocks: lengths of the blocks of a long recording.
        progress: called after every block of a long recording.
        shifts: as `Extractor.extract`.
        segments: folder that receives each segment in which a voice speaks as a file, and a list of them; with
            `overwrite`, the files that the list of an earlier run names are removed.

    Raises:
        AudioError, InputError, OutputExistsError, WesepError: as `Extractor.extract` and `Result.save`; an extractor
            that repairs takes recordings of one block only.
    """
    blocks, first_output, shifts = blocks or Blocks(), targets[0].output, extractor.check_shifts(shifts)
    audio_outputs = [path for target in targets for path in (target.output, target.residual) if path is not None]
    outputs = [*audio_outputs, *map(check_timeline_suffix, timelines)]
    earlier: list[Path] = []
    if segments is not None:
        outputs.append(segments / LIST_NAME)
        earlier = listed_files(segments)
    refuse_inputs(outputs, [(mixture, "the recording")])

    # Refuse existing files before the recording is read. If there is a journal, a killed run may have left some of the
    # files; which ones is known after the header has been read.
    interrupted: set[Path] = set()
    has_journal = path_exists(journal_path(first_output))
    for path in outputs:
        check_writable(path, overwrite or has_journal)
    about = audio.info(mixture)
    grid = blocks.grid(extractor.sample_rate, extractor.network.backbone.stride)
    num_samples = audio.resampled_length(about.num_samples, about.sample_rate, extractor.sample_rate)
    is_long = num_samples > grid.block
    if is_long and extractor.repair != "none":
        raise InputError(
            f"{mixture}: has {about.duration_s:.0f} s, and a repair is for recordings of one block "
            f"({grid.block / extractor.sample_rate:.0f} s); give a longer --block, or leave out --repair"
        )
    if has_journal:
        if is_long:
            identity = extraction_identity(extractor, Path(mixture), targets, grid, shifts)
            interrupted = interrupted_outputs(first_output, identity)
        for path in outputs:
            check_writable(path, overwrite or path.resolve() in interrupted)
        overwrite = overwrite or bool(interrupted)
    for path in audio_outputs:
        audio_writer(path, about, overwrite, mixture)  # refuses a format that does not take the recording

    if is_long:
        work = LongExtraction(extractor, mixture, targets, blocks, shifts)  # from here on, no other process writes them
        remove_temporary_files(interrupted)
        results, written = _extract_long(work, timelines, force, overwrite, progress, segments)
        remove_earlier(earlier, written)
        return results
    recording = read_source(mixture)
    results = [extractor.extract(recording, target.voice, shifts=shifts) for target in targets]
    rate, duration_s = recording.sample_rate, recording.duration_s
    file_results = [
        replace(_file_result(target, result.detection, rate, duration_s, force), repaired=result.repaired)
        for target, result in zip(targets, results, strict=True)
    ]
    speech = [
        _timeline(file_result, result, recording) for file_result, result in zip(file_results, results, strict=True)
    ]
    files = _segment_files(segments, targets, speech, about)
    with write_together():
        _write_timelines(timelines, recording.name, speech, file_results, overwrite)
        if segments is not None:
            write_segment_list(segments, recording.name, speech, files, overwrite)
        for target, result, file_result in zip(targets, results, file_results, strict=True):
            result = result.silenced() if file_result.silenced else result
            if target.residual is None:
                result.save(target.output, overwrite)
            else:
                result.save_with_residual(target.output, target.residual, recording.waveform, overwrite)
        for target, result, voice_files in zip(targets, results, files, strict=True):
            # As the output: scaled down if its format would clip.
            clips = audio_writer(target.output, about, True, mixture).subtype not in FLOAT_SUBTYPES
            peak = float(np.abs(result.waveform).max(initial=0.0)) if clips else 0.0
            with segment_writer(voice_files, about, overwrite) as writer:
                writer.write(result.waveform / np.float32(max(1.0, peak)))
    remove_stale_blocks(first_output)
    remove_earlier(earlier, files)
    return file_results


def _segment_files(
    folder: Path | None, targets: Sequence[ExtractionTarget], speech: Sequence[Timeline], about: audio.AudioInfo
) -> list[list[SegmentFile]]:
    """Return the files for the segments of each target; none without a folder."""
    if folder is None:
        return [[] for _ in targets]
    return [
        segment_files(folder, timeline, about.sample_rate, about.num_samples, segment_suffix(target.output))
        for target, timeline in zip(targets, speech, strict=True)
    ]


def _extract_long(
    work: LongExtraction,
    timelines: Sequence[Path],
    force: bool,
    overwrite: bool,
    progress: Progress,
    segments: Path | None,
) -> tuple[list[FileResult], list[list[SegmentFile]]]:
    mixture, targets = work.mixture, work.targets
    try:
        measurements = work.run(progress)
        rate, duration_s = work.about.sample_rate, work.about.duration_s
        file_results = [
            _file_result(target, m.presence, rate, duration_s, force, m.voice_changes_s)
            for target, m in zip(targets, measurements, strict=True)
        ]
        speech, gains = [], []
        for m, file_result in zip(measurements, file_results, strict=True):
            name = file_result.name
            gains.append(0.0 if file_result.silenced else m.gain)
            if file_result.silenced:
                speech.append(_silent_timeline(name, m.presence, duration_s))
            elif m.presence is not None:
                speech.append(timeline_from_presence(name, m.presence.track, m.presence.frame_s, duration_s))
            else:
                speech.append(timeline_from_energies(name, m.energies, m.mixture_energies, m.frame_s, duration_s))
        # The journal names the files while they are written. If the process is killed now, the next run may replace
        # them; if writing fails, the group removes them, and the journal says so.
        files = _segment_files(segments, targets, speech, work.about)
        lists = [] if segments is None else [segments / LIST_NAME]
        work.announce([*timelines, *lists, *(file.path for voice_files in files for file in voice_files)])
        try:
            with write_together() as group:
                _write_timelines(timelines, str(mixture), speech, file_results, overwrite)
                if segments is not None:
                    write_segment_list(segments, str(mixture), speech, files, overwrite)
                group.put()
                work.write(gains, overwrite, files)
        except BaseException:
            work.retract()
            raise
        work.remove_blocks()
        return file_results, files
    finally:
        work.close()


def _file_result(
    target: ExtractionTarget,
    presence: Presence | None,
    sample_rate: int,
    duration_s: float,
    force: bool,
    voice_changes_s: tuple[float, ...] = (),
) -> FileResult:
    absent = presence is not None and not presence.is_present
    return FileResult(
        target.name,
        target.output,
        target.residual,
        sample_rate,
        duration_s,
        None if presence is None else presence.probability,
        None if presence is None else presence.threshold,
        absent,
        absent and not force,
        voice_changes_s,
        None if presence is None or presence.verification is None else presence.verification.encoder,
    )


def _timeline(file_result: FileResult, result: Result, recording: Recording) -> Timeline:
    """Return when a voice speaks in a recording in memory."""
    name, presence, duration_s = file_result.name, result.detection, recording.duration_s
    if file_result.silenced:
        return _silent_timeline(name, presence, duration_s)
    if presence is not None:
        return timeline_from_presence(name, presence.track, presence.frame_s, duration_s)
    rate = recording.sample_rate
    frame = max(1, round(ENERGY_FRAME_S * rate))
    estimate, mixture = (
        frame_energies(remove_low_frequencies(waveform, rate), frame)
        for waveform in (result.waveform, recording.waveform)
    )
    return timeline_from_energies(name, estimate, mixture, frame / rate, duration_s)


def _silent_timeline(name: str, presence: Presence | None, duration_s: float) -> Timeline:
    """Return the timeline of a voice that is absent: no segments, whatever the probabilities of single frames."""
    assert presence is not None, "only a presence head detects an absent voice"
    return Timeline(name, duration_s, (), "presence", presence.track, presence.frame_s)


def _write_timelines(
    paths: Sequence[Path],
    mixture: str,
    timelines: Sequence[Timeline],
    file_results: Sequence[FileResult],
    overwrite: bool,
) -> None:
    decisions = [{"presence": r.presence, "threshold": r.threshold, "absent": r.absent} for r in file_results]
    for path in paths:
        write_timeline(path, mixture, list(zip(timelines, decisions, strict=True)), overwrite)
