"""What training minimises. `losses` lists the names that a configuration can use."""

from __future__ import annotations

from wesep_py.training.losses.auxiliary import Presence, SpeakerCrossEntropy, SpeakerMargin
from wesep_py.training.losses.loss import Adversary, Loss, WaveformLoss, has_target, losses
from wesep_py.training.losses.metric_gan import DiscriminatorConfig, MetricDiscriminator, MetricGAN
from wesep_py.training.losses.separation_losses import (
    SDSDR,
    SISDR,
    SNR,
    AbsentEnergy,
    MultiResolutionSpectral,
    ThresholdedSDR,
)

__all__ = [
    "SDSDR",
    "SISDR",
    "SNR",
    "AbsentEnergy",
    "Adversary",
    "DiscriminatorConfig",
    "Loss",
    "MetricDiscriminator",
    "MetricGAN",
    "MultiResolutionSpectral",
    "Presence",
    "SpeakerCrossEntropy",
    "SpeakerMargin",
    "ThresholdedSDR",
    "WaveformLoss",
    "has_target",
    "losses",
]
