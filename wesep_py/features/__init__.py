"""What networks hear: short-time Fourier transform, Kaldi-compatible filterbank, SpecAugment."""

from __future__ import annotations

from wesep_py.features.fbank import KaldiFilterbank
from wesep_py.features.spec_augment import SpecAugment
from wesep_py.features.stft import STFT

__all__ = ["STFT", "KaldiFilterbank", "SpecAugment"]
