"""What training minimises. `losses` lists the names that a configuration can use."""

from __future__ import annotations

from wesep_py.losses.base import Loss, losses
from wesep_py.losses.si_sdr import SISDR

__all__ = ["SISDR", "Loss", "losses"]
