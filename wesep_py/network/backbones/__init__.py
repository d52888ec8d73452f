"""Networks that turn a mixture into one voice, told by a callback which voice is meant."""

from wesep_py.network.backbones.backbone import Analysis, Backbone, Condition, backbones
from wesep_py.network.backbones.bsrnn import BSRNN
from wesep_py.network.backbones.conv_tasnet import ConvTasNet
from wesep_py.network.backbones.dpccn import DPCCN
from wesep_py.network.backbones.tf_gridnet import TFGridNet

__all__ = ["BSRNN", "DPCCN", "Analysis", "Backbone", "Condition", "ConvTasNet", "TFGridNet", "backbones"]
