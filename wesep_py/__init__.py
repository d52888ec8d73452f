"""Target speaker extraction: one person's voice out of a recording in which people talk over each other.

>>> import numpy as np
>>> import wesep_py
>>> extractor = wesep_py.load()                       # the bundled model; or a name, or a checkpoint folder
>>> alice, meeting = np.sin(0.1 * np.arange(32000)), np.sin(0.2 * np.arange(32000))
>>> voice = extractor.enroll((alice, 16000))          # or files: enroll("alice1.wav", "alice2.wav")
>>> extractor.extract((meeting, 16000), voice).waveform.shape   # or a file: extract("meeting.wav", voice)
(32000,)

| name | use |
| --- | --- |
| `load`, `Extractor`, `Voice`, `Result` | extract a voice (`wesep_py.inference`) |
| `Simulator` | draw and render mixtures (`wesep_py.simulation`) |
| `train` | train a model (`wesep_py.training`) |
| `read_trials`, `evaluate`, `si_sdr` | evaluate a model (`wesep_py.data`, `wesep_py.evaluation`, `wesep_py.metrics`) |
| `WesepError` | base class of all errors that a user can cause (`wesep_py.common.errors`) |

The packages, from the lowest to the highest: `common` (errors, configuration, files), `audio`, `features`, `metrics`,
`checkpoint`, `network` (backbones, cues, speaker encoders), `data`, `models` (bundled weights), `interop`,
`simulation`, `inference`, `evaluation`, `runtime` (exported models without torch), `integrations` (Pipecat, LiveKit),
`training`, `export` (ONNX, TorchScript), `cli`.

Importing the package loads neither torch nor numpy: a name loads what it needs when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wesep_py.common.lazy_names import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wesep_py.common.errors import WesepError
    from wesep_py.data import read_trials
    from wesep_py.evaluation import evaluate
    from wesep_py.inference import Extractor, Result, Voice, load
    from wesep_py.metrics import si_sdr
    from wesep_py.simulation import Simulator
    from wesep_py.training import train

_PACKAGE_OF = {
    "Extractor": "inference",
    "Result": "inference",
    "Simulator": "simulation",
    "Voice": "inference",
    "WesepError": "common.errors",
    "evaluate": "evaluation",
    "load": "inference",
    "read_trials": "data",
    "si_sdr": "metrics",
    "train": "training",
}

__all__ = [
    "Extractor",
    "Result",
    "Simulator",
    "Voice",
    "WesepError",
    "__version__",
    "evaluate",
    "load",
    "read_trials",
    "si_sdr",
    "train",
]

__getattr__, __dir__ = lazy_names(__name__, _PACKAGE_OF, __all__)
