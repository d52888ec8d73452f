"""`wesep enroll`: recordings of one voice into a voice print, and how good they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.common import (
    ENROLL_MAX_S,
    DeviceOption,
    EnrollMaxOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    set_threads,
)


def enroll(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Recordings of the person alone, FILE@12.3-17.8 for a part of one, or folders."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The voice print to write: NAME.voice. Without it: the report only."),
    ] = None,
    list_voices: Annotated[
        bool,
        typer.Option("--list", help="Tell how many voices speak; with -o FOLDER or -o NAME.voice a print of each."),
    ] = False,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    vad: Annotated[
        str, typer.Option("--vad", help="What tells speech from pauses: energy, or silero (package silero-vad).")
    ] = "energy",
    enroll_max_s: EnrollMaxOption = ENROLL_MAX_S,
    as_json: JsonOption = False,
) -> None:
    """Make a reusable voice print from recordings of one person speaking alone.

    Example: wesep enroll alice1.wav alice2.wav -o alice.voice

    It says how much speech there is, how clean, and whether it seems to be of
    one person; less than a second of speech is refused.

    `wesep extract --enroll alice.voice` takes it, with the same model.

    With --list, of a recording in which several people speak:
    wesep enroll meeting.wav --list -o voices/ --model exp/mine
    """
    if list_voices:
        from wesep_py.cli.voice_list import tell_voices

        tell_voices(recordings, output, model, device, threads, overwrite, vad, enroll_max_s, as_json)
        return
    from wesep_py.cli.targets import VOICE_SUFFIX, enrollment_files, file_of
    from wesep_py.errors import InputError
    from wesep_py.files import check_writable, refuse_inputs
    from wesep_py.inference import MIN_SPEECH_S, load

    if output is not None:
        if output.suffix.lower() != VOICE_SUFFIX:
            wanted = (output / "NAME" if output.is_dir() else output).with_suffix(VOICE_SUFFIX)
            raise InputError(f"{output}: a voice print is known by its ending; name it {wanted}")
        check_writable(output, overwrite)
    files = [file for recording in recordings for file in enrollment_files(recording)]
    if output is not None:
        refuse_inputs([output], [(file_of(file), "a recording") for file in files])
    set_threads(threads)
    extractor = load(model, device)
    extractor.max_enrollment_s = enroll_max_s
    voice = extractor.enroll(*files, vad=vad, min_speech_s=MIN_SPEECH_S)  # type: ignore[arg-type]
    quality = voice.quality
    if output is not None:
        voice.save(output, overwrite)
    if as_json:
        written = None if output is None else str(output)
        examined = {} if quality is None else quality.as_dict()
        typer.echo(json.dumps({"output": written, "model": extractor.name, **examined}, indent=2))
        return
    if quality is not None:  # None: embeddings only, and there is nothing to listen to
        typer.echo(quality.table())
        for warning in quality.warnings:
            typer.echo(f"warning: {warning}")
    if output is not None:
        heard = "embedding(s)" if quality is None else "recording(s)"
        seconds = "" if quality is None else f"{voice.enrolled_s:.1f} s "
        typer.echo(f"{output}: {seconds}of {len(files)} {heard}, for {extractor.name}")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("enroll")
