"""Cues: how an enrollment steers the network.

A cue acts at one of three stages of the network's path: on the waveform, on the features (the input of the backbone's
encoder) or on the latent, at the backbone's fusion points.

| module | contents |
| --- | --- |
| `cue` | base class `Cue`, the `SignalFeatures` it is given, the registry `cues`, shared attention |
| `input_cues` | before the encoder: `ListenFirstCue`, `TFMapCue`, `USEFCue` |
| `latent_cues` | inside the backbone: `EmbeddingCue`, `ContextCue`, `BandAttentionCue` |
| `own_cues` | the backbone itself runs over the enrollment: `OwnStatesCue`, `OwnFramesCue` |
| `fusion` | fusion operators `concat`, `add`, `multiply`, `film`, `scale`, `affine`, and fusion points |
"""

from wesep_py.network.cues.cue import NEGATIVE, Cue, PreparedEnrollment, SignalFeatures, cues
from wesep_py.network.cues.fusion import Fusion, FusionPoints, fusions
from wesep_py.network.cues.input_cues import ListenFirstCue, TFMapCue, USEFCue
from wesep_py.network.cues.latent_cues import BandAttentionCue, ContextCue, EmbeddingCue
from wesep_py.network.cues.own_cues import OwnFramesCue, OwnStatesCue

__all__ = [
    "NEGATIVE",
    "BandAttentionCue",
    "ContextCue",
    "Cue",
    "EmbeddingCue",
    "Fusion",
    "FusionPoints",
    "ListenFirstCue",
    "OwnFramesCue",
    "OwnStatesCue",
    "PreparedEnrollment",
    "SignalFeatures",
    "TFMapCue",
    "USEFCue",
    "cues",
    "fusions",
]
