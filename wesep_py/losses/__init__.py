"""What training minimises. `losses` lists the names that a configuration can use."""

from __future__ import annotations

from wesep_py.losses.absent_energy import AbsentEnergy
from wesep_py.losses.adversary import Adversary
from wesep_py.losses.base import Loss, losses
from wesep_py.losses.discriminator import DiscriminatorConfig, MetricDiscriminator
from wesep_py.losses.metric_gan import MetricGAN
from wesep_py.losses.presence import Presence
from wesep_py.losses.si_sdr import SISDR
from wesep_py.losses.snr import SDSDR, SNR, ThresholdedSDR
from wesep_py.losses.speaker_cross_entropy import SpeakerCrossEntropy
from wesep_py.losses.speaker_margin import SpeakerMargin
from wesep_py.losses.spectral import MultiResolutionSpectral
from wesep_py.losses.waveform import WaveformLoss, has_target

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
