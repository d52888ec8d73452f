"""Losses that train a speaker encoder.

| module | what is in it |
| --- | --- |
| `speaker_loss` | `SpeakerLoss`, `ClassificationLoss`: base classes; `MarginSchedule`; the registry `speaker_losses` |
| `margins` | softmax, AM, AAM, A-softmax, adaptive margin, SphereFace2 |
| `episodes` | prototypical, angular prototypical, GE2E, triplet |
| `speaker_basis` | between-speaker, hard-negative and centre loss, beside a classification loss |
| `centroids` | cosine distance to the running centroid of the speaker |
| `combined` | `build_speaker_loss`: a weighted sum, as a configuration lists it |
| `permutation_free` | a loss on several voices in unknown order |

`speaker_losses.names()` lists the names that a configuration can use.
"""

from wesep_py.network.speaker.speaker_losses.centroids import RunningCentroidLoss
from wesep_py.network.speaker.speaker_losses.combined import CombinedSpeakerLoss, build_speaker_loss
from wesep_py.network.speaker.speaker_losses.episodes import (
    AngularPrototypicalLoss,
    EpisodeLoss,
    GE2ELoss,
    PrototypicalLoss,
    TripletLoss,
)
from wesep_py.network.speaker.speaker_losses.margins import (
    AAMSoftmax,
    AdaptiveMarginSoftmax,
    AMSoftmax,
    ASoftmax,
    MarginSoftmax,
    Softmax,
    SphereFace2,
)
from wesep_py.network.speaker.speaker_losses.permutation_free import PermutationFreeLoss, PermutationFreeOutput
from wesep_py.network.speaker.speaker_losses.speaker_basis import (
    BasisLoss,
    BetweenSpeakerLoss,
    CentreLoss,
    HardNegativeLoss,
)
from wesep_py.network.speaker.speaker_losses.speaker_loss import (
    ClassificationLoss,
    MarginSchedule,
    SpeakerLoss,
    SpeakerLossOutput,
    speaker_losses,
)

__all__ = [
    "AAMSoftmax",
    "AMSoftmax",
    "ASoftmax",
    "AdaptiveMarginSoftmax",
    "AngularPrototypicalLoss",
    "BasisLoss",
    "BetweenSpeakerLoss",
    "CentreLoss",
    "ClassificationLoss",
    "CombinedSpeakerLoss",
    "EpisodeLoss",
    "GE2ELoss",
    "HardNegativeLoss",
    "MarginSchedule",
    "MarginSoftmax",
    "PermutationFreeLoss",
    "PermutationFreeOutput",
    "PrototypicalLoss",
    "RunningCentroidLoss",
    "Softmax",
    "SpeakerLoss",
    "SpeakerLossOutput",
    "SphereFace2",
    "TripletLoss",
    "build_speaker_loss",
    "speaker_losses",
]
