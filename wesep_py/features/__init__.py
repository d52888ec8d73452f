"""What networks hear: high-pass, short-time Fourier transform, Kaldi-compatible filterbank, WeSep's, SpecAugment."""

from __future__ import annotations

from wesep_py.features.fbank import KaldiFilterbank
from wesep_py.features.high_pass import CausalHighPass, HighPass
from wesep_py.features.spec_augment import SpecAugment
from wesep_py.features.stft import STFT
from wesep_py.features.wesep_mel import WesepMel

__all__ = ["STFT", "CausalHighPass", "HighPass", "KaldiFilterbank", "SpecAugment", "WesepMel"]
