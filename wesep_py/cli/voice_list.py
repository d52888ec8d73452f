"""`wesep enroll --list`: how many voices speak in a recording, and a print of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wesep_py.cli.common import set_threads
from wesep_py.cli.targets import VOICE_SUFFIX, enrollment_files, file_of
from wesep_py.errors import InputError

if TYPE_CHECKING:
    from wesep_py.inference import HeardVoices, Voice


def tell_voices(
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
    """Tell the voices of one recording; the arguments are those of `enroll`.

    Raises:
        InputError: several recordings; a model that cannot tell voices, or cannot make the prints asked for.
        OutputExistsError: a print exists, and `overwrite` is false.
    """
    from wesep_py.inference import MIN_SPEECH_S, load

    if len(recordings) != 1 or recordings[0].is_dir():
        raise InputError("--list tells the voices of one recording; name one file")
    (recording,) = enrollment_files(recordings[0])
    if output is not None:
        _check(print_paths(output, recording, 1), output, overwrite)
    set_threads(threads)
    extractor = load(model, device)
    extractor.max_enrollment_s = enroll_max_s
    heard, voices = extractor.voices(recording, vad, MIN_SPEECH_S, prints=output is not None)  # type: ignore[arg-type]
    paths = [] if output is None else print_paths(output, recording, len(heard))
    if output is not None:
        _write(recording, voices, paths, output, overwrite)
    report = _report(recording, extractor.name, heard, paths)
    typer.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))


def print_paths(output: Path, recording: Path, count: int) -> list[Path]:
    """Where the prints go: beside `NAME.voice`, or in a folder under the recording's name, numbered from 1.

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
    """Refuse what cannot be written; a folder that is not there yet is made later."""
    from wesep_py.files import check_writable

    if not _is_folder(output) or output.is_dir():
        for path in paths:
            check_writable(path, overwrite)
    elif output.exists():
        raise InputError(f"{output}: is a file; name a folder for the prints, or NAME{VOICE_SUFFIX}")


def _write(recording: Path, voices: Sequence[Voice], paths: Sequence[Path], output: Path, overwrite: bool) -> None:
    """Write the prints, all of them or none."""
    from wesep_py.files import made_folder, refuse_inputs, together

    refuse_inputs(paths, [(file_of(recording), "the recording")])
    _check(paths, output, overwrite)
    with made_folder(output) if _is_folder(output) else nullcontext(), together():
        for voice, path in zip(voices, paths, strict=True):
            voice.save(path, overwrite)


def _report(recording: Path, model: str, heard: HeardVoices, paths: Sequence[Path]) -> dict[str, Any]:
    cosines = heard.cosines
    outputs = [str(path) for path in paths] or [None] * len(heard)
    voices = [
        {
            "voice": i + 1,
            "probability": heard.probabilities[i],
            "cosines": [round(float(cosine), 4) for cosine in cosines[i]],
            "output": outputs[i],
        }
        for i in range(len(heard))
    ]
    return {"recording": str(recording), "model": model, "count": len(heard), "voices": voices}


def _lines(report: dict[str, Any]) -> list[str]:
    voices = report["voices"]
    lines = [f"{report['recording']}: {report['count']} voice{'s' if report['count'] > 1 else ''}"]
    for voice in voices:
        told = [f"voice {voice['voice']}"]
        if voice["voice"] > 1:
            nearest = max(voice["cosines"][: voice["voice"] - 1])
            told.append(f"there with probability {voice['probability']:.2f}, cosine {nearest:.2f} to those before")
        lines.append("  " + ": ".join(told) + (f"  {voice['output']}" if voice["output"] else ""))
    if voices[0]["output"] is None:
        lines.append("for a print of each, add -o FOLDER")
    return lines
