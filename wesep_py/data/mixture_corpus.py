"""Mixtures of a list to learn from, and whose voice each of their sources is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wesep_py.common.errors import InputError
from wesep_py.data.manifest import Utterance
from wesep_py.data.mixture_lists import Mixture, MixtureNoise, find_noise_file, read_mixtures, speakers_of
from wesep_py.data.reader import measure_durations


@dataclass(frozen=True)
class ListedSource:
    """One speaker of a mixture.

    Args:
        utterance: what is read: a recording, or its rendered image.
        spoken: the name of the recording itself, by which the same words are known in another mixture.
        gain: linear.
    """

    utterance: Utterance
    recording_id: str
    gain: float


@dataclass(frozen=True)
class ListedMixture:
    """One mixture of a list: its sources, all cut to the shortest, and its noise, if it is to be noisy.

    Args:
        mixture_id: its name.
        sources: at least one.
        noise: what is added, with the gain and the place to begin at that `MixtureNoise` has.
        noise_utterance: the recording of it.
    """

    mixture_id: str
    sources: tuple[ListedSource, ...]
    noise: MixtureNoise | None = None
    noise_utterance: Utterance | None = None


@dataclass(frozen=True)
class MixtureCorpus:
    """Mixtures to learn from as they are.

    Args:
        mixtures: in the order of their lists.
        speech: what introduces the voices, and what the mixtures are made of, each utterance once.
        spoken: for an utterance of `speech` the name of the recording, where it is not its own id.
    """

    mixtures: tuple[ListedMixture, ...]
    speech: tuple[Utterance, ...]
    recording_ids: dict[str, str] = field(default_factory=dict)

    @property
    def noises(self) -> list[Utterance]:
        """The recordings of the mixtures' noise, each once."""
        found = {m.noise_utterance.utterance_id: m.noise_utterance for m in self.mixtures if m.noise_utterance}
        return list(found.values())


def read_mixture_corpus(
    lists: Sequence[str | os.PathLike[str]],
    condition: Literal["clean", "noisy"] = "clean",
    root: str | os.PathLike[str] | None = None,
    noise_root: str | os.PathLike[str] | None = None,
    speech: Iterable[Utterance] = (),
) -> MixtureCorpus:
    """The mixtures of lists in LibriMix's form, with what introduces their voices.

    A rendered source is an utterance of its own, `<mixture_ID>-s<k>`; one with a gain is the recording itself. Where no
    further speech is given, a voice is introduced by what it says in other mixtures, as SpeakerBeam's training lists do
    (https://github.com/BUTSpeechFIT/speakerbeam).

    Args:
        lists: in any form that `read_mixtures` takes.
        condition: `noisy` adds the mixtures' noise.
        root: the folder that relative paths in CSVs start from; by default each one's own.
        noise_root: the same for noise; by default `root`.
        speech: recordings that introduce the voices, instead of the mixtures' own sources.

    Raises:
        InputError: a list is missing or malformed, a mixture stands in two, has no noise where noise is asked for, does
            not say who speaks, or would have one speaker twice.
        AudioError: a recording that is missing or damaged.
    """
    found: dict[str, Mixture] = {}
    rendered: set[str] = set()
    for name in lists:
        for mixture_id, mixture in read_mixtures(name, root, noise_root).items():
            if mixture_id in found:
                first = found[mixture_id].place
                raise InputError(f"{mixture.place}: {mixture_id!r} stands at {first} already; name it once")
            found[mixture_id] = mixture
            if Path(name).is_dir() or mixture.rendered:
                rendered.add(mixture_id)
    if condition == "noisy":
        _check_noise(found.values())
    further = {utterance.utterance_id: utterance for utterance in speech}
    durations = {utterance.path: utterance.duration_s for utterance in further.values() if utterance.start_s == 0}
    wanted = {source.path for mixture in found.values() for source in mixture.sources}
    if condition == "noisy":
        wanted |= {find_noise_file(mixture.noise.path).path for mixture in found.values() if mixture.noise}
    durations |= measure_durations(sorted(wanted - set(durations)))
    mixtures = tuple(
        _listed(mixture, mixture_id in rendered, condition == "noisy", durations)
        for mixture_id, mixture in found.items()
    )
    own = {source.utterance.utterance_id: source.utterance for mixture in mixtures for source in mixture.sources}
    spoken = {s.utterance.utterance_id: s.spoken for mixture in mixtures for s in mixture.sources}
    return MixtureCorpus(mixtures, tuple({**further, **own}.values()), spoken)


def _check_noise(mixtures: Iterable[Mixture]) -> None:
    for mixture in mixtures:
        if mixture.noise is None:
            raise InputError(
                f"{mixture.place}: mixture {mixture.mixture_id!r} has no noise; learn from it with condition clean"
            )


def _listed(mixture: Mixture, rendered: bool, noisy: bool, durations: dict[Path, float]) -> ListedMixture:
    sources = []
    for k, (source, speaker_id) in enumerate(zip(mixture.sources, speakers_of(mixture), strict=True), start=1):
        name = f"{mixture.mixture_id}-s{k}" if rendered else source.utterance_id
        utterance = Utterance(name, speaker_id, source.path, durations[source.path])
        sources.append(ListedSource(utterance, source.utterance_id, source.gain))
    if not noisy or mixture.noise is None:
        return ListedMixture(mixture.mixture_id, tuple(sources))
    path, speed = find_noise_file(mixture.noise.path)
    name = f"noise/{'_'.join(mixture.noise.path.as_posix().split())}"
    noise = Utterance(name, "noise", path, durations[path] / speed, speed=speed)
    return ListedMixture(mixture.mixture_id, tuple(sources), mixture.noise, noise)
