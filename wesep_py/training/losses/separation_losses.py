"""Losses on the separated waveform: SNR family, SI-SDR, multi-resolution spectra, energy where the target is absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wesep_py.features.stft import STFT
from wesep_py.metrics.separation import EPS, si_sdr
from wesep_py.training.losses.loss import Loss, WaveformLoss, check_weights, has_target, losses, weighted_estimates

if TYPE_CHECKING:
    from wesep_py.network.extraction_network import NetworkOutput

MAGNITUDE_FLOOR = 1e-5
"""Magnitudes below this count as silence: -100 dB relative to a mixture RMS of 1."""


def check_ceiling(ceiling_db: float | None) -> float | None:
    """Return a ceiling in dB unchanged if it is positive or `None`.

    Raises:
        ValueError: it is not positive.
    """
    if ceiling_db is not None and not ceiling_db > 0:
        raise ValueError(f"ceiling_db is {ceiling_db}; give a number of dB > 0, or leave it out")
    return ceiling_db


@losses.register("si_sdr")
class SISDR(WaveformLoss):
    """Negative SI-SDR in dB, mean over the batch, weighted sum over the network's estimates.

    An item with a silent target is skipped, because SI-SDR is undefined for it. A batch without other items gives 0,
    with zero gradients.

    Args:
        weights: one per waveform of the output, each >= 0, not all zero; `None` for networks with one waveform.
            SpEx+ has three: `[0.8, 0.1, 0.1]` (Ge et al., "SpEx+: a complete time domain speaker extraction network",
            Interspeech 2020, eq. 6).
        ceiling_db: soft upper limit of the SI-SDR, > 0, as in `metrics.si_sdr`; 30 keeps easy items from dominating.
            `None`: no limit.

    Raises:
        ValueError: a negative weight, all weights zero, a ceiling that is not positive.

    Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, eq. 4.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> target = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    >>> error = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    >>> output = SimpleNamespace(waveforms=(target + 0.1 * error,))
    >>> round(SISDR()(output, target, {}).item(), 3)
    -20.0
    """

    name = "si_sdr"

    def __init__(self, weights: tuple[float, ...] | None = None, ceiling_db: float | None = None) -> None:
        super().__init__(weights)
        self.ceiling_db = check_ceiling(ceiling_db)

    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        return -si_sdr(estimate, target, self.ceiling_db)


@losses.register("snr")
class SNR(WaveformLoss):
    """Negative SNR in dB: -10 log10(|s|² / |s - ŝ|²), mean over the batch.

    Unlike SI-SDR it requires the level of the target too. Items with a silent target are skipped.

    Args:
        weights: one per waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a negative weight, or all weights zero.

    Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019 ("SNR").

    >>> from types import SimpleNamespace
    >>> target = torch.tensor([[1.0, -1.0]])
    >>> round(SNR()(SimpleNamespace(waveforms=(0.9 * target,)), target, {}).item(), 3)
    -20.0
    """

    name = "snr"
    _error_floor = 0.0  # added to the error energy, relative to the energy of the target

    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        energy, error = target.square().sum(-1), (target - estimate).square().sum(-1)
        return -10 * torch.log10((energy + EPS) / (error + self._error_floor * energy + EPS))


@losses.register("thresholded_sdr")
class ThresholdedSDR(SNR):
    """Negative SNR with a soft ceiling: -10 log10(|s|² / (|s - ŝ|² + τ |s|²)), τ = 10^(-ceiling_db / 10).

    Items that are already well extracted add little gradient. Items with a silent target are skipped; use
    `absent_energy` for them.

    Args:
        ceiling_db: the ceiling in dB, > 0; 30 means τ = 1e-3.
        weights: one per waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a ceiling that is not positive, a negative weight, all weights zero.

    Source: Wisdom et al., "Unsupervised sound separation using mixture invariant training", NeurIPS 2020, eq. 2.

    >>> from types import SimpleNamespace
    >>> target = torch.tensor([[1.0, -1.0]])
    >>> round(ThresholdedSDR(30)(SimpleNamespace(waveforms=(target,)), target, {}).item(), 3)
    -30.0
    """

    name = "thresholded_sdr"

    def __init__(self, ceiling_db: float = 30.0, weights: tuple[float, ...] | None = None) -> None:
        super().__init__(weights)
        check_ceiling(ceiling_db)
        self._error_floor = 10 ** (-ceiling_db / 10)


@losses.register("residual_sdr")
class ResidualSDR(Loss):
    """Negative SNR of what the estimate leaves of the mixture: −10 log10(|r|² / (|ŝ − s|² + τ |r|²)), r = x − s.

    x is the mixture, and τ = 10^(−ceiling_db / 10). Beside `thresholded_sdr` it is the distortion loss: estimate and
    residual must both be right. An item with a silent target counts too: its residual is the whole mixture, so that the
    estimate has to be silent (speaker presence invariant training). Items whose mixture is the target alone are
    skipped; the value is the mean over the others.

    Args:
        ceiling_db: the ceiling in dB, > 0.
        weights: one per waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a ceiling that is not positive, a negative weight, all weights zero.

    Source: Zhang et al., "X-TaSNet: robust and accurate time-domain speaker extraction network", Interspeech 2020;
    the form `d(ŝ, s) + d(x − ŝ, x − s)` is derived from descriptions of the paper.

    >>> from types import SimpleNamespace
    >>> target, other = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, -2.0]])
    >>> loss = ResidualSDR()(SimpleNamespace(waveforms=(target + 0.1 * other,)), target, {"mixture": target + other})
    >>> round(loss.item(), 2)  # −10 log10(1 / (0.01 + 0.001))
    -19.59
    """

    def __init__(self, ceiling_db: float = 30.0, weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        check_ceiling(ceiling_db)
        self.floor, self.weights = 10 ** (-ceiling_db / 10), check_weights(weights)

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch, see `Loss.forward`; `batch` holds the `mixture` `[batch, samples]`."""
        residual = batch["mixture"].float() - target.float()
        counts = has_target(residual, {})
        energy = residual.square().sum(-1)
        total = target.new_zeros((), dtype=torch.float32)
        for waveform, weight in weighted_estimates(output.waveforms, target, self.weights, "residual_sdr"):
            error = (waveform.float() - target.float()).square().sum(-1)
            of_items = -10 * torch.log10((energy + EPS) / (error + self.floor * energy + EPS))
            total = total + weight * (of_items * counts).sum() / counts.sum().clamp(min=1)
        return total


@losses.register("sd_sdr")
class SDSDR(WaveformLoss):
    """Negative scale-dependent SDR: -10 log10(|α s|² / |s - ŝ|²), α = <ŝ, s> / |s|², mean over the batch.

    Like the SNR it penalises a wrong level, and a level that is too low doubly. Items with a silent target are skipped.

    Args:
        weights: one per waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a negative weight, or all weights zero.

    Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019 ("SD-SDR").

    >>> from types import SimpleNamespace
    >>> target = torch.tensor([[1.0, -1.0]])
    >>> round(SDSDR()(SimpleNamespace(waveforms=(0.5 * target,)), target, {}).item(), 3)  # 0 dB, as |α s| = |s - ŝ|
    0.0
    """

    name = "sd_sdr"

    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        energy = target.square().sum(-1)
        scale = (estimate * target).sum(-1) / energy.clamp(min=EPS)
        error = (target - estimate).square().sum(-1)
        return -10 * torch.log10((scale.square() * energy + EPS) / (error + EPS))


@losses.register("multi_resolution_spectral")
class MultiResolutionSpectral(WaveformLoss):
    """Mean distance between the spectra of estimate and target, averaged over several STFTs.

    With S and Ŝ the spectra, the arguments weigh these distances (means are over bins and frames):

        magnitude       mean | |Ŝ|^p - |S|^p |
        log_magnitude   mean | ln|Ŝ| - ln|S| |
        complex         mean | |Ŝ|^p e^{i∠Ŝ} - |S|^p e^{i∠S} |
        convergence     ‖ |Ŝ| - |S| ‖ / ‖ |S| ‖

    Both waveforms are first divided by the RMS of the mixture, so that the level of a recording does not weigh its
    loss. Windows are Hann, hops a quarter of them, and spectra are divided by the root of the window's energy, so that
    white noise of variance 1 has magnitudes about 1 at every resolution. Items with a silent target are skipped.

    Args:
        window_lengths: of the STFTs, in samples, multiples of 4.
        power: p, above 0 and at most 1; 0.5 gives quiet bins more weight.
        magnitude, log_magnitude, complex, convergence: weights of the distances, >= 0, not all zero.
        weights: one per waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a length, power or weight out of its range.

    Sources: Yamamoto et al., "Parallel WaveGAN", ICASSP 2020 (convergence, log magnitude); Braun & Tashev,
        "Data augmentation and loss normalization for deep noise suppression", SPECOM 2020 (compressed magnitude and
        complex spectra).

    >>> from types import SimpleNamespace
    >>> target = torch.randn(1, 4000)
    >>> loss = MultiResolutionSpectral(magnitude=0, convergence=1)
    >>> round(loss(SimpleNamespace(waveforms=(0.5 * target,)), target, {"mixture": target}).item(), 4)
    0.5
    """

    name = "multi_resolution_spectral"

    def __init__(
        self,
        window_lengths: tuple[int, ...] = (256, 512, 1024),
        power: float = 0.5,
        magnitude: float = 1.0,
        log_magnitude: float = 0.0,
        complex: float = 0.0,
        convergence: float = 0.0,
        weights: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(weights)
        if not window_lengths or any(length < 4 or length % 4 for length in window_lengths):
            raise ValueError(f"window_lengths: are {list(window_lengths)}; name multiples of 4, at least one")
        if not 0 < power <= 1:
            raise ValueError(f"power: is {power}; above 0 and at most 1 is allowed")
        shares = {
            "magnitude": magnitude, "log_magnitude": log_magnitude, "complex": complex, "convergence": convergence,
        }  # fmt: skip
        if min(shares.values()) < 0 or not any(shares.values()):
            raise ValueError(f"{', '.join(shares)}: are {list(shares.values())}; weights >= 0, not all 0, are needed")
        self.power = power
        self.shares = shares
        self.stfts = nn.ModuleList(STFT(length, length // 4, pad_mode="reflect") for length in window_lengths)
        # The energy of a periodic Hann window of N samples is 3 N / 8.
        self.scales = [(3 * length / 8) ** -0.5 for length in window_lengths]

    def of_items(self, estimate: Tensor, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        level = (batch["mixture"].float().square().mean(-1, keepdim=True) + EPS).sqrt()
        both = torch.stack([estimate / level, target / level])
        total = estimate.new_zeros(len(estimate))
        for stft, scale in zip(self.stfts, self.scales, strict=True):
            total = total + self._distance(*(stft(both) * scale))
        return total / len(self.stfts)

    def _distance(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Return the weighted distance `[batch]` of spectra `[batch, bins, frames]`."""
        # The gradient of |z| is undefined at z = 0. The root of a square with a floor has one: z / |z| away from 0, and
        # 0 at 0. Powers below 1 and logarithms, whose slopes grow without bound near 0, are safe for the same reason.
        estimate_magnitude, target_magnitude = (
            (z.real.square() + z.imag.square() + MAGNITUDE_FLOOR**2).sqrt() for z in (estimate, target)
        )
        shares, total = self.shares, estimate_magnitude.new_zeros(len(estimate_magnitude))
        if shares["magnitude"]:
            difference = estimate_magnitude**self.power - target_magnitude**self.power
            total = total + shares["magnitude"] * _mean_over_bins(difference.abs())
        if shares["log_magnitude"]:
            difference = estimate_magnitude.log() - target_magnitude.log()
            total = total + shares["log_magnitude"] * _mean_over_bins(difference.abs())
        if shares["complex"]:
            # z |z|^(p - 1) has magnitude |z|^p and the phase of z.
            difference = estimate * estimate_magnitude ** (self.power - 1) - target * target_magnitude ** (
                self.power - 1
            )
            squares = difference.real.square() + difference.imag.square()
            distance = (squares + MAGNITUDE_FLOOR**2).sqrt() - MAGNITUDE_FLOOR
            total = total + shares["complex"] * _mean_over_bins(distance)
        if shares["convergence"]:
            ratio = _norm_over_bins(estimate_magnitude - target_magnitude) / _norm_over_bins(target_magnitude)
            total = total + shares["convergence"] * ratio
        return total


def _mean_over_bins(values: Tensor) -> Tensor:
    return values.mean(dim=(-2, -1))


def _norm_over_bins(values: Tensor) -> Tensor:
    return (values.square().sum(dim=(-2, -1)) + EPS).sqrt()


@losses.register("absent_energy")
class AbsentEnergy(Loss):
    """Energy of the estimate relative to the mixture, for items with a silent target: 10 log10(|ŝ|²/|x|² + τ) dB.

    The value is the sum over those items divided by the size of the batch. Beside `thresholded_sdr`, whose range is as
    large, an item therefore counts about the same whether its target is present or absent, however many are absent.
    Items with a target count as 0. The level of the mixture, which the papers leave in, is taken out; that changes no
    gradient.

    Args:
        floor_db: soft floor relative to the mixture, < 0: quieter estimates gain little; -20 means τ = 1e-2.
        weights: one per waveform of the output, as for `si_sdr`.

    Raises:
        ValueError: a floor that is not negative, a negative weight, all weights zero.

    Source: Delcroix et al., "Listen only to me! How well can target speech extraction handle false alarms?",
    Interspeech 2022, in the form with a floor of Wisdom et al., "What's all the fuss about free universal sound
    separation data?", ICASSP 2021.

    >>> from types import SimpleNamespace
    >>> mixture, target = torch.tensor([[1.0, -1.0]]), torch.zeros(1, 2)
    >>> loss = AbsentEnergy()(SimpleNamespace(waveforms=(0.1 * mixture,)), target, {"mixture": mixture})
    >>> round(loss.item(), 2)  # 10 log10(0.01 + 0.01)
    -16.99
    """

    def __init__(self, floor_db: float = -20.0, weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        if not floor_db < 0:
            raise ValueError(f"floor_db is {floor_db}; give a number of dB below 0")
        self.floor_db = floor_db
        self.weights = check_weights(weights)

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch, see `Loss.forward`; `batch` holds the `mixture` `[batch, samples]`."""
        absent = 1 - has_target(target, batch)
        mixture = batch["mixture"].float().square().sum(-1)
        total = target.new_zeros((), dtype=torch.float32)
        for waveform, weight in weighted_estimates(output.waveforms, target, self.weights, "absent_energy"):
            ratio = waveform.float().square().sum(-1) / (mixture + EPS)
            level = 10 * torch.log10(ratio + 10 ** (self.floor_db / 10))
            total = total + weight * (level * absent).mean()
        return total
