"""What networks hear: high-pass, short-time Fourier transform, Kaldi-compatible filterbank, WeSep's, SpecAugment."""

from __future__ import annotations

from wesep_py.features.filterbank import KaldiFilterbank, SpecAugment, WesepMel
from wesep_py.features.high_pass import CausalHighPass, HighPass
from wesep_py.features.stft import STFT

__all__ = ["STFT", "CausalHighPass", "HighPass", "KaldiFilterbank", "SpecAugment", "WesepMel"]
