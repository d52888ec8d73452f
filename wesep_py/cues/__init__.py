"""How an enrollment steers a network: fusion operators, and the cues that use them."""

from wesep_py.cues.band_attention import BandAttentionCue
from wesep_py.cues.base import Cue, Enrollment, Prepared, Recording, cues
from wesep_py.cues.context import ContextCue
from wesep_py.cues.embedding import EmbeddingCue
from wesep_py.cues.fusion import Fusion, FusionPoints, fusions
from wesep_py.cues.listen_first import ListenFirstCue
from wesep_py.cues.tf_map import TFMapCue
from wesep_py.cues.usef import USEFCue

__all__ = [
    "BandAttentionCue",
    "ContextCue",
    "Cue",
    "EmbeddingCue",
    "Enrollment",
    "Fusion",
    "FusionPoints",
    "ListenFirstCue",
    "Prepared",
    "Recording",
    "TFMapCue",
    "USEFCue",
    "cues",
    "fusions",
]
