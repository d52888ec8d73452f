"""The extracted voice, and how it is saved."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from wesep_py import audio
from wesep_py.audio.writer import takes
from wesep_py.files import together
from wesep_py.inference.presence import Presence
from wesep_py.inference.rest import UNBOUNDED, split

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
        if writer.subtype not in UNBOUNDED:
            voice = voice / max(1.0, peak)
        voice, other, altered = split(np.atleast_2d(mixture), voice, writer.subtype)
        if altered:
            log.warning("%s: %d samples gave way to keep the rest within full scale", path, altered)
        with together():
            audio.write(rest, other, self.sample_rate, self._subtype_for(rest), overwrite)
            audio.write(path, voice, self.sample_rate, self._subtype_for(path), overwrite)

    def _checked_writer(self, path: str | PathLike[str], overwrite: bool) -> audio.AudioWriter:
        """What will write the voice; a voice that has to be scaled down for it is said."""
        num_channels = len(np.atleast_2d(self.waveform))
        writer = audio.AudioWriter(
            path, self.sample_rate, num_channels, self._subtype_for(path), overwrite, self.waveform.shape[-1]
        )
        peak = float(np.abs(self.waveform).max(initial=0.0))
        if peak > 1.0 and writer.subtype not in UNBOUNDED:
            log.warning("%s: the voice peaks at %.2f; scaled down to full scale", path, peak)
        return writer

    def _subtype_for(self, path: str | PathLike[str]) -> str | None:
        return subtype_for(path, self.file_format, self.subtype)


def subtype_for(path: str | PathLike[str], file_format: str | None, subtype: str | None) -> str | None:
    """The sample format for a file: the recording's, if its suffix stands for the recording's container."""
    containers = _CONTAINERS.get(Path(path).suffix.lower(), ())
    return subtype if subtype is not None and file_format in containers and takes(path, subtype) else None
