"""Losses that training minimises, each registered under the `name` that a configuration gives.

| module | contents |
| --- | --- |
| `loss` | `Loss`, the interface; the registry `losses`; `WaveformLoss`, the base of losses on waveforms; `Adversary` |
| `separation_losses` | `si_sdr`, `snr`, `thresholded_sdr`, `sd_sdr`, `multi_resolution_spectral`, `absent_energy` |
| `auxiliary` | second tasks: `presence`, `speaker_cross_entropy`, `speaker_margin` |
| `metric_gan` | `metric_gan`: a discriminator that learns PESQ, and the loss that it gives the network |

Losses of speaker encoders (`aam`, `am`, …) are in `wesep_py.network.speaker.speaker_losses`.
"""

from __future__ import annotations

from wesep_py.training.losses.auxiliary import PresenceLoss, SpeakerCrossEntropy, SpeakerMarginLoss
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
    "PresenceLoss",
    "SpeakerCrossEntropy",
    "SpeakerMarginLoss",
    "ThresholdedSDR",
    "WaveformLoss",
    "has_target",
    "losses",
]
