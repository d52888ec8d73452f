"""Recordings that cannot be read: each is named once in the log, with how many there are so far."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from wesep_py.corpus.reader import Reader
from wesep_py.corpus.utterance import Utterance
from wesep_py.errors import AudioError

logger = logging.getLogger(__name__)


class Unreadable(AudioError):
    """A recording cannot be read, and why."""


class CheckedReader:
    """A reader whose every `AudioError` is `Unreadable`: of a recording, and not of a codec or of anything else.

    Args:
        reader: gives the samples.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def sample_rate(self) -> int:
        """The rate of everything it gives, in Hz."""
        return self._reader.sample_rate

    def read(self, utterance: Utterance, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """As the reader's.

        Raises:
            Unreadable: the recording is missing or damaged.
        """
        with _told():
            return self._reader.read(utterance, start, stop)

    def length(self, utterance: Utterance) -> int:
        """As the reader's.

        Raises:
            Unreadable: the recording is missing or damaged, and the reader had to decode it.
        """
        with _told():
            return self._reader.length(utterance)


class Broken:
    """What a simulator could not read, and drew others for.

    Args:
        say: whether each is named in the log; otherwise whoever `take`s them does.

    >>> broken = Broken(say=False)
    >>> broken.add("a.wav: is an empty file")
    >>> broken.take(), broken.take()
    (['a.wav: is an empty file'], [])
    """

    def __init__(self, say: bool = True) -> None:
        self._say = say
        self._reasons: dict[str, bool] = {}  # whether it was taken

    def add(self, reason: str) -> None:
        """Name a recording and what is wrong with it, in one line; nothing happens where it was named before."""
        if reason in self._reasons:
            return
        self._reasons[reason] = False
        if self._say:
            logger.warning("others are drawn instead of what cannot be read (%d so far): %s", len(self), reason)

    def take(self) -> list[str]:
        """The reasons since the last call."""
        new = [reason for reason, was_taken in self._reasons.items() if not was_taken]
        self._reasons.update(dict.fromkeys(new, True))
        return new

    def __len__(self) -> int:
        return len(self._reasons)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except AudioError as error:
        raise Unreadable(str(error)) from error
