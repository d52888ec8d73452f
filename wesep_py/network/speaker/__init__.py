"""Speaker encoders: from a voice to what tells it from others."""

from wesep_py.network.speaker.campplus import CAMPlusPlus
from wesep_py.network.speaker.ecapa import ECAPATDNN
from wesep_py.network.speaker.pooling import AttentiveStatisticsPooling
from wesep_py.network.speaker.redimnet import ReDimNet, ReDimNetStage
from wesep_py.network.speaker.repvgg import RepVGG
from wesep_py.network.speaker.res2net import ERes2Net, Res2Net
from wesep_py.network.speaker.resnet import GeminiDFResNet, ResNet, SimAMResNet
from wesep_py.network.speaker.self_supervised import SelfSupervised
from wesep_py.network.speaker.speaker_encoder import (
    SpeakerConfig,
    SpeakerEncoder,
    build_encoder,
    encoder_config,
    is_encoder,
    load_encoder,
)
from wesep_py.network.speaker.speaker_network import (
    SpeakerEmbeddings,
    SpeakerNetwork,
    SpeakerOutput,
    length_mask,
    speaker_networks,
)
from wesep_py.network.speaker.spex_plus import SpExPlusNetwork
from wesep_py.network.speaker.xvector import DVector, XVector

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
    "SpeakerEmbeddings",
    "SpeakerEncoder",
    "SpeakerNetwork",
    "SpeakerOutput",
    "XVector",
    "build_encoder",
    "encoder_config",
    "is_encoder",
    "length_mask",
    "load_encoder",
    "speaker_networks",
]
