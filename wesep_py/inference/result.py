"""The result of an extraction: the level of the voice, and saving it to a file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from wesep_py import audio
from wesep_py.common.files import write_together
from wesep_py.inference.inputs_outputs.inputs import Recording
from wesep_py.inference.inputs_outputs.output_files import FLOAT_SUBTYPES, split_mixture, subtype_for
from wesep_py.inference.long_recordings.blocks import is_constant
from wesep_py.inference.presence_decision.presence import Calibration, Presence, presence_of_channels

log = logging.getLogger(__name__)
Level = Literal["fitted", "learned", "kept"]
Verify = Callable[[Presence, np.ndarray, np.ndarray], Presence]
"""Function of the output of a presence head, the estimate at its level and the mixture, `[channels, samples]` each."""
MAX_CORRECTION_DB = 6.0
"""Largest correction of a level that the network learned; such a network makes a voice quieter if it is not sure."""

# The level. Networks trained with scale-invariant losses return a voice at any level, and maybe inverted. With mixture
# m and estimate e, ‖m − g·e‖² is minimal for the gain g at which its derivative −2 ⟨m − g·e, e⟩ is 0:
#
#   g = ⟨e, m⟩ / ⟨e, e⟩           m
#                                ╱|
#                               ╱ |  m − g·e, orthogonal to e: everything else in the mixture
#                              ╱__|____ e
#                               g·e
#
# This is the exact level if the estimate is the voice and everything else in the mixture is uncorrelated with it. If
# the voice is absent, though, the estimate is a leftover of the others, and g amplifies it as far as it fits the
# mixture. So the level of a network that learned it is corrected by `MAX_CORRECTION_DB` at most.


def level_gain(estimate: np.ndarray, mixture: np.ndarray, level: Level = "fitted") -> float:
    """Return the gain that brings an estimate to the level and polarity that its voice has in the mixture.

    Args:
        estimate: [channels, samples], at any level.
        mixture: [channels, samples].
        level: as `level_gain_from_sums`.

    Returns:
        The linear gain, one for all channels, which keeps their differences; 0 for a silent estimate.

    >>> voice = np.array([[1.0, -1.0, 1.0, -1.0]])
    >>> level_gain(-4 * voice, voice + [[1.0, 1.0, -1.0, -1.0]])
    -0.25
    """
    estimate = estimate.astype(np.float64)
    return level_gain_from_sums(float((estimate * mixture).sum()), float((estimate**2).sum()), estimate.size, level)


def level_gain_from_sums(product: float, energy: float, size: int, level: Level = "fitted") -> float:
    """Return the gain of `level_gain` from sums over a recording that is not in memory.

    Args:
        product: `<estimate, mixture>` over all channels.
        energy: `<estimate, estimate>`.
        size: number of samples of all channels.
        level: `fitted` is the least-squares gain; `learned` the same, limited to `MAX_CORRECTION_DB` up or down
            (`ModelConfig.level`); `kept` is 1, for networks that are used as they are, and for a live network, which
            does not know the samples to come.

    Returns:
        The linear gain; 0 for a silent estimate.
    """
    if level == "kept":
        return 1.0
    if energy <= np.finfo(np.float32).tiny * size:
        return 0.0
    gain, max_gain = product / energy, 10 ** (MAX_CORRECTION_DB / 20)
    return gain if level == "fitted" else min(max(gain, 1 / max_gain), max_gain)


@dataclass(frozen=True)
class Result:
    """One voice extracted from a recording.

    Attributes:
        waveform: float32; [channels, samples] for a file, of the array's shape for an array.
        sample_rate: of the recording, in Hz.
        presence: probability (0 to 1) that the voice is in the recording, by the verifier if there is one, else by the
            presence head; None if the model has no presence head.
        file_format: container of the recording's file; None for arrays.
        subtype: its sample format, kept by `save`; None for arrays.
        detection: output of the presence head, overall and over time; None without one.
        pictures_of: the recording, if it is a video; a video saved gets its pictures.
        repaired: true if the first extraction seemed to hold the wrong voice, and this is the repair
            (`wesep_py.inference.presence_decision.repair`).

    >>> import numpy as np
    >>> Result(np.zeros(16000, np.float32), 16000).waveform.shape
    (16000,)
    """

    waveform: np.ndarray
    sample_rate: int
    presence: float | None = None
    file_format: str | None = None
    subtype: str | None = None
    detection: Presence | None = None
    pictures_of: str | None = None
    repaired: bool = False

    def silenced(self) -> Result:
        """Return the same result with silence in place of the voice."""
        return replace(self, waveform=np.zeros_like(self.waveform))

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> Path:
        """Write the voice to a file, in the sample format of the recording if the container is the same.

        A waveform beyond full scale is scaled down to it, with a warning, if the format cannot hold more.

        Args:
            path: the suffix chooses the container: wav, w64, rf64, flac, ogg, opus, mp3; with PyAV also m4a, mp4, mov,
                mkv and webm. If the recording is a video, mp4, mov, mkv and webm get its pictures.
            overwrite: replace an existing file.

        Returns:
            The path written.

        Raises:
            OutputExistsError: `path` exists and `overwrite` is false.
            InputError: its folder does not exist, or the suffix is unknown.
            WesepError: the disk is full.
        """
        self._checked_writer(path, overwrite)
        subtype = self._subtype_for(path)
        audio.write(path, self.waveform, self.sample_rate, subtype, overwrite, "scale", self.pictures_of)
        return Path(path)

    def save_with_residual(
        self,
        path: str | PathLike[str],
        residual: str | PathLike[str],
        mixture: np.ndarray,
        overwrite: bool = False,
    ) -> None:
        """Write the voice, and the mixture without it: as written, the two sum to the mixture.

        Both files appear, or neither.

        Args:
            path: file for the voice, as `save`.
            residual: file for the residual, with the same suffix.
            mixture: of the shape of `waveform`.
            overwrite: replace existing files.

        Raises:
            as `save`.
        """
        writer = self._checked_writer(path, overwrite)
        voice, peak = np.atleast_2d(self.waveform), float(np.abs(self.waveform).max(initial=0.0))
        if writer.subtype not in FLOAT_SUBTYPES:
            voice = voice / max(1.0, peak)
        voice, remaining, changed = split_mixture(np.atleast_2d(mixture), voice, writer.subtype)
        if changed:
            log.warning("%s: %d samples were changed to keep the residual within full scale", path, changed)
        with write_together():
            for file, waveform in ((residual, remaining), (path, voice)):
                subtype = self._subtype_for(file)
                audio.write(file, waveform, self.sample_rate, subtype, overwrite, pictures_of=self.pictures_of)

    def _checked_writer(self, path: str | PathLike[str], overwrite: bool) -> audio.AudioWriter:
        """Return the writer of the voice; warn if the voice has to be scaled down for it."""
        num_channels = len(np.atleast_2d(self.waveform))
        writer = audio.AudioWriter(
            path,
            self.sample_rate,
            num_channels,
            self._subtype_for(path),
            overwrite,
            self.waveform.shape[-1],
            self.pictures_of,
        )
        peak = float(np.abs(self.waveform).max(initial=0.0))
        if peak > 1.0 and writer.subtype not in FLOAT_SUBTYPES:
            log.warning("%s: the voice peaks at %.2f; scaled down to full scale", path, peak)
        return writer

    def _subtype_for(self, path: str | PathLike[str]) -> str | None:
        return subtype_for(path, self.file_format, self.subtype)


def make_result(
    recording: Recording,
    model_rate: int,
    estimate: np.ndarray,
    logits: np.ndarray | None,
    frame_s: float,
    level: Level,
    calibration: Calibration,
    verify: Verify | None = None,
) -> Result:
    """Return the result of a network for a recording: at its level, rate, length and shape, with the presence.

    Args:
        recording: the mixture.
        model_rate: sample rate of the network in Hz.
        estimate: `[channels, samples]` at that rate.
        logits: `[channels, frames]` of the presence head; `None` without one.
        frame_s: seconds from one frame to the next.
        level: as `level_gain_from_sums`.
        calibration: of the presence head.
        verify: completes the output of the presence head by the decision of a verifier; `None` without one.
    """
    samples = recording.at_rate(model_rate)
    detection = None
    if logits is not None:
        # A silent channel does not count, unless all are silent.
        channels = [i for i, channel in enumerate(samples) if not is_constant(channel)] or list(range(len(samples)))
        detection = presence_of_channels([logits[i] for i in channels], frame_s, calibration, channels)
    estimate = estimate * np.float32(level_gain(estimate, samples, level))
    if detection is not None and verify is not None:
        detection = verify(detection, estimate, samples)
    # Resampling there and back may differ by a sample.
    estimate = audio.resample(estimate, model_rate, recording.sample_rate)
    waveform = np.zeros(recording.waveform.shape, dtype=np.float32)
    length = min(estimate.shape[1], recording.num_samples)
    waveform[:, :length] = estimate[:, :length]
    return Result(
        waveform[0] if recording.mono_array else waveform,
        recording.sample_rate,
        None if detection is None else detection.probability,
        file_format=recording.file_format,
        subtype=recording.subtype,
        detection=detection,
        pictures_of=recording.pictures_of,
    )
