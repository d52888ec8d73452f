"""The extracted voice, and how it is saved."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from wesep_py import audio

log = logging.getLogger(__name__)

# Sample formats that hold values beyond full scale.
_FLOATING = ("FLOAT", "DOUBLE")
# Container of each suffix whose sample format can be chosen; the others have one each.
_CONTAINERS = {".wav": ("WAV", "WAVEX"), ".flac": ("FLAC",)}


@dataclass(frozen=True)
class Result:
    """One voice extracted from a recording.

    Attributes:
        waveform: float32; [channels, samples] for a file, of the array's shape for an array.
        sample_rate: of the recording, in Hz.
        presence: probability (0 to 1) that the voice is in the recording; None if the model does not say.
        subtype: sample format of the recording's file, kept by `save`; None for arrays.
        file_format: its container.
    """

    waveform: np.ndarray
    sample_rate: int
    presence: float | None = None
    file_format: str | None = None
    subtype: str | None = None

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> Path:
        """Write the voice to a file, in the sample format of the recording where the container is the same.

        A waveform beyond full scale is scaled to it where the format cannot hold more (said by a warning).

        Args:
            path: the suffix chooses the container: wav, flac, ogg, opus, mp3.
            overwrite: replace an existing file.

        Returns:
            The path written.

        Raises:
            OutputExistsError: `path` exists and `overwrite` is false.
            InputError: its folder does not exist, or the suffix is unknown.
            WesepError: the disk is full.
        """
        peak = float(np.abs(self.waveform).max(initial=0.0))
        subtype = self._subtype_for(path)
        if peak > 1.0 and subtype not in _FLOATING:
            log.warning("%s: the voice peaks at %.2f; scaled down to full scale", path, peak)
        audio.write(path, self.waveform, self.sample_rate, subtype, overwrite, clip="scale")
        return Path(path)

    def _subtype_for(self, path: str | PathLike[str]) -> str | None:
        """The recording's sample format, if a file with this suffix has the recording's container."""
        containers = _CONTAINERS.get(Path(path).suffix.lower(), ())
        return self.subtype if self.file_format in containers else None
