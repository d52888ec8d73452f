"""`wesep enroll`: recordings of one voice into a voice print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wesep_py.cli.common import DeviceOption, ModelOption, OverwriteOption, ThreadsOption, set_threads


def enroll(
    recordings: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Recordings of the person alone, or folders of them."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The voice print to write: NAME.voice")],
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a reusable voice print from recordings of one person speaking alone.

    Example: wesep enroll alice1.wav alice2.wav -o alice.voice --model exp/mine

    `wesep extract --enroll alice.voice` takes it, with the same model.
    """
    from wesep_py.cli.targets import enrollment_files
    from wesep_py.files import check_writable
    from wesep_py.inference import load

    check_writable(output, overwrite)
    files = [file for recording in recordings for file in enrollment_files(recording)]
    set_threads(threads)
    extractor = load(model, device)
    voice = extractor.enroll(*files)
    voice.save(output, overwrite)
    typer.echo(f"{output}: {voice.enrolled_s:.1f} s of {len(files)} recording(s), for {extractor.name}")


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("enroll")
