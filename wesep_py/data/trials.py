"""Trials: which speaker of which mixture is the target, and which recording is the enrollment."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wesep_py.common.errors import InputError, quoted, shorten
from wesep_py.common.names import canonical, file_name
from wesep_py.common.textfiles import open_lines
from wesep_py.data.manifest import FileLocator, is_file, is_recording
from wesep_py.data.mixture_lists import Mixture, MixtureNoise, MixtureSource, guess_speaker, read_mixtures
from wesep_py.data.recipe_lists import is_data_folder, is_list, read_folder_enrollments

logger = logging.getLogger(__name__)

ABSENT = "-"
CSV_COLUMNS = "mixture_id,utterance_id"
"""First columns of SpeakerBeam's `mixture2enrollment.csv`; pairs of a path and a length follow."""


@dataclass(frozen=True)
class Trial:
    """One mixture, one target in it, and one enrollment of the target.

    Args:
        mixture_id: the mixture's name.
        sources: the mixture's speakers; all are cut to the shortest, multiplied by their gains and added. Empty for a
            recording whose sources are not available separately.
        noise: added in the noisy condition; `None` if the list names none.
        target_index: index of the target in `sources`, from 0; `None` if the target is absent, or there are no sources.
        target_utterance_id: the id of the target's source, or `-`; in a recording without sources, any name of the
            target.
        enrollment: the enrollment recording.
        enrollment_sources: the sources of the mixture that `enrollment` is one source of, if a list names it as
            `s<k>/<mixture_ID>` and that mixture has not been rendered: the enrollment is then cut to the shortest of
            them. Empty otherwise: the whole recording is used.
        rendered: the mixture's own file by condition (`"clean"`, `"noisy"`), if it has been rendered. That of a
            recording, and `enrollment`, may be segments `FILE@START-STOP`.
        groups: of the mixture (`Mixture.groups`).
        negative: recording of a person who is not meant, for a model that takes negative enrollments; or `None`.
    """

    mixture_id: str
    sources: tuple[MixtureSource, ...]
    noise: MixtureNoise | None
    target_index: int | None
    target_utterance_id: str
    enrollment: Path
    enrollment_sources: tuple[MixtureSource, ...] = ()
    rendered: Mapping[str, Path] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    negative: Path | None = None

    @property
    def target(self) -> MixtureSource | None:
        """The target's source, or `None` if the target is absent."""
        return None if self.target_index is None else self.sources[self.target_index]

    @property
    def interferers(self) -> tuple[MixtureSource, ...]:
        """The sources other than the target."""
        return tuple(source for index, source in enumerate(self.sources) if index != self.target_index)


def read_trials(
    metadata_csv: str | os.PathLike[str],
    enrollment_map: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    noise_root: str | os.PathLike[str] | None = None,
    speakers: Container[str] = (),
    check_files: bool = True,
    recordings: bool = False,
) -> list[Trial]:
    """Return the trials of an enrollment map whose mixtures are in the metadata, in the map's order.

    A line of the map (the form of SpeakerBeam, https://github.com/BUTSpeechFIT/speakerbeam) is
    `mixture_ID target_utterance_ID enrollment`; its `mixture2enrollment.csv` is read too.
    The target `-` means that it is absent from the mixture. The enrollment
    is a path, a segment `FILE@START-STOP` of a recording, or `s<k>/<mixture_ID>`: the k-th source of that mixture, from
    the rendered tree if there is one.

    Args:
        metadata_csv: a list of mixtures, in any form that `read_mixtures` takes.
        enrollment_map: the map; or a data folder of WeSep or ESPnet with the enrollments of all speakers
            (`recipe_lists.read_folder_enrollments`), each of which is then a target.
        root: the folder that relative paths start from; by default the metadata's own.
        noise_root: the same for noise; by default `root`.
        speakers: the known speaker ids, by which `speaker_of` finds the sources' speakers; a mapping such as that of
            `read_speakers` works.
        check_files: check now that every source and enrollment exists. Noise is not checked: the clean condition needs
            none.
        recordings: accept metadata that names recordings without their sources (`read_mixtures`).

    Returns:
        The trials, at least one, each once; a warning is logged if some are listed twice.

    Raises:
        InputError: a file is missing or malformed, no mixture is in both files, or a line names a target or an
            enrollment that cannot be found. The message names file and line.

    >>> import tempfile
    >>> import numpy as np
    >>> from wesep_py import audio
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in ("anna-1", "anna-2", "bert-1"):  # noise stands for speech here
    ...     audio.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(32000, np.float32), 16000)
    >>> mixtures, enrollments = folder / "mixtures.csv", folder / "map_mixture2enrollment"
    >>> head = "mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain"
    >>> row = "anna-1_bert-1,anna-1.wav,0.5,bert-1.wav,0.5"
    >>> _ = mixtures.write_text(f"{head}{chr(10)}{row}{chr(10)}")
    >>> _ = enrollments.write_text("anna-1_bert-1 anna-1 anna-2.wav")
    >>> (trial,) = read_trials(mixtures, enrollments)
    >>> trial.target.utterance_id
    'anna-1'
    """
    metadata_csv = Path(metadata_csv)
    default_root = metadata_csv if metadata_csv.is_dir() else metadata_csv.parent
    base = Path(root) if root is not None else default_root
    given_root = root if is_data_folder(metadata_csv) or is_list(metadata_csv) else base
    mixtures = {
        canonical(mixture_id): replace(mixture, sources=_sources_with_speakers(mixture, speakers))
        for mixture_id, mixture in read_mixtures(metadata_csv, given_root, noise_root, recordings).items()
    }
    if is_data_folder(enrollment_map):
        trials, places = _trials_of_folder(Path(enrollment_map), mixtures, root)
        if check_files:
            _check_files_exist(trials, places)
        return trials
    enrollments = FileLocator(base, enrollment_map)
    trials, places = [], []
    first_places: dict[tuple[str, str, Path], str] = {}
    repeated: list[tuple[str, str]] = []
    lines = open_lines(enrollment_map, "a map_mixture2enrollment")
    is_csv = lines[0].startswith(CSV_COLUMNS)
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (is_csv and number == 1):
            continue
        place = f"{enrollment_map}:{number}"
        fields = _csv_fields(line, place) if is_csv else line.split(maxsplit=2)
        if len(fields) != 3:
            raise InputError(f"{place}: has {len(fields)} fields; mixture, target and enrollment are needed")
        mixture_id, target_id, enrollment = canonical(fields[0]), fields[1], fields[2].strip()
        if mixture_id not in mixtures:
            continue
        trial = _trial_of(mixtures[mixture_id], target_id, enrollment, mixtures, enrollments, place)
        first_place = first_places.setdefault((mixture_id, trial.target_utterance_id, trial.enrollment), place)
        if first_place != place:
            repeated.append((place, first_place))
            continue
        trials.append(trial)
        places.append((place, mixtures[mixture_id].place))
    if repeated:
        logger.warning(
            "%s: %d lines name a trial that is listed before, such as %s (that of %s); each trial is counted once",
            enrollment_map, len(repeated), *repeated[0],
        )  # fmt: skip
    if not trials:
        raise InputError(f"{enrollment_map}: none of its mixtures is in {metadata_csv}; give a pair that matches")
    if check_files:
        _check_files_exist(trials, places)
    return trials


def _csv_fields(line: str, place: str) -> list[str]:
    """Return mixture, target and enrollment of a line of SpeakerBeam's `mixture2enrollment.csv`.

    Raises:
        InputError: the line has several enrollments, as for training, or none.
    """
    fields = [field.strip() for field in line.split(",")]
    if len(fields) > 4:
        raise InputError(
            f"{place}: names {(len(fields) - 2) // 2} enrollments, to choose from in training; name the "
            "map_mixture2enrollment of a test set (training finds the enrollments by itself)"
        )
    return fields[:3]


def _trials_of_folder(
    folder: Path, mixtures: Mapping[str, Mixture], root: str | os.PathLike[str] | None
) -> tuple[list[Trial], list[tuple[str, str]]]:
    """Return a trial for each speaker of each mixture, and the places of enrollment and mixture."""
    num_sources = {mixture_id: len(mixture.sources) for mixture_id, mixture in mixtures.items()}
    trials, places = [], []
    for enrollment in read_folder_enrollments(folder, num_sources, root):
        mixture, index = mixtures[enrollment.mixture_id], enrollment.number - 1
        trials.append(
            Trial(
                mixture.mixture_id,
                mixture.sources,
                mixture.noise,
                index,
                mixture.sources[index].utterance_id,
                enrollment.path,
                rendered=mixture.rendered,
                groups=mixture.groups,
            )
        )
        places.append((enrollment.place, mixture.place))
    return trials, places


def _sources_with_speakers(mixture: Mixture, speakers: Container[str]) -> tuple[MixtureSource, ...]:
    """Return the sources with their speakers. Guesses that would give two sources one speaker are dropped.

    Raises:
        InputError: the list gives two sources the same speaker.
    """
    listed = [source.speaker_id for source in mixture.sources if source.speaker_id is not None]
    if repeated := next((speaker_id for speaker_id in listed if listed.count(speaker_id) > 1), None):
        raise InputError(
            f"{mixture.place}: two sources of mixture {quoted(mixture.mixture_id)} are of speaker {quoted(repeated)}; "
            "the speakers of a mixture must differ"
        )
    names = [source.speaker_id or guess_speaker(mixture.mixture_id, source, speakers) for source in mixture.sources]
    return tuple(
        replace(source, speaker_id=name if source.speaker_id or names.count(name) == 1 else None)
        for source, name in zip(mixture.sources, names, strict=True)
    )


def _trial_of(
    mixture: Mixture,
    target_id: str,
    enrollment: str,
    mixtures: Mapping[str, Mixture],
    enrollments: FileLocator,
    place: str,
) -> Trial:
    target_index = None
    if target_id != ABSENT and mixture.sources:
        ids = [source.utterance_id for source in mixture.sources]
        target_id = canonical(target_id)
        if ids.count(target_id) > 1:
            raise InputError(
                f"{place}: target {quoted(target_id)} is the name of several sources of {quoted(mixture.mixture_id)}; "
                "tell them apart in columns source_1_utterance_id, source_2_utterance_id, … of the metadata"
            )
        if target_id not in ids:
            raise InputError(
                f"{place}: target {quoted(target_id)} is not a source of {quoted(mixture.mixture_id)} (its sources: "
                f"{shorten(', '.join(ids))}; {ABSENT} for an absent target)"
            )
        target_index = ids.index(target_id)
    path, enrollment_sources = _find_enrollment(enrollment, mixtures, enrollments, place)
    return Trial(
        mixture.mixture_id,
        mixture.sources,
        mixture.noise,
        target_index,
        target_id,
        path,
        enrollment_sources,
        mixture.rendered,
        mixture.groups,
    )


def _find_enrollment(
    enrollment: str, mixtures: Mapping[str, Mixture], locator: FileLocator, place: str
) -> tuple[Path, tuple[MixtureSource, ...]]:
    """Return the recording that the third field of a map names, and the sources to whose shortest it is cut."""
    match = re.fullmatch(r"s(\d+)/([^/]+)", enrollment)
    path = locator.find(enrollment, is_recording)
    if match is None or is_file(path):
        return path, ()
    number, mixture_id = int(match[1]), canonical(match[2])
    rendered = locator.find(f"s{number}/{file_name(mixture_id)}.wav")
    if is_file(rendered):
        return rendered, ()
    if mixture_id not in mixtures:
        raise InputError(
            f"{place}: enrollment {quoted(enrollment)} is neither a file under {locator.root} "
            "nor a source of a mixture of the metadata"
        )
    sources = mixtures[mixture_id].sources
    if not 1 <= number <= len(sources):
        raise InputError(f"{place}: enrollment {quoted(enrollment)}: that mixture has {len(sources)} sources")
    # The images of a rendered mixture are cut already.
    is_rendered = bool(mixtures[mixture_id].rendered)
    return sources[number - 1].path, () if is_rendered else sources


def _check_files_exist(trials: list[Trial], places: list[tuple[str, str]]) -> None:
    exists: dict[Path, bool] = {}
    for trial, (map_place, metadata_place) in zip(trials, places, strict=True):
        mixture_files = [source.path for source in trial.sources] or set(trial.rendered.values())
        needed = [(path, metadata_place) for path in mixture_files] + [(trial.enrollment, map_place)]
        for path, place in needed:
            if path not in exists:
                exists[path] = is_recording(path)
            if not exists[path]:
                raise InputError(f"{place}: {path} does not exist; name the folder that paths start from with --root")


def with_negatives(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials with negative enrollments: each has the enrollment of another target of its mixture.

    It is that of the next trial of the mixture, and of the last trial that of the first. A trial whose mixture has no
    other target has none.

    Raises:
        InputError: no mixture has two targets.
    """
    by_mixture: dict[str, list[Trial]] = {}
    for trial in trials:
        by_mixture.setdefault(trial.mixture_id, []).append(trial)
    result, seen = [], Counter[str]()
    for trial in trials:
        mates, position = by_mixture[trial.mixture_id], seen[trial.mixture_id]
        seen[trial.mixture_id] += 1
        following = [*mates[position + 1 :], *mates[:position]]
        others = [mate for mate in following if mate.target_utterance_id != trial.target_utterance_id]
        result.append(replace(trial, negative=others[0].enrollment if others else None))
    if all(trial.negative is None for trial in result):
        raise InputError(
            "no mixture of the trials has two targets, so there is no negative enrollment; leave out --negatives"
        )
    return result
