"""How an enrollment steers a network: fusion operators, and the cues that use them."""

from wesep_py.network.cues.cue import Cue, Enrollment, PreparedEnrollment, SignalFeatures, cues
from wesep_py.network.cues.embedding import ContextCue, EmbeddingCue
from wesep_py.network.cues.fusion import Fusion, FusionPoints, fusions
from wesep_py.network.cues.listen_first import ListenFirstCue
from wesep_py.network.cues.tf_map import BandAttentionCue, TFMapCue
from wesep_py.network.cues.usef import USEFCue

__all__ = [
    "BandAttentionCue",
    "ContextCue",
    "Cue",
    "EmbeddingCue",
    "Enrollment",
    "Fusion",
    "FusionPoints",
    "ListenFirstCue",
    "PreparedEnrollment",
    "SignalFeatures",
    "TFMapCue",
    "USEFCue",
    "cues",
    "fusions",
]
