"""What is known of the speakers of a corpus, and whose an utterance is by its id."""

from __future__ import annotations

import os
from collections.abc import Container
from typing import NamedTuple

from wesep_py.corpus.table import read_csv
from wesep_py.errors import InputError
from wesep_py.names import canonical


class Speaker(NamedTuple):
    """A speaker's gender (`m`, `f` or any other text) and age in years; `None` for what is not known."""

    gender: str | None
    age: float | None


def read_speakers(path: str | os.PathLike[str]) -> dict[str, Speaker]:
    """Gender and age of the speakers in a CSV of speakers or of utterances.

    Args:
        path: a CSV with the column `speaker_id` and, where known, `gender` and `age`. A speaker may stand in
            many lines; what one line leaves empty another may say.

    Raises:
        InputError: the file is missing or malformed, or two lines contradict each other.
    """
    known: dict[str, Speaker] = {}
    for row in read_csv(path, "a CSV of speakers", ("speaker_id",)):
        speaker_id = canonical(row.text("speaker_id"))
        before = known.get(speaker_id, Speaker(None, None))
        found = Speaker(row.optional_text("gender"), row.optional_number("age"))
        for name, old, new in zip(Speaker._fields, before, found, strict=True):
            if old is not None and new is not None and old != new:
                raise InputError(f"{row.place}: {name} of {speaker_id!r} is {new!r}, and {old!r} in a line before")
        known[speaker_id] = Speaker(*(new if old is None else old for old, new in zip(before, found, strict=True)))
    if not known:
        raise InputError(f"{path}: names no speaker")
    return known


def speaker_of(utterance_id: str, speakers: Container[str] = ()) -> str | None:
    """The speaker of an utterance by its id, or `None` if the id does not say.

    Args:
        utterance_id: for example LibriSpeech's `84-121123-0000`.
        speakers: the speakers there are: the longest one that the id begins with, up to a `-` or `_`, is it.
            If none is, or none are given, it is what stands before the first `-`.

    >>> speaker_of("84-121123-0000"), speaker_of("al_ice-x_1", {"al_ice-x"}), speaker_of("0000")
    ('84', 'al_ice-x', None)
    """
    for end in range(len(utterance_id), 0, -1):
        whole = end == len(utterance_id)
        if (whole or utterance_id[end] in "-_") and utterance_id[:end] in speakers:
            return utterance_id[:end]
    speaker_id, dash, _ = utterance_id.partition("-")
    return speaker_id if dash and speaker_id else None
