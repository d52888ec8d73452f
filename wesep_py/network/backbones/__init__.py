"""Backbones: networks that turn a mixture into one voice. A callback tells them which voice.

| module | contents |
| --- | --- |
| `backbone` | base class `Backbone`, its `Analysis` of a waveform, the registry `backbones` |
| `bsrnn` | `BSRNN`: band-split recurrent network, complex mask |
| `tf_gridnet` | `TFGridNet`: recurrent layers along bins and frames, full-band attention |
| `dpccn` | `DPCCN`: U-Net of dense convolution blocks with a temporal convolution network |
| `conv_tasnet` | `ConvTasNet`: masks on learned filters; SpEx+ and TD-SpeakerBeam are configurations of it |
| `filterbanks` | filters of asteroid as the basis of `ConvTasNet` |
| `skim` | `SkiM`: recurrent layers within segments, memory layers between them |
| `speakerbeam_ss` | `SpeakerBeamSS`: a wide basis at a low frame rate, state-space layers |
| `sepformer` | `SepFormer`: transformers within and across chunks of frames, masks on learned filters |
| `masked_basis` | `MaskedBasis`: base of the three that mask one learned basis |
| `spectrum` | shared layers: band splitting, the head that makes the target's spectrum |
"""

from wesep_py.network.backbones.backbone import Analysis, Backbone, Condition, FrameSpan, backbones
from wesep_py.network.backbones.bsrnn import BSRNN
from wesep_py.network.backbones.conv_tasnet import ConvTasNet
from wesep_py.network.backbones.dpccn import DPCCN
from wesep_py.network.backbones.sepformer import SepFormer
from wesep_py.network.backbones.skim import SkiM
from wesep_py.network.backbones.speakerbeam_ss import SpeakerBeamSS
from wesep_py.network.backbones.tf_gridnet import TFGridNet

__all__ = [
    "BSRNN",
    "DPCCN",
    "Analysis",
    "Backbone",
    "Condition",
    "ConvTasNet",
    "FrameSpan",
    "SepFormer",
    "SkiM",
    "SpeakerBeamSS",
    "TFGridNet",
    "backbones",
]
