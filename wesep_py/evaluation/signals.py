"""The waveforms of a trial whose audio was made elsewhere: some of them may not be known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GivenAudio:
    """As `simulation.TrialAudio`, but none of it has to be there.

    Attributes:
        reference: `[samples]`, the target alone; `None` if it is not known.
        mixture: `[samples]`; `None` if it is not known.
        interferers: `[sources, samples]`; `None` if they are not known.
        enrollment: `[samples of its own]`; `None` if it is not known.
        sample_rate: in Hz.
    """

    reference: np.ndarray | None
    mixture: np.ndarray | None
    interferers: np.ndarray | None
    enrollment: np.ndarray | None
    sample_rate: int
