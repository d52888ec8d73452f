"""`wesep lmdb`: recordings, such as noise or room responses, as one LMDB file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wesep_py.cli.common import JsonOption, OverwriteOption, progress_bar
from wesep_py.cli.shard import FormatOption, name_left_out
from wesep_py.errors import AudioError, InputError

if TYPE_CHECKING:
    from wesep_py.corpus import Utterance


def lmdb(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|MANIFEST", help="A folder, all of whose audio is taken, or a manifest.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write, NAME.lmdb.", show_default=False)],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            help="Folder that a manifest's paths, and the ids of a folder's recordings, start from; by default the one "
            "that holds the manifest, or the folder.",
            show_default=False,
        ),
    ] = None,
    form: FormatOption = "flac",
    all_channels: Annotated[
        bool, typer.Option("--all-channels", help="Keep all channels, as room responses need; otherwise the first.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Recordings encoded at once; one a core by default.", show_default=False),
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pack recordings as one LMDB file: their encoded audio by their id, and a JSON index.

    Example: wesep lmdb musan/noise -o noise.lmdb

    With --root as in data.root, a recording has the id that it has when data.noise names the folder.
    """
    from wesep_py.corpus.lmdb_write import write_lmdb
    from wesep_py.files import check_writable

    if output.suffix != ".lmdb":
        raise InputError(f"{output}: the name ends in {output.suffix!r}; end it in .lmdb")
    check_writable(output, overwrite)
    left_out: list[str] = []
    base = source.parent if root is None else root
    utterances = _recordings(source, base, left_out)
    with progress_bar("recordings") as bar:
        task = bar.add_task("packing", total=len(utterances))
        count = write_lmdb(
            utterances,
            output,
            root=base.absolute() if source.is_dir() else base,
            form=form,
            all_channels=all_channels,
            threads=jobs or os.cpu_count() or 1,
            overwrite=overwrite,
            on_bad=lambda _, reason: left_out.append(reason),
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    size = output.stat().st_size
    if as_json:
        summary = {"file": str(output), "recordings": count, "size": size, "left_out": left_out}
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        typer.echo(f"{output}: {count} recordings, {size / 2**20:.1f} MiB")
    name_left_out(left_out, f"{output} holds the rest")


def _recordings(source: Path, root: Path, left_out: list[str]) -> list[Utterance]:
    """The utterances of a manifest, or the audio files of a folder, each with the id that `data.noise` gives it."""
    from wesep_py.corpus import find_audio, find_noises, read_manifest

    if not source.is_dir():
        return read_manifest(source, root, check_files=False)
    utterances = []
    for path in find_audio(source):
        try:
            utterances += find_noises([str(path.absolute())], root.absolute())
        except AudioError as error:
            left_out.append(str(error))
    if not utterances:
        bad = f"; {left_out[0]}" if left_out else ""
        raise InputError(f"{source}: holds no audio that can be read{bad}")
    return utterances


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("lmdb")
