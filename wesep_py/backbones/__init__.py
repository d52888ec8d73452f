"""Networks that turn a mixture into one voice, told by a callback which voice is meant."""

from wesep_py.backbones.base import Analysis, Backbone, Condition, backbones
from wesep_py.backbones.bsrnn import BSRNN

__all__ = ["BSRNN", "Analysis", "Backbone", "Condition", "backbones"]
