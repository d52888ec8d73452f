"""`wesep prepare`: write the manifest of a corpus.

`CORPORA` is the table of the corpora that are read in the same way, each a command of its own. A corpus that needs
options of its own (VoxCeleb, WSJ0-mix as trials, the data of WeSep and ESPnet) has a function below it, and so have
recordings of conversations (AMI, LibriCSS, REAL-T), which become lists to evaluate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from wesep_py.cli.options import JsonOption, OverwriteOption, progress_bar

if TYPE_CHECKING:
    from wesep_py.data import Utterance
    from wesep_py.data.meetings.recording_lists import RecordedMixture, RecordingTrial

app = typer.Typer(
    name="prepare",
    help="Write the manifest of a corpus: who speaks in which recording, for how long.",
    epilog="Example: wesep prepare folder recordings -o recordings/manifest.jsonl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

OutputOption = Annotated[
    Path, typer.Option("-o", "--output", help="The manifest to write: .jsonl or .csv", show_default=False)
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="Folder that relative paths start from, in what is read and in the manifest; "
        "by default each starts from the place of its own file.",
        show_default=False,
    ),
]


class Corpus(NamedTuple):
    """A corpus that `wesep prepare` reads without options of its own."""

    name: str
    help: str
    source: tuple[str, str]
    """Placeholder and help text of the argument."""
    example: str
    """Arguments of the example: the source, and what else it needs."""
    reader: str
    """Module and function `(source[, root], *, on_skip, on_progress)`, which returns the utterances."""
    uses_root: bool
    """True if the reader takes `--root`, the folder that relative paths start from."""


CORPORA = (
    Corpus(
        "folder",
        "Recordings in one folder per speaker: DIR/alice/one.wav, DIR/bob/2024/two.flac.",
        ("DIR", "A folder that holds a folder for each speaker."),
        "recordings -o recordings/manifest.jsonl",
        "wesep_py.data.corpora:read_speaker_folders",
        False,
    ),
    Corpus(
        "csv",
        "A CSV or JSONL with utterance_id, speaker_id, path and duration_s: checked, and written as a manifest.",
        ("MANIFEST", "A manifest, CSV or JSONL."),
        "data/speech/train.csv --root data -o train.jsonl",
        "wesep_py.cli.prepare:read_checked_manifest",
        True,
    ),
    Corpus(
        "kaldi",
        "A Kaldi data folder: wav.scp, utt2spk and, where they exist, segments, utt2dur, spk2gender, text.",
        ("DIR", "A folder with wav.scp and utt2spk."),
        "data/train --root /corpora -o train.jsonl",
        "wesep_py.data.corpora:read_kaldi",
        True,
    ),
    Corpus(
        "librimix",
        "The sources of LibriMix mixtures, each once.",
        ("CSV|DIR", "A LibriMix metadata CSV, or a rendered tree."),
        "metadata/libri2mix_train-100.csv --root LibriSpeech -o train.jsonl",
        "wesep_py.data.mixture_lists:read_librimix_metadata",
        True,
    ),
    Corpus(
        "librispeech",
        "LibriSpeech, with gender and text where its tables exist.",
        ("DIR", "LibriSpeech, or a subset of it."),
        "LibriSpeech/train-clean-100 -o train-clean-100.jsonl",
        "wesep_py.data.corpora:read_librispeech",
        False,
    ),
    Corpus(
        "wsj0mix",
        "The utterances of WSJ0, of a list of WSJ0-mix (from --root), or of a set such as 2speakers/wav8k/min/tr.",
        ("DIR|LIST", "WSJ0's wav files, a list mix_2_spk_tr.txt, or a set of WSJ0-mix."),
        "wsj0/si_tr_s -o si_tr_s.jsonl",
        "wesep_py.data.wsj0mix:read_wsj0mix",
        True,
    ),
)


def read_checked_manifest(source: Path, root: Path | None, **_: Any) -> list[Utterance]:
    """Read a manifest; a bad line ends the reading, so nothing is left out."""
    from wesep_py.data import read_manifest

    return read_manifest(source, root)


def _add_command(corpus: Corpus) -> None:
    def command(
        source: Path, output: Path, root: Path | None = None, overwrite: bool = False, as_json: bool = False
    ) -> None:
        module, _, function = corpus.reader.partition(":")
        reader = getattr(import_module(module), function)
        arguments = (source, root) if corpus.uses_root else (source,)
        _prepare(source, partial(reader, *arguments), output, root, overwrite, as_json)

    metavar, help_line = corpus.source
    command.__annotations__ = {
        "source": Annotated[Path, typer.Argument(metavar=metavar, help=help_line)],
        "output": OutputOption,
        "root": RootOption,
        "overwrite": OverwriteOption,
        "as_json": JsonOption,
    }
    epilog = f"Example: wesep prepare {corpus.name} {corpus.example}"
    app.command(corpus.name, help=corpus.help, epilog=epilog)(command)


for _corpus in CORPORA:
    _add_command(_corpus)


@app.command(epilog="Example: wesep prepare voxceleb voxceleb1 --set dev -o vox1_dev.jsonl")
def voxceleb(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="VoxCeleb1 or VoxCeleb2, or a part of it.")],
    output: OutputOption,
    root: RootOption = None,
    subset: Annotated[
        Literal["all", "dev", "test"],
        typer.Option("--set", help="Only the speakers of that set, by vox1_meta.csv and vox2_meta.csv."),
    ] = "all",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """VoxCeleb1 and VoxCeleb2, with gender where their tables exist: wav, or m4a converted beforehand."""
    from wesep_py.data.corpora import read_voxceleb

    _prepare(source, partial(read_voxceleb, source, subset), output, root, overwrite, as_json)


@app.command(
    epilog="Example: wesep prepare wsj0mix-trials 2speakers/wav8k/min/tt --wsj0 wsj0 --enrollment aux.scp -o tt.csv"
)
def wsj0mix_trials(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A set of WSJ0-mix: mix, s1, s2, …")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The list of mixtures to write, a CSV.")],
    wsj0: Annotated[
        Path | None, typer.Option("--wsj0", help="WSJ0's wav files; without it no enrollments are written.")
    ] = None,
    enrollment: Annotated[
        Path | None,
        typer.Option("--enrollment", help="SpEx's aux.scp of that set; by default one is drawn for every speaker."),
    ] = None,
    mix_list: Annotated[
        Path | None, typer.Option("--list", help="mix_2_spk_*.txt of that set, all of which has to be there.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """The mixtures of WSJ0-mix as a list for training or evaluation, with a map of enrollments beside it."""
    from wesep_py.common.errors import InputError
    from wesep_py.common.files import check_writable, refuse_inputs, write_text, write_together
    from wesep_py.data.wsj0mix import (
        check_set_is_complete,
        convert_enrollment_list,
        draw_enrollment_map,
        mixture_list_csv,
        read_wsj0_mixtures,
    )

    if enrollment is not None and wsj0 is None:
        raise InputError("--enrollment: names utterances of WSJ0; say with --wsj0 where it lies")
    written = {output: "mixtures"}
    if wsj0 is not None:
        written[output.with_suffix(".map_mixture2enrollment")] = "trials"
    refuse_inputs(written, [(enrollment, "--enrollment"), (mix_list, "--list")])
    for path in written:
        check_writable(path, overwrite)
    mixtures = read_wsj0_mixtures(source)
    if mix_list is not None:
        check_set_is_complete(mixtures, mix_list)
    texts = [mixture_list_csv(mixtures)]
    if wsj0 is not None:
        drawn = enrollment is None
        texts.append(
            draw_enrollment_map(mixtures, wsj0) if drawn else convert_enrollment_list(mixtures, enrollment, wsj0)
        )
    with write_together():
        for path, text in zip(written, texts, strict=True):
            write_text(path, text, overwrite)
    for (path, what), text in zip(written.items(), texts, strict=True):
        typer.echo(f"{path}: {len(text.splitlines()) - (what == 'mixtures')} {what}")


@app.command(epilog="Example: wesep prepare premixed 'shards/*.tar' -o mixtures")
def premixed(
    sources: Annotated[list[str], typer.Argument(metavar="TAR...", help="Shards: tar files, patterns, URLs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """WeSep's shards of fixed mixtures, unpacked as a tree with a list of mixtures, sources and speakers."""
    from wesep_py.data.premixed import PREMIXED_LIST_NAME, unpack_premixed
    from wesep_py.data.shard_stream import stream_shards

    shards = stream_shards(sources, Path.cwd())
    with progress_bar("shards") as bar:
        task = bar.add_task("unpacking", total=len(shards))
        result = unpack_premixed(shards, output, overwrite, lambda done, _: bar.update(task, completed=done))
    listing = output / PREMIXED_LIST_NAME
    summary = {"list": str(listing), "mixtures": result.num_mixtures, "speakers": result.num_speakers}
    if as_json:
        typer.echo(json.dumps(summary | {"left_out": result.left_out}, ensure_ascii=False))
    else:
        typer.echo(f"{listing}: {result.num_mixtures} mixtures, {result.num_speakers} speakers")
    for reason in result.left_out:
        typer.echo(f"left out: {reason}", err=True)
    if result.left_out:
        typer.echo(f"wesep prepare: {len(result.left_out)} mixtures were left out; the list holds the rest", err=True)
        raise typer.Exit(1)


@app.command("wesep", epilog="Example: wesep prepare wesep data/clean/train-100 -o lists/train-100")
def wesep_data(
    source: Annotated[
        Path, typer.Argument(metavar="DATA", help="A data folder with wav.scp; a raw.list, shard.list or tar file.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    root: RootOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Data of WeSep's recipes: fixed mixtures as a list with enrollments, single utterances as a manifest."""
    _prepare_recipe_data(source, output, root, overwrite, as_json)


@app.command("espnet", epilog="Example: wesep prepare espnet data/dev -o lists/dev")
def espnet_data(
    source: Annotated[Path, typer.Argument(metavar="DATA", help="A data folder with wav.scp and spk1.scp.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    root: RootOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Data of ESPnet's tse1 recipes: a list of mixtures with their enrollments."""
    _prepare_recipe_data(source, output, root, overwrite, as_json)


def _prepare_recipe_data(source: Path, output: Path, root: Path | None, overwrite: bool, as_json: bool) -> None:
    """Write the data of a recipe as lists of ours, and say which key or option takes each; exit 1 if some is left out.

    Raises:
        InputError: the data is malformed, or its lists do not match.
        OutputExistsError: the output exists, and `overwrite` is false.
    """
    from wesep_py.data.recipe_conversion import convert_recipe_data

    with progress_bar("recordings") as bar:
        task = bar.add_task("reading", total=None)
        result = convert_recipe_data(
            source, output, root, overwrite, lambda done, total: bar.update(task, completed=done, total=total)
        )
    if as_json:
        files = [{"file": str(file.path), "content": file.content, "use": file.use} for file in result.files]
        typer.echo(json.dumps({"files": files, "left_out": result.left_out}, ensure_ascii=False))
    else:
        for file in result.files:
            typer.echo(f"{file.path}: {file.content} ({file.use})")
    for reason in result.left_out:
        typer.echo(f"left out: {reason}", err=True)
    if result.left_out:
        typer.echo(f"wesep prepare: {len(result.left_out)} entries were left out; the lists hold the rest", err=True)
        raise typer.Exit(1)


ListOutputOption = Annotated[
    Path, typer.Option("-o", "--output", help="Folder for the four files of the list.", show_default=False)
]
AbsentOption = Annotated[
    bool, typer.Option("--absent/--no-absent", help="Add a trial with an absent speaker for each mixture.")
]
WindowOption = Annotated[float, typer.Option("--window", metavar="S", help="Longest window in seconds.")]
WindowsOption = Annotated[
    int | None,
    typer.Option("--windows", metavar="N", help="N windows of each recording, spread over it.", show_default="all"),
]


@app.command(epilog="Example: wesep prepare ami AMI --part test --mic Array1-01 -o lists/ami_test")
def ami(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of amicorpus and the annotations.")],
    output: ListOutputOption,
    part: Annotated[
        Literal["dev", "test", "all"], typer.Option("--part", help="Meetings of Full-corpus-ASR, or all.")
    ] = "test",
    meetings: Annotated[
        str | None,
        typer.Option("--meetings", metavar="NAME,NAME,…", help="These meetings, such as ES2004a, in place of a part."),
    ] = None,
    mic: Annotated[
        Literal["Mix-Headset", "Array1-01"],
        typer.Option("--mic", help="The sum of the headsets, or a microphone on the table."),
    ] = "Mix-Headset",
    rttm: Annotated[
        Path | None,
        typer.Option("--rttm", help="Folder of MEETING.rttm, for the activity; by default from the times of words."),
    ] = None,
    window: WindowOption = 30.0,
    windows: WindowsOption = None,
    absent: AbsentOption = True,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """The AMI meetings as recordings to evaluate: windows, targets, enrollments from elsewhere in the meeting."""
    from wesep_py.data.meetings.ami import read_ami
    from wesep_py.data.meetings.meeting_trials import MeetingTrialOptions, window_trials

    options = MeetingTrialOptions(window, windows, absent=absent)
    left_out: list[str] = []
    names = None if meetings is None else [name.strip() for name in meetings.split(",")]
    read = read_ami(source, part, names, mic, rttm, left_out.append)
    _write_recordings(*window_trials(read, options), output, overwrite, as_json, left_out)


@app.command(epilog="Example: wesep prepare libricss for_release --unit utterance -o lists/libricss")
def libricss(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="LibriCSS: the folder for_release.")],
    output: ListOutputOption,
    unit: Annotated[
        Literal["window", "utterance"],
        typer.Option("--unit", help="Windows with all who speak in them, or single utterances as they were played."),
    ] = "window",
    sessions: Annotated[
        str | None,
        typer.Option("--sessions", metavar="N,N,…", help="Numbers of the sessions, 0 to 9.", show_default="all"),
    ] = None,
    window: WindowOption = 30.0,
    windows: WindowsOption = None,
    absent: AbsentOption = True,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """LibriCSS as recordings to evaluate: windows or utterances, enrollments from elsewhere in the session."""
    from wesep_py.common.errors import InputError
    from wesep_py.data.meetings.libricss import read_libricss
    from wesep_py.data.meetings.meeting_trials import MeetingTrialOptions, utterance_trials, window_trials

    try:
        numbers = None if sessions is None else [int(number) for number in sessions.split(",")]
    except ValueError as error:
        raise InputError(f"--sessions {sessions}: numbers separated by commas are needed, such as 1,2,3") from error
    options = MeetingTrialOptions(window, windows, absent=absent)
    draw = window_trials if unit == "window" else utterance_trials
    _write_recordings(*draw(read_libricss(source, numbers), options), output, overwrite, as_json)


@app.command("real_t", epilog="Example: wesep prepare real_t REAL-T-dev --language en -o lists/real_t_en")
def real_t(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A set of REAL-T, such as REAL-T-dev.")],
    output: ListOutputOption,
    language: Annotated[
        Literal["en", "zh"] | None, typer.Option("--language", help="Only trials in that language.")
    ] = None,
    absent: AbsentOption = True,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """REAL-T, the data of the REAL-TSE challenge, as recordings to evaluate: its own trials and enrollments."""
    from wesep_py.data.meetings.real_t import read_real_t

    left_out: list[str] = []
    data = read_real_t(source, language, absent, left_out.append)
    if data.unlabelled:
        typer.echo(f"{data.unlabelled} mixtures have no record of who speaks when, so no timing", err=True)
    _write_recordings(data.mixtures, data.trials, output, overwrite, as_json, left_out)


def _write_recordings(
    mixtures: list[RecordedMixture],
    trials: list[RecordingTrial],
    output: Path,
    overwrite: bool,
    as_json: bool,
    left_out: Sequence[str] = (),
) -> None:
    """Write a list of recordings and say what it holds; exit 1 after naming what was left out, if anything."""
    from wesep_py.data.meetings.recording_lists import write_recording_lists

    written = write_recording_lists(output, mixtures, trials, overwrite)
    if as_json:
        files = [str(path) for path in written.files]
        numbers = {"mixtures": written.mixtures, "trials": written.trials, "absent": written.absent}
        typer.echo(json.dumps({"files": files, **numbers, "left_out": list(left_out)}, ensure_ascii=False))
    else:
        names = ", ".join(path.name for path in written.files)
        typer.echo(
            f"{output}: {written.mixtures} mixtures, {written.trials} trials, {written.absent} of them with an absent "
            f"target ({names})"
        )
    for reason in left_out:
        typer.echo(f"left out: {reason}", err=True)
    if left_out:
        typer.echo(f"wesep prepare: {len(left_out)} entries were left out; the list holds the rest", err=True)
        raise typer.Exit(1)


def _prepare(
    source: Path,
    read: Callable[..., list[Utterance]],
    output: Path,
    root: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Read a corpus, write its manifest, print a summary; exit 1 after naming the recordings left out, if any."""
    from wesep_py.common.files import check_writable, refuse_inputs
    from wesep_py.data import write_manifest

    tables = ("wav.scp", "utt2spk", "segments", "utt2dur", "spk2gender", "text")  # of a Kaldi folder
    refuse_inputs([output], [(path, "a file of the corpus") for path in (source, *(source / name for name in tables))])
    check_writable(output, overwrite)
    left_out: list[str] = []
    with progress_bar("recordings") as bar:
        task = bar.add_task("reading", total=None)
        utterances = read(
            on_skip=lambda _, reason: left_out.append(reason),
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    write_manifest(utterances, output, relative_to=root, overwrite=overwrite)
    summary: dict[str, Any] = {
        "manifest": str(output),
        "speakers": len({utterance.speaker_id for utterance in utterances}),
        "utterances": len(utterances),
        "hours": round(sum(utterance.duration_s for utterance in utterances) / 3600, 3),
        "left_out": left_out,
    }
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        typer.echo(
            f"{output}: {summary['speakers']} speakers, {summary['utterances']} utterances, "
            f"{summary['hours']:.2f} hours"
        )
    if left_out:
        for reason in left_out:
            typer.echo(f"left out: {reason}", err=True)
        typer.echo(f"wesep prepare: {len(left_out)} recordings were left out; the manifest holds the rest", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    from wesep_py.cli.main import run_module

    run_module("prepare")
