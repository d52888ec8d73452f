"""What drawing shares: the exception for what cannot be used, and the samples of a stretch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wesep_py.simulation.recipe_parts import Stretch

if TYPE_CHECKING:
    from wesep_py.corpus import Reader


class Unusable(Exception):
    """What was drawn cannot be used, and why."""


def too_short(speaker_id: str) -> str:
    return f"an utterance of {speaker_id!r} is too short to give both excerpt and enrollment"


def read_stretch(stretch: Stretch, reader: Reader) -> NDArray[np.float32]:
    """The samples of a stretch, without its gain."""
    return reader.read(stretch.utterance, stretch.start, stretch.stop)
