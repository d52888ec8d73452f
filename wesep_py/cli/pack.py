"""`wesep shard` and `wesep lmdb`: pack recordings for fast reading."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wesep_py.cli.options import JsonOption, OverwriteOption, progress, resumable
from wesep_py.cli.simulate import ExecutorOption
from wesep_py.common.errors import AudioError, InputError, WesepError

if TYPE_CHECKING:
    from wesep_py.data import Utterance
    from wesep_py.data.shard_writing import ShardsResult


FormatOption = Annotated[
    Literal["flac", "wav", "opus-as-is"],
    typer.Option(
        "--format",
        help="How audio is stored, always lossless: flac (wav for what flac cannot hold, such as floating point), wav, "
        "or opus-as-is (Opus, Vorbis and MP3 files are copied, others are stored as flac).",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Number of processes; by default one per core.", show_default=False),
]


def shard(
    source: Annotated[
        Path, typer.Argument(metavar="MANIFEST|DIR", help="A manifest; with --check or --index, a folder of shards.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to write.", show_default=False)
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", help="Folder that relative paths start from; by default that of the manifest.", show_default=False
        ),
    ] = None,
    size_mib: Annotated[float, typer.Option("--size-mib", help="Approximate size of a shard, in MiB.")] = 256,
    form: FormatOption = "flac",
    in_order: Annotated[
        bool,
        typer.Option(
            "--in-order",
            help="Keep the order of the manifest; by default utterances are shuffled: many speakers in each shard.",
        ),
    ] = False,
    jobs: JobsOption = None,
    executor: ExecutorOption = "local",
    check: Annotated[bool, typer.Option("--check", help="Verify the checksums of a folder of shards.")] = False,
    index: Annotated[
        bool, typer.Option("--index", help="Write the index of a folder of shards that has none.")
    ] = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pack a corpus as tar shards in the webdataset layout, with an index and checksums.

    Examples: wesep shard train.jsonl -o shards/train; wesep shard --check shards/train

    The same command again completes an interrupted run.
    """
    if check and index:
        raise InputError("--check and --index: give one of them")
    if check:
        _check(source, as_json)
        return
    jobs = jobs or os.cpu_count() or 1
    if index:
        from wesep_py.data.shard_writing import index_shards

        with progress("reading", "shards") as on_progress:
            result = index_shards(source, jobs, overwrite, on_progress)
        _report_shards(result, source, as_json)
        return
    if output is None:
        raise InputError("-o is missing; name the folder to write")
    from wesep_py.data.manifest import read_manifest
    from wesep_py.data.shard_writing import write_shards

    base = source.parent if root is None else root
    utterances = read_manifest(source, base, check_files=False)
    with resumable(output), progress("packing", "utterances", len(utterances)) as on_progress:
        result = write_shards(
            utterances,
            output,
            root=base,
            size_mib=size_mib,
            form=form,
            shuffle=not in_order,
            jobs=jobs,
            overwrite=overwrite,
            on_progress=on_progress,
            executor=executor,
        )
    _report_shards(result, output, as_json)


def _report_shards(result: ShardsResult, folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"folder": str(folder)} | asdict(result), ensure_ascii=False))
    else:
        reused = f" ({result.num_kept} already existed)" if result.num_kept else ""
        typer.echo(
            f"{folder}: {result.num_shards} shards{reused}, {result.num_utterances} utterances, "
            f"{result.num_speakers} speakers, {result.hours:.2f} hours, {result.size / 2**20:.1f} MiB"
        )
    name_left_out(result.left_out, "the shards hold the rest")


def name_left_out(left_out: list[str] | tuple[str, ...], rest: str) -> None:
    """Print every recording that was left out on stderr.

    Raises:
        WesepError: at least one was left out; the command then ends with status 1.
    """
    for reason in left_out:
        typer.echo(f"left out: {reason}", err=True)
    if left_out:
        raise WesepError(f"{len(left_out)} recordings were left out; {rest}")


def _check(folder: Path, as_json: bool) -> None:
    from wesep_py.data.shard_writing import check_shards

    with progress("checking", "shards") as on_progress:
        problems = check_shards(folder, on_progress)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "problems": problems}, ensure_ascii=False))
    elif not problems:
        typer.echo(f"{folder}: the checksums of all shards match")
    for problem in problems[:-1]:
        typer.echo(problem, err=True)
    if problems:
        more = f" ({len(problems)} problems in all)" if len(problems) > 1 else ""
        raise WesepError(f"{problems[-1]}; get a complete copy of it, or remove it and write it again{more}")


def lmdb(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|MANIFEST", help="A folder, of which all audio is packed, or a manifest.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write, NAME.lmdb.", show_default=False)],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            help="Folder that the paths of a manifest, and the ids of a folder's recordings, start from; by default "
            "that of the manifest, or the folder itself.",
            show_default=False,
        ),
    ] = None,
    form: FormatOption = "flac",
    all_channels: Annotated[
        bool,
        typer.Option("--all-channels", help="Keep all channels, as room responses need; by default only the first."),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", min=1, help="Number of recordings encoded at a time; by default one per core.", show_default=False
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pack recordings as one LMDB file: the encoded audio of each under its id, and a JSON index.

    Example: wesep lmdb musan/noise -o noise.lmdb

    With the same --root as data.root, a recording has the id that it has when data.noise names the folder.
    """
    from wesep_py.common.files import check_writable
    from wesep_py.data.lmdb_store import write_lmdb

    if output.suffix != ".lmdb":
        raise InputError(f"{output}: the name ends in {output.suffix!r}; end it in .lmdb")
    check_writable(output, overwrite)
    left_out: list[str] = []
    base = source.parent if root is None else root
    utterances = _recordings(source, base, left_out)
    with progress("packing", "recordings", len(utterances)) as on_progress:
        count = write_lmdb(
            utterances,
            output,
            root=base.absolute() if source.is_dir() else base,
            form=form,
            all_channels=all_channels,
            threads=jobs or os.cpu_count() or 1,
            overwrite=overwrite,
            on_skip=lambda _, reason: left_out.append(reason),
            on_progress=on_progress,
        )
    size = output.stat().st_size
    if as_json:
        summary = {"file": str(output), "recordings": count, "size": size, "left_out": left_out}
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        typer.echo(f"{output}: {count} recordings, {size / 2**20:.1f} MiB")
    name_left_out(left_out, f"{output} holds the rest")


def _recordings(source: Path, root: Path, left_out: list[str]) -> list[Utterance]:
    """Return the utterances of a manifest, or the audio files of a folder with the ids that `data.noise` gives them."""
    from wesep_py.data import find_audio, find_noises, read_manifest

    if not source.is_dir():
        return read_manifest(source, root, check_files=False)
    utterances = []
    for path in find_audio(source):
        try:
            utterances += find_noises([str(path.absolute())], root.absolute())
        except AudioError as error:
            left_out.append(str(error))
    if not utterances:
        first_reason = f"; {left_out[0]}" if left_out else ""
        raise InputError(f"{source}: holds no audio that can be read{first_reason}")
    return utterances
