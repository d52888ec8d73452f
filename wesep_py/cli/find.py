"""`wesep find`: segments of a recording in which one person seems to speak alone, to be used as enrollments."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wesep_py.cli.options import (
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    TrackOption,
    progress,
    set_threads,
)
from wesep_py.common.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wesep_py.inference.single_speaker import SoloSegment


def find(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="A recording of several people.")],
    speaker_model: Annotated[
        str | None,
        typer.Option(
            "--speaker-model",
            metavar="NAME|FOLDER",
            help="Speaker encoder: an installed one, or a checkpoint folder; by default dvector, or any installed one.",
        ),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="P", help="List segments of at least this confidence (0 to 1).")
    ] = 0.6,
    segments: Annotated[
        Path | None, typer.Option("--segments", metavar="DIR", help="Also write each segment as a file, to listen to.")
    ] = None,
    _track: TrackOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """List segments in which one person seems to speak alone, each with the number of its voice.

    Example: wesep find meeting.wav

    Each line begins with what --enroll of extract takes: wesep extract
    meeting.wav --enroll meeting.wav@12.4-14.8. Give several segments of one
    voice together, and listen to them first (--segments DIR): about one listed
    segment in five holds a second voice.

    A speaker encoder is needed: wesep models pull dvector.
    """
    from wesep_py.common.files import check_writable, is_folder
    from wesep_py.inference.inputs_outputs.segment_files import LIST_NAME, listed_files
    from wesep_py.inference.single_speaker import find_encoder, find_solo_segments

    set_threads(threads)
    if segments is not None:
        from wesep_py.cli.outputs import make_folder

        if not is_folder(segments):
            make_folder(segments)
        check_writable(segments / LIST_NAME, overwrite)
        listed_files(segments)
    from wesep_py import audio
    from wesep_py.inference import load

    audio.info(recording)
    extractor = load(model, device, verify="none")  # only waveforms are compared
    encoder = find_encoder(speaker_model, extractor.sample_rate)
    with progress(f"searching {recording.name}", "windows") as on_progress:
        found = find_solo_segments(recording, extractor, encoder, confidence, on_progress)
    if segments is not None:
        _write(recording, found, segments, overwrite)
    if as_json:
        rows = [{"enroll": enrollment_of(recording, segment), **asdict(segment)} for segment in found]
        typer.echo(json.dumps(rows, indent=2))
        return
    if not found:
        raise InputError(
            f"{recording}: no segment in which one person surely speaks alone; lower --confidence (it is "
            f"{confidence:g}), or mark one by ear: --enroll FILE@START-STOP"
        )
    names = [enrollment_of(recording, segment) for segment in found]
    width = max(map(len, names))
    for name, segment in zip(names, found, strict=True):
        typer.echo(f"{name:<{width}}  voice {segment.voice}  {segment.confidence:.2f}")


def enrollment_of(recording: Path, segment: SoloSegment) -> str:
    """Return what `--enroll` takes for a segment."""
    return f"{recording}@{segment.start_s:.1f}-{segment.end_s:.1f}"


def _write(recording: Path, found: Sequence[SoloSegment], folder: Path, overwrite: bool) -> None:
    """Write each segment as a file, and the list of them; files of an earlier list are removed."""
    from wesep_py import audio
    from wesep_py.common.files import write_together
    from wesep_py.inference.inputs_outputs.output_files import segment_writer
    from wesep_py.inference.inputs_outputs.segment_files import (
        listed_files,
        remove_earlier,
        segment_files,
        segment_suffix,
        write_segment_list,
    )
    from wesep_py.inference.inputs_outputs.timeline import SpeechSegment, Timeline

    about, earlier = audio.info(recording), listed_files(folder)
    timelines = [
        Timeline(
            f"voice{voice}",
            about.duration_s,
            tuple(SpeechSegment(s.start_s, s.end_s, s.confidence) for s in found if s.voice == voice),
            "presence",
        )
        for voice in sorted({segment.voice for segment in found})
    ]
    suffix = segment_suffix(recording)
    files = [segment_files(folder, line, about.sample_rate, about.num_samples, suffix) for line in timelines]
    with write_together():
        write_segment_list(folder, str(recording), timelines, files, overwrite)
        for voice_files in files:
            with segment_writer(voice_files, about, overwrite) as writer:
                for block in audio.read_blocks(recording, 4 * about.sample_rate):
                    writer.write(block)
    remove_earlier(earlier, files)


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("find")
