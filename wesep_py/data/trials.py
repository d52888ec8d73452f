"""Trials: in which mixture is whose voice wanted, and which recording shows that voice."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from wesep_py.common.errors import InputError
from wesep_py.common.names import canonical, file_name
from wesep_py.common.textfiles import open_lines
from wesep_py.data.manifest import FileLocator, is_file
from wesep_py.data.mixture_lists import Mixture, MixtureNoise, MixtureSource, guess_speaker, read_mixtures

logger = logging.getLogger(__name__)

ABSENT = "-"


@dataclass(frozen=True)
class Trial:
    """One mixture, one voice wanted from it, one recording of that voice.

    Args:
        mixture_id: the mixture's name.
        sources: the mixture's speakers; all are cut to the shortest, multiplied by their gains and added. None for a
            recording whose sources nobody knows apart.
        noise: added in the noisy condition; `None` where the list names none.
        target_index: which of the sources is wanted, from 0; `None` if the voice is not in the mixture, or there are no
            sources.
        target_utterance_id: the id of that source, or `-`; in a recording without sources, any name of the target.
        enrollment: the recording that shows the voice.
        enrollment_sources: the sources of the mixture that `enrollment` is one source of, where a list names it
            as `s<k>/<mixture_ID>` and that mixture has not been rendered: the enrollment is then
            cut to the shortest of them. Empty otherwise: the recording is used whole.
        rendered: the mixture's own file by condition (`"clean"`, `"noisy"`), where it has been rendered.
    """

    mixture_id: str
    sources: tuple[MixtureSource, ...]
    noise: MixtureNoise | None
    target_index: int | None
    target_utterance_id: str
    enrollment: Path
    enrollment_sources: tuple[MixtureSource, ...] = ()
    rendered: Mapping[str, Path] = field(default_factory=dict)

    @property
    def target(self) -> MixtureSource | None:
        """The source that is wanted, or `None` if the voice is not in the mixture."""
        return None if self.target_index is None else self.sources[self.target_index]

    @property
    def interferers(self) -> tuple[MixtureSource, ...]:
        """The sources that are not wanted."""
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
    """The trials of an enrollment map whose mixtures stand in the metadata, in the map's order.

    A line of the map (the form of SpeakerBeam, https://github.com/BUTSpeechFIT/speakerbeam) is
    `mixture_ID target_utterance_ID enrollment`. The target may be `-`: the voice is not in the mixture.
    The enrollment is a path, or `s<k>/<mixture_ID>`: the k-th source of that mixture, taken from the rendered
    tree where there is one.

    Args:
        metadata_csv: a list of mixtures, in any form that `read_mixtures` takes.
        enrollment_map: the map.
        root: the folder that relative paths start from; by default the metadata's own.
        noise_root: the same for noise; by default `root`.
        speakers: the ids of the speakers there are, for the sources' `speaker_id` (`speaker_of`); a
            mapping such as that of `read_speakers` serves.
        check_files: whether every source and enrollment must exist now. Noise is not looked for: the clean
            condition needs none.
        recordings: whether the metadata may name recordings without their sources (`read_mixtures`).

    Returns:
        The trials, at least one, each once; a warning says if some are listed twice.

    Raises:
        InputError: a file is missing or malformed, no mixture stands in both, or a line names a target or an
            enrollment that cannot be found. The message names file and line.
    """
    metadata_csv = Path(metadata_csv)
    default_root = metadata_csv if metadata_csv.is_dir() else metadata_csv.parent
    base = Path(root) if root is not None else default_root
    mixtures = {
        canonical(mixture_id): replace(mixture, sources=_name_speakers(mixture, speakers))
        for mixture_id, mixture in read_mixtures(metadata_csv, base, noise_root, recordings).items()
    }
    enrollments = FileLocator(base, enrollment_map)
    trials, places = [], []
    seen: dict[tuple[str, str, Path], str] = {}
    twice: list[tuple[str, str]] = []
    for number, line in enumerate(open_lines(enrollment_map, "a map_mixture2enrollment"), start=1):
        if not line.strip():
            continue
        place = f"{enrollment_map}:{number}"
        fields = line.split(maxsplit=2)
        if len(fields) != 3:
            raise InputError(f"{place}: has {len(fields)} fields; mixture, target and enrollment are needed")
        mixture_id, target_id, enrollment = canonical(fields[0]), fields[1], fields[2].strip()
        if mixture_id not in mixtures:
            continue
        trial = _trial(mixtures[mixture_id], target_id, enrollment, mixtures, enrollments, place)
        first = seen.setdefault((mixture_id, trial.target_utterance_id, trial.enrollment), place)
        if first != place:
            twice.append((place, first))
            continue
        trials.append(trial)
        places.append((place, mixtures[mixture_id].place))
    if twice:
        logger.warning(
            "%s: %d lines name a trial that is listed before, such as %s (that of %s); each trial is counted once",
            enrollment_map, len(twice), *twice[0],
        )  # fmt: skip
    if not trials:
        raise InputError(f"{enrollment_map}: none of its mixtures stands in {metadata_csv}; give a pair that matches")
    if check_files:
        _check_files(trials, places)
    return trials


def _name_speakers(mixture: Mixture, speakers: Container[str]) -> tuple[MixtureSource, ...]:
    """The sources with their speakers; where two would be one by their names, nobody is named.

    Raises:
        InputError: the list says that two sources are of one speaker.
    """
    told = [source.speaker_id for source in mixture.sources if source.speaker_id is not None]
    if double := next((speaker_id for speaker_id in told if told.count(speaker_id) > 1), None):
        raise InputError(
            f"{mixture.place}: two sources of mixture {mixture.mixture_id!r} are of speaker {double!r}; the speakers "
            "of a mixture have to differ"
        )
    named = [source.speaker_id or guess_speaker(mixture.mixture_id, source, speakers) for source in mixture.sources]
    return tuple(
        replace(source, speaker_id=name if source.speaker_id or named.count(name) == 1 else None)
        for source, name in zip(mixture.sources, named, strict=True)
    )


def _trial(
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
                f"{place}: target {target_id!r} is the name of several sources of {mixture.mixture_id!r}; say which is "
                "which in columns source_1_utterance_id, source_2_utterance_id, … of the metadata"
            )
        if target_id not in ids:
            raise InputError(
                f"{place}: target {target_id!r} is no source of {mixture.mixture_id!r} (its sources: "
                f"{', '.join(ids)}; {ABSENT} for an absent target)"
            )
        target_index = ids.index(target_id)
    path, mates = _find_enrollment(enrollment, mixtures, enrollments, place)
    return Trial(
        mixture.mixture_id,
        mixture.sources,
        mixture.noise,
        target_index,
        target_id,
        path,
        mates,
        mixture.rendered,
    )


def _find_enrollment(
    enrollment: str, mixtures: Mapping[str, Mixture], places: FileLocator, place: str
) -> tuple[Path, tuple[MixtureSource, ...]]:
    """The recording that the third field of a map names, and the sources it is cut to the shortest of."""
    match = re.fullmatch(r"s(\d+)/([^/]+)", enrollment)
    path = places.find(enrollment)
    if match is None or is_file(path):
        return path, ()
    number, mixture_id = int(match[1]), canonical(match[2])
    rendered = places.find(f"s{number}/{file_name(mixture_id)}.wav")
    if is_file(rendered):
        return rendered, ()
    if mixture_id not in mixtures:
        raise InputError(
            f"{place}: enrollment {enrollment!r} is neither a file under {places.root} "
            "nor a source of a mixture of the metadata"
        )
    sources = mixtures[mixture_id].sources
    if not 1 <= number <= len(sources):
        raise InputError(f"{place}: enrollment {enrollment!r}: that mixture has {len(sources)} sources")
    is_rendered = bool(mixtures[mixture_id].rendered)
    return sources[number - 1].path, () if is_rendered else sources


def _check_files(trials: list[Trial], places: list[tuple[str, str]]) -> None:
    exists: dict[Path, bool] = {}
    for trial, (map_place, metadata_place) in zip(trials, places, strict=True):
        heard = [source.path for source in trial.sources] or set(trial.rendered.values())
        needed = [(path, metadata_place) for path in heard] + [(trial.enrollment, map_place)]
        for path, place in needed:
            if path not in exists:
                exists[path] = is_file(path)
            if not exists[path]:
                raise InputError(f"{place}: {path} does not exist; name the folder that paths start from with --root")
