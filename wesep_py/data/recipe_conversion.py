"""The data of WeSep's and ESPnet's recipes, written as lists of ours.

    OUTPUT/mixtures.csv             the mixtures, for data.mixtures and `wesep evaluate --trials`
    OUTPUT/map_mixture2enrollment   the enrollments of all their speakers, for `wesep evaluate --enrollment`
    OUTPUT/enrollments.jsonl        recordings of spk2enroll.json that are no source of these mixtures, for data.train
    OUTPUT/utterances.jsonl         single utterances, for data.train

What exists depends on the data. Shards of fixed mixtures are unpacked into the folder (`premixed`). Recordings stay
where they are, with absolute paths.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from wesep_py.common.errors import InputError, quoted
from wesep_py.common.files import check_writable, write_text, write_together
from wesep_py.data.corpora import read_kaldi, read_kaldi_table
from wesep_py.data.manifest import Utterance, is_file, write_manifest
from wesep_py.data.mixture_lists import Mixture, read_mixtures, speakers_of
from wesep_py.data.premixed import PREMIXED_LIST_NAME, unpack_premixed
from wesep_py.data.reader import OnProgress
from wesep_py.data.recipe_lists import (
    DRAWN,
    RecipeEnrollment,
    base_of,
    holds_mixtures,
    is_data_folder,
    is_list,
    list_kind,
    raw_list_holds_mixtures,
    read_folder_enrollments,
    read_raw_utterances,
    read_recordings,
    read_spk2enroll,
)
from wesep_py.data.shard_stream import is_stream, open_shard, stream_shards
from wesep_py.data.webdataset import is_premixed, read_shard_members

MIXTURES_NAME, MAP_NAME = "mixtures.csv", "map_mixture2enrollment"
ENROLLMENTS_NAME, UTTERANCES_NAME = "enrollments.jsonl", "utterances.jsonl"
ENROLLMENT_LISTS = ("spk1.enroll", "enroll_spk1.scp")
SPK2ENROLL_NAME = "spk2enroll.json"


class WrittenList(NamedTuple):
    """A file that was written: its path, what it holds, and the key or option that takes it."""

    path: Path
    content: str
    use: str


@dataclass(frozen=True)
class ConvertedData:
    """The files that were written, and a line for each entry that was left out."""

    files: tuple[WrittenList, ...]
    left_out: tuple[str, ...]


def convert_recipe_data(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> ConvertedData:
    """Write the data of a recipe as lists of ours.

    Args:
        source: a data folder with `wav.scp`, a `raw.list`, a `shard.list`, or a tar file.
        output: folder, created if it does not exist; its parent must exist.
        root: the folder that relative paths in the data start from; by default it is searched.
        overwrite: replace the files of an earlier run.
        on_progress: called with the number of recordings (or shards) done and the total number.

    Raises:
        InputError: the data is malformed, or its lists do not match.
        OutputExistsError: a file exists, and `overwrite` is false.
        AudioError: a shard is damaged.
    """
    source, output = Path(source), Path(output)
    if is_data_folder(source):
        if holds_mixtures(source):
            return _convert_mixtures(source, output, root, overwrite, on_progress)
        return _convert_utterances(source, output, root, overwrite, on_progress)
    if source.is_dir():
        raise InputError(f"{source}: has no wav.scp; name a data folder of WeSep or ESPnet, a .list or a tar file")
    if is_list(source) and list_kind(source) == "raw":
        if raw_list_holds_mixtures(source):
            return _convert_mixtures(source, output, root, overwrite, on_progress)
        return _convert_utterances(source, output, root, overwrite, on_progress)
    if is_stream(source):
        return _convert_shards(source, output, root, overwrite, on_progress)
    raise InputError(f"{source}: is no data of WeSep or ESPnet; name a folder with wav.scp, a .list or a tar file")


def _convert_mixtures(
    source: Path, output: Path, root: str | os.PathLike[str] | None, overwrite: bool, on_progress: OnProgress | None
) -> ConvertedData:
    mixtures = read_mixtures(source, root)
    speakers = {mixture_id: speakers_of(mixture) for mixture_id, mixture in mixtures.items()}
    trials, further, left_out = _fixed_enrollments(source, mixtures, root), list[Utterance](), list[str]()
    spk2enroll = source / SPK2ENROLL_NAME
    if is_file(spk2enroll):
        utterances = read_spk2enroll(spk2enroll, root, lambda _, reason: left_out.append(reason), on_progress)
        _check_all_enrolled(spk2enroll, utterances, speakers)
        sources = {source.path for mixture in mixtures.values() for source in mixture.sources}
        further = [utterance for utterance in utterances if utterance.path not in sources]
    names = [MIXTURES_NAME, *([MAP_NAME] if trials else []), *([ENROLLMENTS_NAME] if further else [])]
    _check_output(output, names, overwrite)
    num_speakers = len({name for names_of in speakers.values() for name in names_of})
    files = [
        WrittenList(
            output / MIXTURES_NAME,
            f"{len(mixtures)} mixtures, {num_speakers} speakers",
            "data.mixtures.lists, --trials",
        )
    ]
    output.mkdir(exist_ok=True)
    with write_together():
        write_text(output / MIXTURES_NAME, _mixtures_as_csv(mixtures.values(), speakers), overwrite)
        if trials:
            lines = [
                f"{trial.mixture_id} {mixtures[trial.mixture_id].sources[trial.number - 1].utterance_id} "
                f"{trial.path.absolute()}\n"
                for trial in trials
            ]
            write_text(output / MAP_NAME, "".join(lines), overwrite)
            files.append(WrittenList(output / MAP_NAME, f"{len(trials)} trials", "--enrollment"))
    if further:
        write_manifest(_with_absolute_paths(further), output / ENROLLMENTS_NAME, overwrite=overwrite)
        files.append(WrittenList(output / ENROLLMENTS_NAME, f"{len(further)} utterances", "data.train"))
    return ConvertedData(tuple(files), tuple(left_out))


def _fixed_enrollments(
    source: Path, mixtures: Mapping[str, Mixture], root: str | os.PathLike[str] | None
) -> list[RecipeEnrollment]:
    """Return the enrollments of the mixtures; none if the data leaves them to training."""
    lists = [source / name for name in ENROLLMENT_LISTS if is_file(source / name)]
    if not lists:
        return []
    _, first = next(iter(read_kaldi_table(lists[0]).values()))
    if first.startswith(DRAWN):
        return []
    return read_folder_enrollments(source, {name: len(m.sources) for name, m in mixtures.items()}, root)


def _check_all_enrolled(
    spk2enroll: Path, utterances: Iterable[Utterance], speakers: Mapping[str, tuple[str, ...]]
) -> None:
    """Check that each speaker of the mixtures has a recording.

    Raises:
        InputError: one has none.
    """
    enrolled = {utterance.speaker_id for utterance in utterances}
    for mixture_id, names in speakers.items():
        for name in names:
            if name not in enrolled:
                raise InputError(
                    f"{spk2enroll}: has no recording of speaker {quoted(name)} of mixture {quoted(mixture_id)}; make "
                    "it from the same data"
                )


def _convert_utterances(
    source: Path, output: Path, root: str | os.PathLike[str] | None, overwrite: bool, on_progress: OnProgress | None
) -> ConvertedData:
    left_out: list[str] = []

    def skip(path: Path, reason: str) -> None:
        left_out.append(reason)

    _check_output(output, [UTTERANCES_NAME], overwrite)
    if source.is_dir():
        base = base_of(source / "wav.scp", read_recordings(source)[0], root)
        utterances = read_kaldi(source, base, skip, on_progress)
    else:
        utterances = read_raw_utterances(source, root, skip, on_progress)
    output.mkdir(exist_ok=True)
    write_manifest(_with_absolute_paths(utterances), output / UTTERANCES_NAME, overwrite=overwrite)
    num_speakers = len({utterance.speaker_id for utterance in utterances})
    content = f"{len(utterances)} utterances, {num_speakers} speakers"
    return ConvertedData((WrittenList(output / UTTERANCES_NAME, content, "data.train"),), tuple(left_out))


def _convert_shards(
    source: Path, output: Path, root: str | os.PathLike[str] | None, overwrite: bool, on_progress: OnProgress | None
) -> ConvertedData:
    shards = stream_shards([os.fspath(source)], "", root)
    with open_shard(shards[0]) as file:
        first = next((m.name for m in read_shard_members(file, shards[0]) if ".spk" in m.name), None)
    if first is not None and not is_premixed(first):
        raise InputError(
            f"{shards[0]}: holds single utterances ({quoted(first)}), which need no conversion; name {source} in "
            "data.train"
        )
    result = unpack_premixed(shards, output, overwrite, on_progress)
    content = f"{result.num_mixtures} mixtures, {result.num_speakers} speakers"
    written = WrittenList(output / PREMIXED_LIST_NAME, content, "data.mixtures.lists, --trials")
    return ConvertedData((written,), result.left_out)


def _check_output(output: Path, names: Iterable[str], overwrite: bool) -> None:
    """Check that the files may be written into the folder.

    Raises:
        InputError: the folder is a file, or its parent does not exist.
        OutputExistsError: a file exists, and `overwrite` is false.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; name a folder")
    if not output.parent.is_dir():
        raise InputError(f"{output}: the folder {output.parent} does not exist; create it first")
    if output.is_dir():
        for name in names:
            check_writable(output / name, overwrite)


def _with_absolute_paths(utterances: Iterable[Utterance]) -> list[Utterance]:
    return [replace(utterance, path=utterance.path.absolute()) for utterance in utterances]


def _mixtures_as_csv(mixtures: Iterable[Mixture], speakers: Mapping[str, tuple[str, ...]]) -> str:
    """Return mixtures as a list in LibriMix's form, with utterances and speakers; all paths are absolute."""
    rows = []
    for mixture in mixtures:
        row = {"mixture_ID": mixture.mixture_id, "mixture_path": str(next(iter(mixture.rendered.values())).absolute())}
        if mixture.noise is not None:
            row["noise_path"] = str(mixture.noise.path.absolute())
        named = zip(mixture.sources, speakers[mixture.mixture_id], strict=True)
        for k, (source, speaker_id) in enumerate(named, start=1):
            row[f"source_{k}_path"] = str(source.path.absolute())
            row[f"source_{k}_utterance_id"] = source.utterance_id
            row[f"source_{k}_speaker_id"] = speaker_id
        rows.append(row)
    numbers = range(1, max(len(names) for names in speakers.values()) + 1)
    columns = [f"source_{k}_{what}" for what in ("path", "utterance_id", "speaker_id") for k in numbers]
    text = io.StringIO()
    table = csv.DictWriter(
        text, ["mixture_ID", "mixture_path", *columns, "noise_path"], restval="", lineterminator="\n"
    )
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
