"""The extracted voice, and how it is saved."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.writing import takes
from wesep_py.common.files import write_together
from wesep_py.inference.presence import Presence

# ----------------------------------------
# The level that the extracted voice has in the mixture.

Level = Literal["fitted", "learned"]
MAX_CORRECTION_DB = 6.0
"""A level that the network learned is corrected by this much at most: unsure of a voice, it makes it quieter."""


def level_gain(estimate: np.ndarray, mixture: np.ndarray, level: Level = "fitted") -> float:
    """The gain that brings an estimate to the level (and polarity) its voice has in the mixture.

    Args:
        estimate: [channels, samples], any level.
        mixture: [channels, samples].
        level: as `gain_of_sums`.

    Returns:
        The linear gain; 0 for a silent estimate. One gain for all channels keeps their differences.

    >>> voice = np.array([[1.0, -1.0, 1.0, -1.0]])
    >>> gain_onto(-4 * voice, voice + [[1.0, 1.0, -1.0, -1.0]])
    -0.25
    """
    estimate = estimate.astype(np.float64)
    return level_gain_from_sums(float((estimate * mixture).sum()), float((estimate**2).sum()), estimate.size, level)


def level_gain_from_sums(product: float, energy: float, size: int, level: Level = "fitted") -> float:
    """The same, of what was summed over a recording that is not held.

    Networks trained on scale-invariant losses return a voice at any level, even turned around. The least-squares gain
    `<estimate, mixture> / <estimate, estimate>` minimises `||mixture - gain * estimate||`: it is the exact level where
    the estimate is the voice and the rest of the mixture does not correlate with it. Of a voice that is not there it
    makes as much as it can of what little is left; a network that learned the level is trusted as far as `TRUSTED_DB`.

    Args:
        product: `<estimate, mixture>` over all channels.
        energy: `<estimate, estimate>`.
        size: samples of all channels.
        level: `fitted` is that gain; `learned` the same, but of `TRUSTED_DB` at most (`ModelConfig.level`).

    Returns:
        The linear gain; 0 for a silent estimate.
    """
    if energy <= np.finfo(np.float32).tiny * size:
        return 0.0
    gain, most = product / energy, 10 ** (MAX_CORRECTION_DB / 20)
    return gain if level == "fitted" else min(max(gain, 1 / most), most)


# ----------------------------------------
# The rest of a mixture beside an extracted voice: as they are written, the two sum to the mixture.

_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
"""Sample formats that hold values beyond full scale."""


def split_mixture(
    mixture: NDArray[np.float32], voice: NDArray[np.float32], subtype: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """A voice as its file will hold it, and what of the mixture is left.

    In integer formats the voice is rounded to their steps first, so that the rest of a mixture of the same format is
    exact. Where the rest would pass full scale (which a mixture at full scale makes possible), the voice gives way for
    these samples; floats hold any value.

    Args:
        mixture: `[channels, samples]`.
        voice: of the same shape, in formats with a full scale within it.
        subtype: libsndfile's name of the sample format of both files.

    Returns:
        voice, rest: `[channels, samples]`.
        altered: how many samples gave way.

    >>> voice, rest, altered = split(np.array([[0.5, -1.0]]), np.array([[0.25, 0.5]]), "PCM_16")
    >>> (voice + rest).tolist(), altered
    ([[0.5, -1.0]], 1)
    """
    whole, part = mixture.astype(np.float64), voice.astype(np.float64)
    if subtype in FLOAT_SUBTYPES:
        part = part if subtype == "DOUBLE" else voice.astype(np.float32).astype(np.float64)
        return part, whole - part, 0
    lowest, highest = -1.0, 1.0
    if (bits := _BITS.get(subtype)) is not None:
        steps = 2.0 ** (bits - 1)
        highest = 1.0 - 1.0 / steps
        part = np.clip(np.rint(part * steps) / steps, lowest, highest)
    rest = whole - part
    beyond = (rest < lowest) | (rest > highest)
    altered = int(beyond.sum())
    if altered:
        rest = np.clip(rest, lowest, highest)
        part = np.clip(np.where(beyond, whole - rest, part), lowest, highest)
    return part, rest, altered


log = logging.getLogger(__name__)
# Container of each suffix whose sample format can be chosen; the others have one each.
_RIFF = ("WAV", "WAVEX", "RF64", "W64")
_CONTAINERS = {".wav": _RIFF, ".rf64": _RIFF, ".w64": _RIFF, ".flac": ("FLAC",)}


@dataclass(frozen=True)
class Result:
    """One voice extracted from a recording.

    Attributes:
        waveform: float32; [channels, samples] for a file, of the array's shape for an array.
        sample_rate: of the recording, in Hz.
        presence: probability (0 to 1) that the voice is in the recording; None if the model does not say.
        subtype: sample format of the recording's file, kept by `save`; None for arrays.
        file_format: its container.
        detection: what the presence head says, overall and over time; None without one.
    """

    waveform: np.ndarray
    sample_rate: int
    presence: float | None = None
    file_format: str | None = None
    subtype: str | None = None
    detection: Presence | None = None

    def silenced(self) -> Result:
        """The same with silence in the place of the voice."""
        return replace(self, waveform=np.zeros_like(self.waveform))

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> Path:
        """Write the voice to a file, in the sample format of the recording where the container is the same.

        A waveform beyond full scale is scaled to it where the format cannot hold more (said by a warning).

        Args:
            path: the suffix chooses the container: wav, w64, rf64, flac, ogg, opus, mp3.
            overwrite: replace an existing file.

        Returns:
            The path written.

        Raises:
            OutputExistsError: `path` exists and `overwrite` is false.
            InputError: its folder does not exist, or the suffix is unknown.
            WesepError: the disk is full.
        """
        self._checked_writer(path, overwrite)
        audio.write(path, self.waveform, self.sample_rate, self._subtype_for(path), overwrite, clip="scale")
        return Path(path)

    def save_with_rest(
        self,
        path: str | PathLike[str],
        rest: str | PathLike[str],
        mixture: np.ndarray,
        overwrite: bool = False,
    ) -> None:
        """Write the voice, and what is left of the mixture without it: as written, the two sum to the mixture.

        Both files appear, or none.

        Args:
            path: of the voice, as `save`.
            rest: of the rest, with the same suffix.
            mixture: of the shape of `waveform`.
            overwrite: replace existing files.

        Raises:
            as `save`.
        """
        writer = self._checked_writer(path, overwrite)
        voice, peak = np.atleast_2d(self.waveform), float(np.abs(self.waveform).max(initial=0.0))
        if writer.subtype not in FLOAT_SUBTYPES:
            voice = voice / max(1.0, peak)
        voice, other, altered = split_mixture(np.atleast_2d(mixture), voice, writer.subtype)
        if altered:
            log.warning("%s: %d samples gave way to keep the rest within full scale", path, altered)
        with write_together():
            audio.write(rest, other, self.sample_rate, self._subtype_for(rest), overwrite)
            audio.write(path, voice, self.sample_rate, self._subtype_for(path), overwrite)

    def _checked_writer(self, path: str | PathLike[str], overwrite: bool) -> audio.AudioWriter:
        """What will write the voice; a voice that has to be scaled down for it is said."""
        num_channels = len(np.atleast_2d(self.waveform))
        writer = audio.AudioWriter(
            path, self.sample_rate, num_channels, self._subtype_for(path), overwrite, self.waveform.shape[-1]
        )
        peak = float(np.abs(self.waveform).max(initial=0.0))
        if peak > 1.0 and writer.subtype not in FLOAT_SUBTYPES:
            log.warning("%s: the voice peaks at %.2f; scaled down to full scale", path, peak)
        return writer

    def _subtype_for(self, path: str | PathLike[str]) -> str | None:
        return subtype_for(path, self.file_format, self.subtype)


def subtype_for(path: str | PathLike[str], file_format: str | None, subtype: str | None) -> str | None:
    """The sample format for a file: the recording's, if its suffix stands for the recording's container."""
    containers = _CONTAINERS.get(Path(path).suffix.lower(), ())
    return subtype if subtype is not None and file_format in containers and takes(path, subtype) else None
