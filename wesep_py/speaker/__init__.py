"""Speaker encoders: from a voice to what tells it from others."""

from wesep_py.speaker.base import SpeakerNetwork, SpeakerOutput, length_mask, speaker_networks
from wesep_py.speaker.campplus import CAMPlusPlus
from wesep_py.speaker.dvector import DVector
from wesep_py.speaker.ecapa import ECAPATDNN
from wesep_py.speaker.encoder import SpeakerConfig, SpeakerEncoder, build_encoder
from wesep_py.speaker.eres2net import ERes2Net
from wesep_py.speaker.gemini import GeminiDFResNet
from wesep_py.speaker.loading import encoder_config, is_encoder, load_encoder
from wesep_py.speaker.pooling import AttentiveStatisticsPooling
from wesep_py.speaker.redimnet import ReDimNet, ReDimNetStage
from wesep_py.speaker.repvgg import RepVGG
from wesep_py.speaker.res2net import Res2Net
from wesep_py.speaker.resnet import ResNet
from wesep_py.speaker.self_supervised import SelfSupervised
from wesep_py.speaker.simam_resnet import SimAMResNet
from wesep_py.speaker.spex_plus import SpExPlusNetwork
from wesep_py.speaker.voices import Voices
from wesep_py.speaker.xvector import XVector

__all__ = [
    "ECAPATDNN",
    "AttentiveStatisticsPooling",
    "CAMPlusPlus",
    "DVector",
    "ERes2Net",
    "GeminiDFResNet",
    "ReDimNet",
    "ReDimNetStage",
    "RepVGG",
    "Res2Net",
    "ResNet",
    "SelfSupervised",
    "SimAMResNet",
    "SpExPlusNetwork",
    "SpeakerConfig",
    "SpeakerEncoder",
    "SpeakerNetwork",
    "SpeakerOutput",
    "Voices",
    "XVector",
    "build_encoder",
    "encoder_config",
    "is_encoder",
    "length_mask",
    "load_encoder",
    "speaker_networks",
]
