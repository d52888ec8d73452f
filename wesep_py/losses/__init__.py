"""What training minimises. `losses` lists the names that a configuration can use."""

from __future__ import annotations

from wesep_py.losses.base import Loss, losses
from wesep_py.losses.si_sdr import SISDR
from wesep_py.losses.speaker_cross_entropy import SpeakerCrossEntropy

__all__ = ["SISDR", "Loss", "SpeakerCrossEntropy", "losses"]
