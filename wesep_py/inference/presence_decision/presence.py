"""Presence: the probability that the enrolled voice is in a recording, pooled from frames and calibrated.

```
logits of frames ─► pool_logits: one score per recording ─► Calibration ─► probability ─► present, or absent
                                                        └─► Calibration.track: probability of each frame
```

A `presence_verifier` may replace the probability of the recording by one that a speaker encoder has a part in.

A calibration is stored in the checkpoint (`read_calibration`, `save_calibration`); `wesep calibrate` fits it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wesep_py.common.errors import CheckpointError, InputError, quoted, shorten
from wesep_py.common.files import write_json
from wesep_py.common.textfiles import read_json

PRESENCE_S = 0.5
"""A voice counts as present if it speaks for this long anywhere in the recording."""
REFERENCE_S = 4.0
"""Duration of a recording at which the length correction of a calibration is 0."""
PROVENANCE_KEY, LIVE_PROVENANCE_KEY = "presence", "live_presence"
"""Key of the calibration in a checkpoint's provenance."""
SILENT_LOGIT = -80.0
"""Logit of a frame of digital silence, in which nobody speaks."""


@dataclass(frozen=True)
class Calibration:
    """Map from the scores of a presence head to probabilities, and the threshold from which on a voice is present.

    It is stored in a checkpoint's `provenance.json` under `presence`, which is not part of the model's hash: voice
    prints remain valid after a new calibration.

    Attributes:
        scale, offset: of a recording's score after its length correction:
            probability = sigmoid(scale · (score − growth · log2(duration / 4 s)) + offset) (Platt, 1999).
        threshold: lowest probability at which the voice counts as present, 0 to 1.
        frame_scale, frame_offset: the same for the logit of a frame.
        growth: length correction: by how much the score of an absent voice is higher in a recording of twice the
            duration. The score is that of the highest half second, and the maximum of more half seconds is higher.

    Raises:
        ValueError: a scale that is not positive, a threshold outside 0 to 1, a value that is not finite.

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
        """Return the probability that the voice is in a recording of that score and duration in seconds."""
        return float(self.probabilities(score, duration_s))

    def probabilities(self, scores: ArrayLike, durations_s: ArrayLike) -> Any:
        """Return `probability` for arrays of scores and durations."""
        return sigmoid(
            self.scale * (np.asarray(scores, dtype=np.float64) - self.length_correction(durations_s)) + self.offset
        )

    def length_correction(self, durations_s: ArrayLike) -> Any:
        """Return how much the durations of recordings, in seconds, raise their scores.

        >>> float(Calibration(growth=0.5).length_correction(16.0))
        1.0
        """
        return self.growth * np.log2(np.asarray(durations_s, dtype=np.float64) / REFERENCE_S)

    def track(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return the probability that the voice speaks in each frame, from the logits of the frames."""
        return sigmoid(self.frame_scale * np.asarray(logits, dtype=np.float64) + self.frame_offset)


UNCALIBRATED = Calibration()
"""Default of a checkpoint without a calibration: the head's own probabilities, and a threshold of 0.5."""


@dataclass(frozen=True)
class Verification:
    """The decision of a `presence_verifier` about a voice in a recording.

    Attributes:
        encoder: name of the speaker encoder.
        evidence: what it is made of, by name (`presence_verifier.EVIDENCE`).
        probability: that the voice is in the recording, 0 to 1; `None` where the model is not calibrated for the
            encoder, so that the presence head decides.
        threshold: lowest probability at which it counts as present; `None` likewise.
    """

    encoder: str
    evidence: dict[str, float]
    probability: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Presence:
    """Output of a presence head for a voice in a recording, and of a verifier if there is one.

    Attributes:
        score: of the recording, a logit before calibration.
        logits: of the frames `[frames]`, before calibration.
        frame_s: seconds from one frame to the next.
        calibration: maps score and logits to probabilities.
        channel: number of the channel, from 0, that score and logits are of.
        verification: decision of a verifier; `None` without one.
    """

    score: float
    logits: NDArray[np.float32]
    frame_s: float
    calibration: Calibration = UNCALIBRATED
    channel: int = 0
    verification: Verification | None = None

    @property
    def duration_s(self) -> float:
        """Duration of the recording in seconds, in whole frames."""
        return len(self.logits) * self.frame_s

    @property
    def head_probability(self) -> float:
        """Probability by the presence head alone that the voice is in the recording, 0 to 1."""
        return self.calibration.probability(self.score, self.duration_s)

    @property
    def probability(self) -> float:
        """Probability that the voice is in the recording, 0 to 1: the verifier's, or else the presence head's."""
        verified = None if self.verification is None else self.verification.probability
        return self.head_probability if verified is None else verified

    @property
    def threshold(self) -> float:
        """Lowest probability at which the voice counts as present."""
        verified = None if self.verification is None else self.verification.threshold
        return self.calibration.threshold if verified is None else verified

    @property
    def is_present(self) -> bool:
        """True if the probability reaches the threshold."""
        return self.probability >= self.threshold

    @property
    def track(self) -> NDArray[np.float64]:
        """Probability `[frames]` that the voice speaks in each frame."""
        return self.calibration.track(self.logits)


def presence_of_channels(
    logits: Sequence[NDArray[np.float32]],
    frame_s: float,
    calibration: Calibration = UNCALIBRATED,
    channels: Sequence[int] | None = None,
) -> Presence | None:
    """Return the presence in the channel with the highest score; `None` without any logits.

    Args:
        logits: `[frames]` of each channel.
        frame_s: seconds from one frame to the next.
        calibration: of the model.
        channels: number of each of these channels in the recording; `None`: from 0 on.
    """
    if not len(logits):
        return None
    scores = [pool_logits(channel, frame_s) for channel in logits]
    best = int(np.argmax(scores))
    channel = best if channels is None else channels[best]
    return Presence(scores[best], logits[best], frame_s, calibration, channel)


def pool_logits(logits: ArrayLike, frame_s: float, seconds: float = PRESENCE_S) -> float:
    """Return a recording's score: the logit of the mean probability of the frames with the highest logits.

    Args:
        logits: `[frames]`.
        frame_s: seconds from one frame to the next.
        seconds: duration of the frames that count, anywhere in the recording.

    >>> round(pool_logits([-9.0, 0.5, 0.5], frame_s=0.25), 3)
    0.5
    """
    # Frames of half a second, not one: a single frame may be wrong. Not all frames: a voice that speaks for a second in
    # an hour is present. With p = mean(sigmoid(x)) over these frames, the score is
    #
    #   logit(p) = log p − log(1 − p) = log mean sigmoid(x) − log mean sigmoid(−x),
    #
    # from logarithms, because p rounds to 1 in float64 from logits of about 37 on.
    values = np.asarray(logits, dtype=np.float64)
    count = min(len(values), max(1, round(seconds / frame_s)))
    highest = np.partition(values, len(values) - count)[len(values) - count :]
    return float(_log_mean_sigmoid(highest) - _log_mean_sigmoid(-highest))


def sigmoid(x: ArrayLike) -> Any:
    """Return `1 / (1 + exp(-x))` in float64, without overflow."""
    x = np.asarray(x, dtype=np.float64)
    return np.exp(-np.logaddexp(0.0, -x))


def read_calibration(
    provenance: Mapping[str, Any], where: str = "provenance", live: bool = False
) -> Calibration | None:
    """Return the calibration in a checkpoint's provenance; `None` if there is none.

    Args:
        provenance: content of `provenance.json`.
        where: for messages.
        live: read that of the live mode's head.

    Raises:
        CheckpointError: it is damaged.
    """
    stored = provenance.get(LIVE_PROVENANCE_KEY if live else PROVENANCE_KEY)
    if stored is None:
        return None
    names = {field.name for field in fields(Calibration)}
    try:
        return Calibration(**{name: value for name, value in stored.items() if name in names})
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        reason = shorten(error)
        raise CheckpointError(f"{where}: its presence calibration is damaged ({reason}); calibrate again") from error


def save_calibration(
    folder: str | Path, calibration: Calibration, about: Mapping[str, Any] | None = None, live: bool = False
) -> Path:
    """Write a calibration into a checkpoint, whose hash does not change.

    Args:
        folder: a checkpoint folder, or an experiment folder (see `checkpoint.resolve`).
        calibration: replaces an existing one.
        about: how it was fitted: lists, counts, errors, … ; plain values.
        live: whether it is of the live mode's head.

    Returns:
        The file written.

    Raises:
        CheckpointError: there is no checkpoint.
        InputError: it is on the Hugging Face Hub (`hf:ORG/NAME`).
    """
    from wesep_py import checkpoint
    from wesep_py.models.hub import refuse_hub_name

    refuse_hub_name(folder, "calibrating")
    path = checkpoint.resolve(folder) / checkpoint.PROVENANCE
    provenance = read_json(path, "a checkpoint's provenance", "get a whole copy of it", CheckpointError).values
    clash = sorted({*(about or {})} & {field.name for field in fields(Calibration)})
    if clash:
        raise InputError(f"about: has the key {clash[0]}, which is one of the calibration; choose another")
    key = LIVE_PROVENANCE_KEY if live else PROVENANCE_KEY
    write_json(path, {**provenance, key: {**asdict(calibration), **(about or {})}})
    return path


def _log_mean_sigmoid(x: NDArray[np.float64]) -> float:
    """Return `log(mean(sigmoid(x)))`."""
    logs = -np.logaddexp(0.0, -x)
    highest = float(logs.max())
    return highest + float(np.log(np.mean(np.exp(logs - highest))))
