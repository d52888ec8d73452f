"""What trains a speaker encoder. `speaker_losses` lists the names that a configuration can use."""

from wesep_py.speaker.losses.a_softmax import ASoftmax
from wesep_py.speaker.losses.adaptive import AdaptiveMarginSoftmax
from wesep_py.speaker.losses.base import SpeakerLoss, SpeakerLossOutput, speaker_losses
from wesep_py.speaker.losses.basis import BasisLoss, BetweenSpeakerLoss, HardNegativeLoss
from wesep_py.speaker.losses.centre import CentreLoss
from wesep_py.speaker.losses.classification import ClassificationLoss
from wesep_py.speaker.losses.combined import CombinedSpeakerLoss, build_speaker_loss
from wesep_py.speaker.losses.episodes import EpisodeLoss
from wesep_py.speaker.losses.ge2e import GE2ELoss
from wesep_py.speaker.losses.margin import AAMSoftmax, AMSoftmax, MarginSoftmax
from wesep_py.speaker.losses.permutation_free import PermutationFreeLoss, PermutationFreeOutput
from wesep_py.speaker.losses.prototypical import AngularPrototypicalLoss, PrototypicalLoss
from wesep_py.speaker.losses.schedule import MarginSchedule
from wesep_py.speaker.losses.softmax import Softmax
from wesep_py.speaker.losses.sphereface2 import SphereFace2
from wesep_py.speaker.losses.triplet import TripletLoss

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
    "Softmax",
    "SpeakerLoss",
    "SpeakerLossOutput",
    "SphereFace2",
    "TripletLoss",
    "build_speaker_loss",
    "speaker_losses",
]
