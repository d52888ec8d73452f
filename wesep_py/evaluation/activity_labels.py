"""When each target speaks, as somebody has labelled it: RTTM, in place of the activity of a clean reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import open_lines
from wesep_py.metrics import MetricError
from wesep_py.metrics.timing import FRAME_S

Stretches = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ActivityLabels:
    """Who speaks when in each recording.

    Attributes:
        path: the file.
        sha256: of its content.
        stretches: by recording, then by speaker: from when to when, in seconds.
    """

    path: Path
    sha256: str
    stretches: dict[str, dict[str, Stretches]]

    def describe(self) -> dict[str, Any]:
        """For the protocol: what the labels are."""
        return {"file": self.path.name, "sha256": self.sha256}

    def activity(
        self, recording: str, names: Iterable[str], num_samples: int, sample_rate: int, any_sole_speaker: bool = False
    ) -> NDArray[np.bool_]:
        """Whether the target speaks, in frames of `timing.FRAME_S`.

        Args:
            recording: the mixture's id.
            names: what the target may be called, the surest first; white space in any name counts as `_`.
            num_samples: length of the signal.
            sample_rate: its rate in Hz.
            any_sole_speaker: where none of the names is there and the recording has one speaker, that is the target.

        Returns:
            bool `[frames]`.

        Raises:
            MetricError: the recording or the target is not labelled.
        """
        speakers = self.stretches.get(as_field(recording))
        if speakers is None:
            raise MetricError("the labels do not name the recording")
        found = next((speakers[name] for name in map(as_field, names) if name in speakers), None)
        if found is None and any_sole_speaker and len(speakers) == 1:
            (found,) = speakers.values()
        if found is None:
            raise MetricError("the labels do not name the target in its recording")
        step = max(1, round(FRAME_S * sample_rate))
        times_s = np.arange(0, num_samples, step) / sample_rate
        active = np.zeros(len(times_s), dtype=bool)
        for start_s, end_s in found:
            active |= (times_s >= start_s) & (times_s < end_s)
        return active


def as_field(name: str) -> str:
    """A name as RTTM can hold it: without white space.

    >>> as_field("board meeting")
    'board_meeting'
    """
    return canonical("_".join(name.split()))


def read_labels(path: str | Path) -> ActivityLabels:
    """Read RTTM: lines `SPEAKER RECORDING CHANNEL START_S DURATION_S <NA> <NA> NAME …`; other lines are passed over.

    Raises:
        InputError: the file is missing or is no text, a line is malformed, or nobody speaks in it.

    Source: NIST, "The 2009 Rich Transcription evaluation plan", appendix A.
    """
    stretches: dict[str, dict[str, Stretches]] = {}
    for number, line in enumerate(open_lines(path, "an RTTM file"), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        if len(fields) < 8:
            raise InputError(f"{path}:{number}: has {len(fields)} fields; a SPEAKER line of RTTM has 8 or more")
        try:
            start_s, duration_s = float(fields[3]), float(fields[4])
        except ValueError:
            start_s = duration_s = math.nan
        if not (math.isfinite(start_s) and math.isfinite(duration_s)) or min(start_s, duration_s) < 0:
            raise InputError(f"{path}:{number}: from {fields[3]} for {fields[4]}; seconds of at least 0 are needed")
        speakers, name = stretches.setdefault(canonical(fields[1]), {}), canonical(fields[7])
        speakers[name] = (*speakers.get(name, ()), (start_s, start_s + duration_s))
    if not stretches:
        raise InputError(f"{path}: has no SPEAKER line; give an RTTM file")
    return ActivityLabels(Path(path), hashlib.sha256(Path(path).read_bytes()).hexdigest(), stretches)
