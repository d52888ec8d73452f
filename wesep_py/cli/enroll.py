"""`wesep enroll`: make a voice print from recordings of one person, and report their quality.

With `--list` it counts the voices of one recording instead, and makes a voice print of each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wesep_py.cli.options import (
    AUTO_VERIFIER,
    ENROLL_MAX_S,
    DeviceOption,
    EnrollMaxOption,
    EnrollNotOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    ThreadsOption,
    VerifyOption,
    set_threads,
)
from wesep_py.cli.targets import VOICE_SUFFIX, enrollment_files, file_of
from wesep_py.common.errors import InputError

if TYPE_CHECKING:
    from wesep_py.inference import EnrollmentVoices, Voice


def list_voices_of(
    recordings: Sequence[Path],
    output: Path | None,
    model: Path | None,
    device: str,
    threads: int | None,
    overwrite: bool,
    vad: str,
    enroll_max_s: float,
    as_json: bool,
) -> None:
    """List the voices of one recording; the arguments are those of `enroll`.

    Raises:
        InputError: several recordings; a model that cannot separate voices, or cannot make voice prints of them.
        OutputExistsError: a voice print exists, and `overwrite` is false.
    """
    from wesep_py.inference import MIN_SPEECH_S, load

    if len(recordings) != 1 or recordings[0].is_dir():
        raise InputError("--list needs one recording; name one file")
    (recording,) = enrollment_files(recordings[0])
    if output is not None:
        _check(print_paths(output, recording, 1), output, overwrite)
    set_threads(threads)
    extractor = load(model, device)
    extractor.max_enrollment_s = enroll_max_s
    found_voices, voices = extractor.voices(recording, vad, MIN_SPEECH_S, prints=output is not None)  # type: ignore[arg-type]
    paths = [] if output is None else print_paths(output, recording, len(found_voices))
    if output is not None:
        _write(recording, voices, paths, output, overwrite)
    report = _report(recording, extractor.name, found_voices, paths)
    typer.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))


def print_paths(output: Path, recording: Path, count: int) -> list[Path]:
    """Return the files of the voice prints: beside `NAME.voice`, or in a folder under the recording's name, from 1.

    >>> [path.as_posix() for path in print_paths(Path("a.voice"), Path("mix.wav"), 2)]
    ['a-1.voice', 'a-2.voice']
    >>> [path.as_posix() for path in print_paths(Path("voices"), Path("mix.wav"), 1)]
    ['voices/mix-1.voice']
    """
    folder, stem = (output, recording.stem) if _is_folder(output) else (output.parent, output.stem)
    return [folder / f"{stem}-{number}{VOICE_SUFFIX}" for number in range(1, count + 1)]


def _is_folder(output: Path) -> bool:
    return output.is_dir() or output.suffix.lower() != VOICE_SUFFIX


def _check(paths: Sequence[Path], output: Path, overwrite: bool) -> None:
    """Check that the files can be written; a missing folder is made later."""
    from wesep_py.common.files import check_writable

    if not _is_folder(output) or output.is_dir():
        for path in paths:
            check_writable(path, overwrite)
    elif output.exists():
        raise InputError(f"{output}: is a file; name a folder for the voice prints, or NAME{VOICE_SUFFIX}")


def _write(recording: Path, voices: Sequence[Voice], paths: Sequence[Path], output: Path, overwrite: bool) -> None:
    """Write all voice prints, or none."""
    from wesep_py.common.files import refuse_inputs, write_together
    from wesep_py.common.folders import created_folder

    refuse_inputs(paths, [(file_of(recording), "the recording")])
    _check(paths, output, overwrite)
    with created_folder(output) if _is_folder(output) else nullcontext(), write_together():
        for voice, path in zip(voices, paths, strict=True):
            voice.save(path, overwrite)


def _report(recording: Path, model: str, voices_in: EnrollmentVoices, paths: Sequence[Path]) -> dict[str, Any]:
    cosines = voices_in.cosines
    outputs = [str(path) for path in paths] or [None] * len(voices_in)
    voices = [
        {
            "voice": i + 1,
            "probability": voices_in.probabilities[i],
            "cosines": [round(float(cosine), 4) for cosine in cosines[i]],
            "output": outputs[i],
        }
        for i in range(len(voices_in))
    ]
    return {"recording": str(recording), "model": model, "count": len(voices_in), "voices": voices}


def _lines(report: dict[str, Any]) -> list[str]:
    voices = report["voices"]
    lines = [f"{report['recording']}: {report['count']} voice{'s' if report['count'] > 1 else ''}"]
    for voice in voices:
        parts = [f"voice {voice['voice']}"]
        if voice["voice"] > 1:
            nearest = max(voice["cosines"][: voice["voice"] - 1])
            parts.append(f"probability {voice['probability']:.2f}, cosine {nearest:.2f} to the most similar above")
        lines.append("  " + ": ".join(parts) + (f"  {voice['output']}" if voice["output"] else ""))
    if voices[0]["output"] is None:
        lines.append("add -o FOLDER to write a voice print of each")
    return lines


def enroll(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Recordings of the person alone, FILE@12.3-17.8 for a part of one, or folders."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The voice print to write: NAME.voice. Without it, only the report."),
    ] = None,
    negatives: EnrollNotOption = None,
    list_voices: Annotated[
        bool,
        typer.Option(
            "--list",
            help="Count the voices of a recording; with -o FOLDER or NAME.voice, write a print of each.",
        ),
    ] = False,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    vad: Annotated[
        str, typer.Option("--vad", help="How to detect speech: energy, or silero (package silero-vad).")
    ] = "energy",
    enroll_max_s: EnrollMaxOption = ENROLL_MAX_S,
    verify: VerifyOption = AUTO_VERIFIER,
    as_json: JsonOption = False,
) -> None:
    """Make a reusable voice print from recordings of one person speaking alone.

    Example: wesep enroll alice1.wav alice2.wav -o alice.voice

    The report says how much speech there is, how clean it is, and whether it
    seems to be of one person. Less than a second of speech is refused.

    `wesep extract --enroll alice.voice` uses it, with the same model. With
    --enroll-not bob.wav it also says who is not meant.

    With --list, for a recording in which several people speak:
    wesep enroll meeting.wav --list -o voices/ --model exp/mine
    """
    if list_voices and negatives:
        raise InputError("--list counts voices, and takes no --enroll-not; leave out one of the two")
    if list_voices:
        list_voices_of(recordings, output, model, device, threads, overwrite, vad, enroll_max_s, as_json)
        return
    from wesep_py.common.files import check_writable, refuse_inputs
    from wesep_py.inference import MIN_SPEECH_S, load

    if output is not None:
        if output.suffix.lower() != VOICE_SUFFIX:
            suggestion = (output / "NAME" if output.is_dir() else output).with_suffix(VOICE_SUFFIX)
            raise InputError(f"{output}: the name of a voice print ends in {VOICE_SUFFIX}; name it {suggestion}")
        check_writable(output, overwrite)
    files = [file for recording in recordings for file in enrollment_files(recording)]
    others = [file for negative in negatives or [] for file in enrollment_files(Path(negative))]
    if output is not None:
        refuse_inputs([output], [(file_of(file), "a recording") for file in (*files, *others)])
    set_threads(threads)
    extractor = load(model, device, verify=verify)
    extractor.max_enrollment_s = enroll_max_s
    voice = extractor.enroll(*files, vad=vad, min_speech_s=MIN_SPEECH_S, negative=others or None)  # type: ignore[arg-type]
    quality = voice.quality
    if output is not None:
        voice.save(output, overwrite)
    if as_json:
        written = None if output is None else str(output)
        measures = {} if quality is None else quality.as_dict()
        typer.echo(json.dumps({"output": written, "model": extractor.name, **measures}, indent=2))
        return
    if quality is not None:  # None: embeddings only, without audio to examine
        typer.echo(quality.table())
        for warning in quality.warnings:
            typer.echo(f"warning: {warning}")
    if output is not None:
        kind = "embedding(s)" if quality is None else "recording(s)"
        seconds = "" if quality is None else f"{voice.enrolled_s:.1f} s "
        unlike = f", and not {voice.negative_s:.1f} s of others" if others else ""
        typer.echo(f"{output}: {seconds}of {len(files)} {kind}{unlike}, for {extractor.name}")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("enroll")
