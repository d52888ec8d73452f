"""Speaker encoders: from a voice to what tells it from others."""

from wesep_py.speaker.base import SpeakerNetwork, SpeakerOutput, length_mask, speaker_networks
from wesep_py.speaker.ecapa import ECAPATDNN
from wesep_py.speaker.encoder import SpeakerConfig, SpeakerEncoder, build_encoder
from wesep_py.speaker.pooling import AttentiveStatisticsPooling
from wesep_py.speaker.resnet import ResNet
from wesep_py.speaker.spex_plus import SpExPlusNetwork

__all__ = [
    "ECAPATDNN",
    "AttentiveStatisticsPooling",
    "ResNet",
    "SpExPlusNetwork",
    "SpeakerConfig",
    "SpeakerEncoder",
    "SpeakerNetwork",
    "SpeakerOutput",
    "build_encoder",
    "length_mask",
    "speaker_networks",
]
