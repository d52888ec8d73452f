"""Mixtures of lists as training data, with the utterances that serve as enrollments of their speakers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wesep_py.common.errors import InputError, quoted
from wesep_py.data.manifest import Utterance
from wesep_py.data.mixture_lists import Mixture, MixtureNoise, find_noise_file, read_mixtures, source_ids, speakers_of
from wesep_py.data.mixture_shards import MixtureShards
from wesep_py.data.reader import measure_durations
from wesep_py.data.shard_stream import is_stream, stream_shards
from wesep_py.data.store import Store


@dataclass(frozen=True)
class ListedSource:
    """One speaker of a mixture.

    Args:
        utterance: the audio: a recording, or its rendered image.
        recording_id: the id of the recording itself; equal ids mean equal words, also in different mixtures.
        gain: linear.
    """

    utterance: Utterance
    recording_id: str
    gain: float


@dataclass(frozen=True)
class ListedMixture:
    """One mixture of a list: its sources, all cut to the shortest, and its noise in the noisy condition.

    Args:
        mixture_id: its name.
        sources: at least one.
        noise: the noise to add, with its gain and its start in the recording.
        noise_utterance: the recording of the noise.
    """

    mixture_id: str
    sources: tuple[ListedSource, ...]
    noise: MixtureNoise | None = None
    noise_utterance: Utterance | None = None


@dataclass(frozen=True)
class MixtureCorpus:
    """Fixed mixtures as training data.

    Args:
        mixtures: in the order of their lists.
        speech: the enrollments of the speakers and the sources of the mixtures, each utterance once.
        recording_ids: for an utterance of `speech` the id of its recording, if that is not the utterance's own id.
        stores: hold the sources and the noise of mixtures that are not files, but in tar shards.
    """

    mixtures: tuple[ListedMixture, ...]
    speech: tuple[Utterance, ...]
    recording_ids: dict[str, str] = field(default_factory=dict)
    stores: tuple[Store, ...] = ()

    @property
    def noises(self) -> list[Utterance]:
        """The recordings of the mixtures' noise, each once."""
        noises = [mixture.noise_utterance for mixture in self.mixtures if mixture.noise_utterance]
        return list({noise.utterance_id: noise for noise in noises}.values())


def read_mixture_corpus(
    lists: Sequence[str | os.PathLike[str]],
    condition: Literal["clean", "noisy"] = "clean",
    root: str | os.PathLike[str] | None = None,
    noise_root: str | os.PathLike[str] | None = None,
    speech: Iterable[Utterance] = (),
) -> MixtureCorpus:
    """Return the mixtures of lists in LibriMix's form, with the enrollments of their speakers.

    A rendered source is an utterance of its own, `<mixture_ID>-s<k>`; a source with a gain is the recording itself. If
    no further speech is given, the enrollment of a speaker is the speaker's speech in other mixtures, as in
    SpeakerBeam's training lists (https://github.com/BUTSpeechFIT/speakerbeam).

    Args:
        lists: in any form that `read_mixtures` takes; or WeSep's shards of fixed mixtures, as tar files or a list of
            them.
        condition: `noisy` adds the mixtures' noise.
        root: the folder that relative paths in CSVs start from; by default each one's own.
        noise_root: the same for noise; by default `root`.
        speech: further recordings of the speakers, as enrollments.

    Raises:
        InputError: a list is missing or malformed; or a mixture is in two lists, has no noise in the noisy condition,
            does not name its speakers, or has one speaker twice.
        AudioError: a recording is missing or damaged.
    """
    mixtures: dict[str, Mixture] = {}
    rendered_ids: set[str] = set()
    is_noisy = condition == "noisy"
    stores = [MixtureShards(stream_shards([os.fspath(name)], "", root), name) for name in lists if is_stream(name)]
    for name in lists:
        if is_stream(name):
            continue
        for mixture_id, mixture in read_mixtures(name, root, noise_root).items():
            if mixture_id in mixtures:
                first_place = mixtures[mixture_id].place
                raise InputError(
                    f"{mixture.place}: {quoted(mixture_id)} is listed at {first_place} already; name it once"
                )
            mixtures[mixture_id] = mixture
            if Path(name).is_dir() or mixture.rendered:
                rendered_ids.add(mixture_id)
    if is_noisy:
        _check_noise(mixtures.values())
    enrollments = {utterance.utterance_id: utterance for utterance in speech}
    # The length of a whole recording that is in `speech` is known. All others are measured.
    durations = {utterance.path: utterance.duration_s for utterance in enrollments.values() if utterance.start_s == 0}
    paths = {source.path for mixture in mixtures.values() for source in mixture.sources}
    if is_noisy:
        paths |= {find_noise_file(mixture.noise.path).path for mixture in mixtures.values() if mixture.noise}
    durations |= measure_durations(sorted(paths - set(durations)))
    listed_mixtures = tuple(
        _listed_mixture(mixture, mixture_id in rendered_ids, is_noisy, durations)
        for mixture_id, mixture in mixtures.items()
    )
    listed_mixtures += tuple(_mixtures_of_shards(stores, is_noisy, set(mixtures)))
    sources = [source for mixture in listed_mixtures for source in mixture.sources]
    source_utterances = {source.utterance.utterance_id: source.utterance for source in sources}
    recording_ids = {source.utterance.utterance_id: source.recording_id for source in sources}
    speech_of_all = tuple({**enrollments, **source_utterances}.values())
    return MixtureCorpus(listed_mixtures, speech_of_all, recording_ids, tuple(stores))


def _mixtures_of_shards(stores: Sequence[MixtureShards], is_noisy: bool, listed: set[str]) -> Iterator[ListedMixture]:
    """Yield the mixtures of shards.

    Raises:
        InputError: one is in another list too, or has one speaker twice.
    """
    for store in stores:
        for mixture in store.mixtures:
            place = f"{mixture.shard}: {quoted(mixture.mixture_id)}"
            if mixture.mixture_id in listed:
                raise InputError(f"{place} is in another list too; name it once")
            listed.add(mixture.mixture_id)
            speakers = [source.speaker_id for source in mixture.sources]
            if len(set(speakers)) < len(speakers):
                raise InputError(f"{place} has sources of {', '.join(speakers)}; the speakers of a mixture must differ")
            paths = [Path(mixture.mixture_id)] * len(speakers)
            ids = source_ids(mixture.mixture_id, paths)
            if len(set(ids)) < len(ids):
                ids = [source.utterance_id for source in mixture.sources]
            sources = tuple(
                ListedSource(source, recording_id, 1.0)
                for source, recording_id in zip(mixture.sources, ids, strict=True)
            )
            if not is_noisy:
                yield ListedMixture(mixture.mixture_id, sources)
                continue
            entry = store.entry(mixture.noise_id)
            assert entry is not None
            path, duration_s = Path(mixture.shard) / mixture.noise_id, entry.num_samples / entry.sample_rate
            noise = Utterance(mixture.noise_id, "noise", path, duration_s)
            yield ListedMixture(mixture.mixture_id, sources, MixtureNoise(path), noise)


def _check_noise(mixtures: Iterable[Mixture]) -> None:
    for mixture in mixtures:
        if mixture.noise is None:
            raise InputError(
                f"{mixture.place}: mixture {quoted(mixture.mixture_id)} has no noise; learn from it with condition "
                "clean"
            )


def _listed_mixture(mixture: Mixture, is_rendered: bool, is_noisy: bool, durations: dict[Path, float]) -> ListedMixture:
    sources = []
    for k, (source, speaker_id) in enumerate(zip(mixture.sources, speakers_of(mixture), strict=True), start=1):
        utterance_id = f"{mixture.mixture_id}-s{k}" if is_rendered else source.utterance_id
        utterance = Utterance(utterance_id, speaker_id, source.path, durations[source.path])
        sources.append(ListedSource(utterance, source.utterance_id, source.gain))
    if not is_noisy or mixture.noise is None:
        return ListedMixture(mixture.mixture_id, tuple(sources))
    path, speed = find_noise_file(mixture.noise.path)
    noise_id = f"noise/{'_'.join(mixture.noise.path.as_posix().split())}"
    noise = Utterance(noise_id, "noise", path, durations[path] / speed, speed=speed)
    return ListedMixture(mixture.mixture_id, tuple(sources), mixture.noise, noise)
