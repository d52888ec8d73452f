"""Speaker encoders: from a recording of a person to frame-level features and an embedding of the voice.

| module | what is in it |
| --- | --- |
| `speaker_encoder` | `SpeakerConfig`, `SpeakerEncoder`: front end and network; `load_encoder` reads a checkpoint |
| `embedding_windows` | `WindowConfig`: embeddings of overlapping windows, averaged |
| `speaker_network` | `SpeakerNetwork`, the interface; base classes; the registry `speaker_networks` |
| `pooling` | poolings over time, from the mean to recursive attention |
| `self_supervised` | WavLM, wav2vec 2.0 or HuBERT as front end |
| `speaker_losses` | the losses that train an encoder |

The networks, by the name in a configuration:

| name | module | paper |
| --- | --- | --- |
| `campplus` | `campplus` | CAM++: Wang et al., Interspeech 2023 |
| `dvector` | `xvector` | Variani et al., ICASSP 2014; with an LSTM, Wan et al., ICASSP 2018 |
| `ecapa_tdnn` | `ecapa` | Desplanques et al., Interspeech 2020 |
| `eres2net` | `res2net` | Chen et al., Interspeech 2023 |
| `gemini_df_resnet` | `resnet` | Liu et al., TASLP 2024 |
| `mhfa` | `mhfa` | Peng et al., SLT 2022 |
| `redimnet` | `redimnet` | Yakovlev et al., Interspeech 2024 |
| `repvgg` | `repvgg` | Ding et al., CVPR 2021; for speakers, Ma et al., arXiv 2110.09720 |
| `res2net` | `res2net` | Gao et al., TPAMI 2019 |
| `resnet` | `resnet` | r-vector: Zeinali et al., 2019 |
| `simam_resnet` | `resnet` | Qin et al., ICASSP 2022 |
| `spex_plus` | `spex_plus` | the speaker branch of SpEx+: Ge et al., 2020 |
| `tcn` | `tcn` | the speaker branch of TD-SpeakerBeam: Delcroix et al., ICASSP 2020 |
| `xvector` | `xvector` | Snyder et al., ICASSP 2018 |
"""

from wesep_py.network.speaker.campplus import CAMPlusPlus
from wesep_py.network.speaker.ecapa import ECAPATDNN
from wesep_py.network.speaker.embedding_windows import WindowConfig
from wesep_py.network.speaker.mhfa import MHFA
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
    completed_speaker,
    encoder_config,
    is_encoder,
    load_encoder,
)
from wesep_py.network.speaker.speaker_network import (
    SpeakerEmbeddings,
    SpeakerNetwork,
    SpeakerOutput,
    count_voices,
    length_mask,
    speaker_networks,
)
from wesep_py.network.speaker.spex_plus import SpExPlusNetwork
from wesep_py.network.speaker.tcn import TCNSpeakerNetwork
from wesep_py.network.speaker.xvector import DVector, XVector

__all__ = [
    "ECAPATDNN",
    "MHFA",
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
    "TCNSpeakerNetwork",
    "WindowConfig",
    "XVector",
    "build_encoder",
    "completed_speaker",
    "count_voices",
    "encoder_config",
    "is_encoder",
    "length_mask",
    "load_encoder",
    "speaker_networks",
]
