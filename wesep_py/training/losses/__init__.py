"""Losses that training minimises, each registered under the `name` that a configuration gives.

| module | contents |
| --- | --- |
| `loss` | `Loss`, the interface; the registry `losses`; `WaveformLoss`, the base of losses on waveforms; `Adversary` |
| `separation_losses` | `si_sdr`, `snr`, `thresholded_sdr`, `sd_sdr`, `residual_sdr`, spectra, `absent_energy` |
| `chunk_losses` | `chunk_scale`, `chunk_distribution`: weigh the chunks in which the wrong voice is extracted |
| `auxiliary` | second tasks: `presence`, `speaker_cross_entropy`, `speaker_margin` |
| `metric_gan` | `metric_gan`: a discriminator that learns PESQ, and the loss that it gives the network |

Losses of speaker encoders (`aam`, `am`, …) are in `wesep_py.network.speaker.speaker_losses`.
"""

from __future__ import annotations

from wesep_py.training.losses.auxiliary import PresenceLoss, SpeakerCrossEntropy, SpeakerMarginLoss
from wesep_py.training.losses.chunk_losses import ChunkDistribution, ChunkLoss, ChunkScale
from wesep_py.training.losses.loss import Adversary, Loss, WaveformLoss, has_target, losses
from wesep_py.training.losses.metric_gan import DiscriminatorConfig, MetricDiscriminator, MetricGAN
from wesep_py.training.losses.separation_losses import (
    SDSDR,
    SISDR,
    SNR,
    AbsentEnergy,
    MultiResolutionSpectral,
    ResidualSDR,
    ThresholdedSDR,
)

__all__ = [
    "SDSDR",
    "SISDR",
    "SNR",
    "AbsentEnergy",
    "Adversary",
    "ChunkDistribution",
    "ChunkLoss",
    "ChunkScale",
    "DiscriminatorConfig",
    "Loss",
    "MetricDiscriminator",
    "MetricGAN",
    "MultiResolutionSpectral",
    "PresenceLoss",
    "ResidualSDR",
    "SpeakerCrossEntropy",
    "SpeakerMarginLoss",
    "ThresholdedSDR",
    "WaveformLoss",
    "has_target",
    "losses",
]
