"""The noises of WHAM! as LibriMix's metadata names them: in the training part also at other speeds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

SPEEDS = {"sp08": 0.8, "sp12": 1.2}
_MARK = re.compile(rf"({'|'.join(SPEEDS)})$")


class Noise(NamedTuple):
    """A recording, and how much faster than recorded it is played."""

    path: Path
    speed: float = 1.0


def find_noise(path: Path) -> Noise:
    """The recording that a metadata path names.

    LibriMix's scripts write every training noise at 0.8 and 1.2 times its speed beside it, `<name>sp08.wav` and
    `<name>sp12.wav`. Where such a file is not there, it is its original at that speed.

    >>> find_noise(Path("tr/01ga010esp08.wav"))
    Noise(path=PosixPath('tr/01ga010e.wav'), speed=0.8)
    """
    mark = _MARK.search(path.stem)
    if mark is None or path.is_file():
        return Noise(path)
    return Noise(path.with_name(path.stem[: mark.start()] + path.suffix), SPEEDS[mark[1]])
