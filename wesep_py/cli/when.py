"""`wesep when`: when enrolled voices speak in a recording, without extracting them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from wesep_py.cli.options import (
    DeviceOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    TrackOption,
    progress,
    report_absent,
    set_threads,
)


def when(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="A recording of one or several people.")],
    enrollments: Annotated[
        list[str] | None,
        typer.Option(
            "--enroll",
            metavar="[NAME=]FILE",
            help="A recording of the voice alone, FILE@12.3-17.8 for a part of it, a folder, or a .voice.",
        ),
    ] = None,
    outputs: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Also write the times: .srt, .vtt, .txt, .csv, .json or .rttm."
        ),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    _track: TrackOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say when enrolled voices speak in a recording, without extracting them.

    Example: wesep when meeting.wav --enroll alice.wav -o meeting.srt

    Each line is a segment: name, start, end and probability. The model is a
    personal VAD (task: presence), or an extractor that works live and has a
    presence head, as the bundled one has; it takes a fraction of the time of
    `wesep extract`.

    Exit status 3: none of the voices is in the recording.
    """
    from wesep_py import audio
    from wesep_py.cli.targets import file_of, parse_targets
    from wesep_py.common.files import check_writable, refuse_inputs, write_together
    from wesep_py.inference import Voice
    from wesep_py.inference.inputs_outputs.timeline import check_timeline_suffix, timeline_from_presence, write_timeline
    from wesep_py.inference.presence_detector import load_detector

    targets = parse_targets(enrollments or [])
    files = outputs or []
    for path in files:
        check_writable(check_timeline_suffix(path), overwrite)
    inputs = [(recording, "the recording")]
    inputs += [(file_of(file), "an enrollment") for target in targets for file in target.files]
    refuse_inputs(files, inputs)
    duration_s = audio.info(recording).duration_s
    set_threads(threads)
    detector = load_detector(model, device)
    timelines: list[tuple[Any, dict[str, Any]]] = []
    absent = []
    for target in targets:
        voice = Voice.load(target.voice_print) if target.voice_print else detector.enroll(*target.files)
        with progress(f"searching {target.name}", "seconds", round(duration_s)) as on_progress:

            def on_seconds(done_s: float, on_progress: Any = on_progress) -> None:
                on_progress(round(done_s), round(duration_s))

            presence = detector.detect(recording, voice, on_seconds)
        about = {"presence": round(presence.probability, 4), "threshold": presence.threshold}
        timeline = timeline_from_presence(target.name, presence.track, presence.frame_s, duration_s)
        timelines.append((timeline, {**about, "absent": not presence.is_present}))
        if not presence.is_present:
            absent.append(
                f"{target.name} is not in {recording}: probability {presence.probability:.2f}, below "
                f"{presence.threshold:.2f}"
            )
    with write_together():
        for path in files:
            write_timeline(path, str(recording), timelines, overwrite)
    if as_json:
        content = [{**timeline.as_dict(), **about} for timeline, about in timelines]
        typer.echo(json.dumps({"mixture": str(recording), "model": detector.name, "targets": content}, indent=2))
    else:
        width = max(len(timeline.target) for timeline, _ in timelines)
        segments = [(timeline.target, segment) for timeline, _ in timelines for segment in timeline.segments]
        for name, segment in sorted(segments, key=lambda entry: entry[1].start_s):
            times = f"{segment.start_s:9.2f} {segment.end_s:9.2f}"
            typer.echo(f"{name:<{width}} {times}  {segment.probability:.2f}")
    report_absent(absent, all_absent=len(absent) == len(targets))


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("when")
