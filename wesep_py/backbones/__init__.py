"""Networks that turn a mixture into one voice, told by a callback which voice is meant."""

from wesep_py.backbones.base import Analysis, Backbone, Condition, backbones
from wesep_py.backbones.bsrnn import BSRNN
from wesep_py.backbones.conv_tasnet import ConvTasNet
from wesep_py.backbones.dpccn import DPCCN
from wesep_py.backbones.tf_gridnet import TFGridNet

__all__ = ["BSRNN", "DPCCN", "Analysis", "Backbone", "Condition", "ConvTasNet", "TFGridNet", "backbones"]
