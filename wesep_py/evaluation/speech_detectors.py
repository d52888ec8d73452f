"""Detect speech in an estimate, for the metric timing: by energy, by silero-vad or by the user's function.

A detector that the user names holds a network, so it runs in the process that extracts, as `metric_backends` do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from wesep_py.evaluation.activity_labels import SpeechSegments, segment_frames
from wesep_py.evaluation.metric_backends import load_function
from wesep_py.inference.enrolling.speech_activity import VAD, speech_mask
from wesep_py.metrics import MetricError, is_silent
from wesep_py.metrics.timing import frame_error, timing

DetectSpeech = Callable[[np.ndarray, int], Iterable[tuple[float, float]]]
"""Waveform, float32 `[samples]`, and sample rate in Hz → start and end of each segment of speech in seconds."""


class SpeechDetector:
    """Find the segments of speech of a signal.

    Args:
        name: `energy`, `silero`, or a function as `module:function` (`DetectSpeech`); the current folder is searched
            too.

    Raises:
        InputError: there is no such module or function.

    >>> tone = np.sin(np.arange(8000) * 0.3)
    >>> SpeechDetector("energy").segments(np.concatenate([np.zeros(8000), tone, np.zeros(8000)]), 8000)
    ((1.0, 2.0),)
    """

    def __init__(self, name: str = "energy") -> None:
        self.name = name
        self._function: DetectSpeech | None = None
        if name not in get_args(VAD):
            self._function = load_function(name, "vad", "my_vad:detect; energy and silero are built in")

    def describe(self) -> dict[str, Any]:
        """Return which detector this is, for the protocol."""
        return {"detector": self.name}

    def segments(self, waveform: np.ndarray, sample_rate: int) -> SpeechSegments:
        """Return start and end of each segment of speech in seconds; none for a silent signal.

        Raises:
            MetricError: the user's function returned something else.
        """
        if is_silent(waveform):
            return ()
        samples = np.ascontiguousarray(waveform, dtype=np.float32)
        if self._function is None:
            return _segments_of(speech_mask(samples, sample_rate, cast(VAD, self.name)), sample_rate)
        try:
            segments = tuple((float(start), float(end)) for start, end in self._function(samples, sample_rate))
        except (TypeError, ValueError) as error:
            raise MetricError(f"{self.name}: returned no pairs of start and end in seconds ({error})") from error
        if not all(math.isfinite(start) and math.isfinite(end) for start, end in segments):
            raise MetricError(f"{self.name}: returned times that are not finite")
        return segments


def detected_timing(
    detected: SpeechSegments, labelled: SpeechSegments, num_samples: int, sample_rate: int
) -> tuple[float, ...]:
    """Return precision, recall, F1 and frame error, by our definitions (`metrics.timing`), of detected segments.

    Args:
        detected: of the estimate.
        labelled: of the target.
        num_samples: length of both.
        sample_rate: in Hz.

    Raises:
        MetricError: the target does not speak.
    """
    if not labelled:
        raise MetricError("the labels say that the target does not speak")
    estimate, target = (segment_frames(segments, num_samples, sample_rate) for segments in (detected, labelled))
    return *timing(estimate, target), frame_error(estimate, target)


def _segments_of(mask: NDArray[np.bool_], sample_rate: int) -> SpeechSegments:
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return tuple((float(start), float(end)) for start, end in edges.reshape(-1, 2) / sample_rate)
