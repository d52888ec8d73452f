"""Input features of networks, as torch modules. Training, evaluation and extraction compute them with the same code.

| module | contents |
| --- | --- |
| `high_pass` | `HighPass` for whole recordings, `CausalHighPass` for streaming |
| `level_tracker` | `LevelTracker`: causal level of a waveform |
| `stft` | `STFT`: short-time Fourier transform and its inverse |
| `complex_pair` | `ComplexPair`: a complex tensor as two real ones, for exported graphs |
| `filterbank` | `KaldiFilterbank` and `WesepMel`: log-mel features; `SpecAugment` |
"""

from __future__ import annotations

from wesep_py.features.complex_pair import ComplexPair, apply_mask
from wesep_py.features.filterbank import KaldiFilterbank, SpecAugment, WesepMel
from wesep_py.features.high_pass import CausalHighPass, HighPass
from wesep_py.features.level_tracker import LevelTracker
from wesep_py.features.stft import STFT

__all__ = [
    "STFT",
    "CausalHighPass",
    "ComplexPair",
    "HighPass",
    "KaldiFilterbank",
    "LevelTracker",
    "SpecAugment",
    "WesepMel",
    "apply_mask",
]
