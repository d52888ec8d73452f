"""Whether the enrolled voice is in a recording, as a probability: pooled from frames, and calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import CheckpointError, InputError, quoted, shorten
from wesep_py.common.files import write_json
from wesep_py.common.textfiles import read_json

PRESENCE_S = 0.5
"""A voice is taken to be present if it speaks for this long anywhere in the recording."""
REFERENCE_S = 4.0
"""The length at which a calibration needs no correction for it."""
PROVENANCE, KEY = "provenance.json", "presence"
SILENT_LOGIT = -80.0
"""The logit of a frame of digital silence: nobody speaks there."""


@dataclass(frozen=True)
class Calibration:
    """What turns the scores of a presence head into probabilities, and from which one on a voice is present.

    Kept in a checkpoint's `provenance.json` under `presence`, which is no part of the model's hash: a model that is
    calibrated again keeps its voice prints.

    Attributes:
        scale, offset: of a recording's score, less what its length adds:
            probability = sigmoid(scale · (score − growth · log2(length / 4 s)) + offset) (Platt, 1999).
        threshold: the least probability at which the voice counts as present, 0 to 1.
        frame_scale, frame_offset: the same for the logit of a frame.
        growth: by how much the score of an absent voice is higher in a recording twice as long: of more half seconds,
            the surest is surer.

    Raises:
        ValueError: a scale that is not positive, a threshold beyond 0 to 1, anything that is not finite.

    >>> round(Calibration(scale=2.0, offset=-1.0).probability(0.5), 3)
    0.5
    """

    scale: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    frame_scale: float = 1.0
    frame_offset: float = 0.0
    growth: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
                raise ValueError(f"{name}: is {quoted(value)}; a finite number is needed")
        if min(self.scale, self.frame_scale) <= 0:
            raise ValueError(f"scale: is {min(self.scale, self.frame_scale)}; above 0 is allowed")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: is {self.threshold}; 0 to 1 is allowed")

    def probability(self, score: float, duration_s: float = REFERENCE_S) -> float:
        """Of the voice being in a recording of that score and length."""
        return float(self.probabilities(score, duration_s))

    def probabilities(self, scores: ArrayLike, durations_s: ArrayLike) -> Any:
        """`probability` of many."""
        return sigmoid(self.scale * (np.asarray(scores, dtype=np.float64) - self.grown(durations_s)) + self.offset)

    def grown(self, durations_s: ArrayLike) -> Any:
        """What the length of recordings, in seconds, adds to their scores.

        >>> float(Calibration(growth=0.5).grown(16.0))
        1.0
        """
        return self.growth * np.log2(np.asarray(durations_s, dtype=np.float64) / REFERENCE_S)

    def track(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Of the voice speaking in each frame, from the frames' logits."""
        return sigmoid(self.frame_scale * np.asarray(logits, dtype=np.float64) + self.frame_offset)


UNCALIBRATED = Calibration()
"""What holds for a checkpoint that says nothing: the head's own probabilities, and a threshold of 0.5."""


@dataclass(frozen=True)
class Presence:
    """What a presence head says of a voice in a recording.

    Attributes:
        score: of the recording, before calibration (a logit).
        logits: of each frame `[frames]`, before calibration.
        frame_s: seconds from one frame to the next.
        calibration: what makes probabilities of them.
    """

    score: float
    logits: NDArray[np.float32]
    frame_s: float
    calibration: Calibration = UNCALIBRATED

    @property
    def probability(self) -> float:
        """That the voice is in the recording, 0 to 1."""
        return self.calibration.probability(self.score, len(self.logits) * self.frame_s)

    @property
    def is_present(self) -> bool:
        """Whether the probability reaches the threshold."""
        return self.probability >= self.calibration.threshold

    @property
    def track(self) -> NDArray[np.float64]:
        """Probability `[frames]` that the voice speaks."""
        return self.calibration.track(self.logits)


def presence_of_channels(
    logits: list[NDArray[np.float32]], frame_s: float, calibration: Calibration = UNCALIBRATED
) -> Presence | None:
    """The presence in the channel in which it is surest; `None` without any logits."""
    if not logits:
        return None
    surest = max(logits, key=lambda one: pool_logits(one, frame_s))
    return Presence(pool_logits(surest, frame_s), surest, frame_s, calibration)


def pool_logits(logits: ArrayLike, frame_s: float, seconds: float = PRESENCE_S) -> float:
    """A recording's score: the logit of the mean probability of so many seconds of frames, the surest.

    Computed from logarithms, so that it does not saturate where probabilities do.

    Args:
        logits: `[frames]`.
        frame_s: seconds from one frame to the next.
        seconds: how many count.

    >>> round(pooled([-9.0, 0.5, 0.5], frame_s=0.25), 3)
    0.5
    """
    values = np.asarray(logits, dtype=np.float64)
    count = min(len(values), max(1, round(seconds / frame_s)))
    surest = np.partition(values, len(values) - count)[len(values) - count :]
    return float(_log_mean_sigmoid(surest) - _log_mean_sigmoid(-surest))


def sigmoid(x: ArrayLike) -> Any:
    """`1 / (1 + exp(-x))` in float64, without overflow."""
    x = np.asarray(x, dtype=np.float64)
    return np.exp(-np.logaddexp(0.0, -x))


def read_calibration(provenance: Mapping[str, Any], where: str = "provenance") -> Calibration | None:
    """The calibration in a checkpoint's provenance; `None` where it has none.

    Raises:
        CheckpointError: it is there and makes no sense.
    """
    given = provenance.get(KEY)
    if given is None:
        return None
    names = {field.name for field in fields(Calibration)}
    try:
        return Calibration(**{name: value for name, value in given.items() if name in names})
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        told = shorten(error)
        raise CheckpointError(f"{where}: its presence calibration is damaged ({told}); calibrate again") from error


def save_calibration(folder: str | Path, calibration: Calibration, about: Mapping[str, Any] | None = None) -> Path:
    """Write a calibration into a checkpoint, which keeps its hash.

    Args:
        folder: a checkpoint folder, or an experiment's (see `checkpoint.resolve`).
        calibration: replaces one that is there.
        about: how it was found: lists, counts, errors, … ; plain values.

    Returns:
        The file written.

    Raises:
        CheckpointError: no checkpoint is there.
    """
    from wesep_py import checkpoint

    path = checkpoint.resolve(folder) / PROVENANCE
    provenance = read_json(path, "a checkpoint's provenance", "get a whole copy of it", CheckpointError).values
    clash = sorted({*(about or {})} & {field.name for field in fields(Calibration)})
    if clash:
        raise InputError(f"about: holds {clash[0]}, which the calibration itself says")
    write_json(path, {**provenance, KEY: {**asdict(calibration), **(about or {})}})
    return path


def _log_mean_sigmoid(x: NDArray[np.float64]) -> float:
    """`log(mean(sigmoid(x)))`."""
    logs = -np.logaddexp(0.0, -x)
    highest = float(logs.max())
    return highest + float(np.log(np.mean(np.exp(logs - highest))))
