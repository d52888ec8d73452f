"""The utterances that the mixtures of LibriMix are made of."""

from __future__ import annotations

import os

from wesep_py.corpus.durations import OnBad, OnProgress, measure_durations
from wesep_py.corpus.manifest import check_unique
from wesep_py.corpus.mixtures import read_mixtures, speakers_of
from wesep_py.corpus.utterance import Utterance


def read_librimix_metadata(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    on_bad: OnBad | None = None,
    on_progress: OnProgress | None = None,
) -> list[Utterance]:
    """The distinct sources of a LibriMix metadata CSV or rendered tree, as a corpus.

    A source of a rendered mixture is an utterance of its own, `<mixture_ID>-s<k>`, since it is cut and scaled for
    its mixture; a source of metadata with gains is the recording itself, once however often it is mixed.

    Args:
        path: the CSV or the tree, in any form that `read_mixtures` takes.
        root: the folder that relative paths in a CSV start from; by default the CSV's own.
        on_bad: called with each recording that cannot be read, which is then left out.
        on_progress: called with the number of recordings looked at and of all.

    Raises:
        InputError: the list is missing or malformed, or an id does not say who speaks, or a mixture would have one
            speaker twice.
        AudioError: a bad recording, and there is no `on_bad`.
    """
    mixtures = read_mixtures(path, root)
    rendered = os.path.isdir(path) or any(mixture.rendered for mixture in mixtures.values())  # noqa: PTH112
    utterances: dict[str, Utterance] = {}
    sources = [
        (f"{mixture.mixture_id}-s{k}" if rendered else source.utterance_id, speaker_id, source)
        for mixture in mixtures.values()
        for k, (source, speaker_id) in enumerate(zip(mixture.sources, speakers_of(mixture), strict=True), start=1)
    ]
    durations = measure_durations((source.path for _, _, source in sources), on_bad, on_progress)
    for utterance_id, speaker_id, source in sources:
        if source.path not in durations:
            continue
        utterance = Utterance(utterance_id, speaker_id, source.path, durations[source.path])
        known = utterances.setdefault(utterance_id, utterance)
        check_unique([known] if known == utterance else [known, utterance])
    return list(utterances.values())
