"""Input features of networks, as torch modules. Training, evaluation and extraction compute them with the same code.

| module | contents |
| --- | --- |
| `high_pass` | `HighPass` for whole recordings, `CausalHighPass` for streaming |
| `array_high_pass` | the design of `HighPass`, and the same filter in NumPy |
| `level_tracker` | `LevelTracker`: causal level of a waveform |
| `stft` | `STFT`: short-time Fourier transform and its inverse |
| `complex_pair` | `ComplexPair`: a complex tensor as two real ones, for exported graphs |
| `filterbank` | `KaldiFilterbank`, `WesepMel`, `SlaneyMel`: mel features; `SpecAugment` |

Names are imported when they are first used: `array_high_pass` needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wesep_py.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from wesep_py.features.complex_pair import ComplexPair, apply_mask
    from wesep_py.features.filterbank import KaldiFilterbank, SlaneyMel, SpecAugment, WesepMel
    from wesep_py.features.high_pass import CausalHighPass, HighPass
    from wesep_py.features.level_tracker import LevelTracker
    from wesep_py.features.stft import STFT

_MODULE_OF = {
    "STFT": "stft",
    "CausalHighPass": "high_pass",
    "ComplexPair": "complex_pair",
    "HighPass": "high_pass",
    "KaldiFilterbank": "filterbank",
    "LevelTracker": "level_tracker",
    "SlaneyMel": "filterbank",
    "SpecAugment": "filterbank",
    "WesepMel": "filterbank",
    "apply_mask": "complex_pair",
}

__all__ = [
    "STFT",
    "CausalHighPass",
    "ComplexPair",
    "HighPass",
    "KaldiFilterbank",
    "LevelTracker",
    "SlaneyMel",
    "SpecAugment",
    "WesepMel",
    "apply_mask",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF, __all__)
