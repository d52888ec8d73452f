"""How an enrollment steers a network: fusion operators, and the cues that use them."""

from wesep_py.cues.base import Cue, Enrollment, Prepared, cues
from wesep_py.cues.embedding import EmbeddingCue
from wesep_py.cues.fusion import Fusion, FusionPoints, fusions
from wesep_py.cues.tf_map import TFMapCue

__all__ = [
    "Cue",
    "EmbeddingCue",
    "Enrollment",
    "Fusion",
    "FusionPoints",
    "Prepared",
    "TFMapCue",
    "cues",
    "fusions",
]
