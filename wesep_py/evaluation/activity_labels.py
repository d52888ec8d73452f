"""Read labels of speech activity (RTTM), which say when each target speaks where no clean reference can."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wesep_py.common.errors import InputError, quoted
from wesep_py.common.names import canonical
from wesep_py.common.textfiles import open_lines
from wesep_py.metrics import MetricError
from wesep_py.metrics.timing import FRAME_S

SpeechSegments = tuple[tuple[float, float], ...]
"""Start and end of each segment of speech, in seconds."""


@dataclass(frozen=True)
class ActivityLabels:
    """Who speaks when in each recording.

    Attributes:
        path: of the file.
        sha256: of its content.
        segments: segments of speech by recording, then by speaker.
    """

    path: Path
    sha256: str
    segments: dict[str, dict[str, SpeechSegments]]

    def describe(self) -> dict[str, Any]:
        """Return which labels these are, for the protocol."""
        return {"file": self.path.name, "sha256": self.sha256}

    def target_segments(
        self, recording: str, names: Iterable[str], any_sole_speaker: bool = False
    ) -> SpeechSegments | None:
        """Return the segments in which the target speaks; `None` if the recording is labelled, but not the target.

        Args:
            recording, names, any_sole_speaker: as for `activity`.

        Raises:
            MetricError: the recording has no label.
        """
        speakers = self.segments.get(as_rttm_field(recording))
        if speakers is None:
            raise MetricError("the labels do not name the recording")
        segments = next((speakers[name] for name in map(as_rttm_field, names) if name in speakers), None)
        if segments is None and any_sole_speaker and len(speakers) == 1:
            (segments,) = speakers.values()
        return segments

    def activity(
        self, recording: str, names: Iterable[str], num_samples: int, sample_rate: int, any_sole_speaker: bool = False
    ) -> NDArray[np.bool_]:
        """Return whether the target speaks in each frame of `timing.FRAME_S`.

        Args:
            recording: id of the mixture.
            names: possible names of the target, the most reliable first; white space in a name counts as `_`.
            num_samples: length of the signal in samples.
            sample_rate: in Hz.
            any_sole_speaker: where no name matches and the recording has one speaker, take that speaker.

        Returns:
            bool `[frames]`.

        Raises:
            MetricError: the recording or the target has no label.
        """
        segments = self.target_segments(recording, names, any_sole_speaker)
        if segments is None:
            raise MetricError("the labels do not name the target in its recording")
        return segment_frames(segments, num_samples, sample_rate)


def segment_frames(segments: SpeechSegments, num_samples: int, sample_rate: int) -> NDArray[np.bool_]:
    """Return whether each frame of `timing.FRAME_S` begins within a segment, bool `[frames]`.

    Frames begin at whole samples, as those of the estimate's activity do: no drift where a frame is no whole number of
    samples.
    """
    step = max(1, round(FRAME_S * sample_rate))
    times_s = np.arange(0, num_samples, step) / sample_rate
    active = np.zeros(len(times_s), dtype=bool)
    for start_s, end_s in segments:
        active |= (times_s >= start_s) & (times_s < end_s)
    return active


def as_rttm_field(name: str) -> str:
    """Return a name as an RTTM file can hold it: white space becomes `_`.

    >>> as_rttm_field("board meeting")
    'board_meeting'
    """
    return canonical("_".join(name.split()))


def read_labels(path: str | Path) -> ActivityLabels:
    """Read RTTM: lines `SPEAKER RECORDING CHANNEL START_S DURATION_S <NA> <NA> NAME …`; other lines are skipped.

    Raises:
        InputError: the file is missing or is not text, a line is malformed, or there is no SPEAKER line.

    Source: NIST, "The 2009 Rich Transcription evaluation plan", appendix A.
    """
    segments: dict[str, dict[str, SpeechSegments]] = {}
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
            raise InputError(
                f"{path}:{number}: start is {quoted(fields[3])} and duration {quoted(fields[4])}; "
                "seconds of at least 0 are needed"
            )
        speakers, name = segments.setdefault(canonical(fields[1]), {}), canonical(fields[7])
        speakers[name] = (*speakers.get(name, ()), (start_s, start_s + duration_s))
    if not segments:
        raise InputError(f"{path}: has no SPEAKER line; give an RTTM file")
    return ActivityLabels(Path(path), hashlib.sha256(Path(path).read_bytes()).hexdigest(), segments)
