"""Metrics of separation: SI-SDR and its improvement, SDR of BSS-Eval, attenuation, and the checks of their signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from wesep_py.common.errors import InputError, WesepError

if TYPE_CHECKING:
    import torch

EPS = 1e-8
"""Added to the energy of the scaled target and to that of the error (energies are sums over samples)."""
SDR_FILTER_LENGTH = 512
"""Number of taps of the distortion filter of SDR: the value of BSS-Eval v3 and of every published table."""
SDR_LIMIT_DB = 100.0
"""SDR is clipped to ± this many dB: beyond it float64 measures its own rounding."""
Signal = TypeVar("Signal", "np.ndarray", "torch.Tensor")


class MetricError(WesepError):
    """A metric cannot be computed for these signals; the message is the reason that results report."""


@overload
def si_sdr(estimate: torch.Tensor, reference: torch.Tensor, ceiling_db: float | None = None) -> torch.Tensor: ...


@overload
def si_sdr(estimate: np.ndarray, reference: np.ndarray, ceiling_db: float | None = None) -> Any: ...


def si_sdr(estimate: Any, reference: Any, ceiling_db: float | None = None) -> Any:
    """Return the scale-invariant signal-to-distortion ratio along the last axis.

    With the means removed, alpha = <estimate, reference> / |reference|^2 and
    SI-SDR = 10 log10((|alpha reference|^2 + eps) / (|estimate - alpha reference|^2 + eps)), eps = 1e-8.

    The value is finite for every finite input: 0 dB for a silent estimate, 10 log10(eps / (|estimate|^2 + eps)) for a
    silent reference. Neither describes an extraction; results count both separately.

    Args:
        estimate: `[..., samples]`, NumPy or torch, any scale.
        reference: the same kind, of a shape that broadcasts against `estimate`, with as many samples.
        ceiling_db: a soft upper limit, for use as a loss: |alpha reference|^2 / 10^(ceiling_db / 10) is added
            to the error's energy, so that good estimates have small gradients (the threshold of Wisdom et
            al., "Unsupervised sound separation using mixture invariant training", NeurIPS 2020, eq. 2). `None`:
            no limit.

    Returns:
        dB, `[...]`: for torch a tensor on the same device, differentiable, in float32 at least; for NumPy an
        array computed in float64, or a float where the inputs have one axis.

    Raises:
        InputError: the numbers of samples differ or are zero.

    Source: Le Roux, Wisdom, Erdogan, Hershey, "SDR - half-baked or well done?", ICASSP 2019, eq. 4.

    >>> reference = np.array([1.0, -1.0, 1.0, -1.0])
    >>> error = np.array([1.0, 1.0, -1.0, -1.0])  # of the same energy, orthogonal, mean zero
    >>> round(si_sdr(5 * (reference + 0.1 * error), reference), 3)
    20.0
    """
    _check_lengths(estimate, reference)
    if isinstance(estimate, np.ndarray):
        estimate, reference = estimate.astype(np.float64), np.asarray(reference, dtype=np.float64)
        projected, residual = _energies(estimate, reference)
        ratio = 10 * np.log10((projected + EPS) / (_limited(residual, projected, ceiling_db) + EPS))
        return float(ratio) if np.ndim(ratio) == 0 else ratio
    import torch

    dtype = torch.promote_types(estimate.dtype, torch.float32)
    projected, residual = _energies(estimate.to(dtype), reference.to(dtype))
    return 10 * torch.log10((projected + EPS) / (_limited(residual, projected, ceiling_db) + EPS))


def si_sdr_improvement(estimate: Signal, reference: Signal, mixture: Signal) -> Any:
    """Return the SI-SDR of the estimate minus that of the unprocessed mixture, in dB ("SI-SDRi").

    Args:
        estimate: `[..., samples]`.
        reference: as `estimate`.
        mixture: as `estimate`; of a recording with several channels, the first.

    Returns:
        dB, `[...]`, as `si_sdr`.

    >>> reference = np.array([1.0, -1.0, 1.0, -1.0])
    >>> error = np.array([1.0, 1.0, -1.0, -1.0])
    >>> round(si_sdr_improvement(reference + 0.1 * error, reference, reference + error), 3)
    20.0
    """
    return si_sdr(estimate, reference) - si_sdr(mixture, reference)


def _energies(estimate: Any, reference: Any) -> tuple[Any, Any]:
    """Return the energies of the scaled reference and of the residual of the estimate, `[...]` each.

    The residual signal is computed, instead of its energy as a difference of energies, so that float32 is precise up
    to about 100 dB.
    """
    estimate = estimate - estimate.mean(-1)[..., None]
    reference = reference - reference.mean(-1)[..., None]
    # A reference with less energy than eps is silent: its projection is then 0, not a quotient of rounding errors.
    scale = (estimate * reference).sum(-1) / (reference**2).sum(-1).clip(EPS)
    target = scale[..., None] * reference
    return (target**2).sum(-1), ((estimate - target) ** 2).sum(-1)


def _limited(residual: Any, projected: Any, ceiling_db: float | None) -> Any:
    return residual if ceiling_db is None else residual + 10 ** (-ceiling_db / 10) * projected


def _check_lengths(estimate: Any, reference: Any) -> None:
    lengths = (estimate.shape[-1] if estimate.ndim else 0), (reference.shape[-1] if reference.ndim else 0)
    if lengths[0] != lengths[1] or not lengths[0]:
        raise InputError(
            f"estimate has {lengths[0]} samples and reference {lengths[1]}; "
            "give signals of one length, of at least one sample"
        )


def checked_signal(signal: np.ndarray, name: str) -> np.ndarray:
    """Return the signal as a finite float64 array `[samples]`.

    Args:
        signal: `[samples]`.
        name: of the signal, for the message.

    Raises:
        MetricError: the signal has another number of axes, no samples, or samples that are not finite.
    """
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim != 1 or not signal.size:
        raise MetricError(f"the {name} has shape {list(signal.shape)}; one axis with samples is needed")
    if not np.isfinite(signal).all():
        raise MetricError(f"the {name} has samples that are not finite")
    return signal


def checked_pair(estimate: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return estimate and reference as float64 `[samples]`.

    Raises:
        MetricError: as `checked_signal`; the lengths differ; the reference is silent.
    """
    estimate, reference = checked_signal(estimate, "estimate"), checked_signal(reference, "reference")
    if len(estimate) != len(reference):
        raise MetricError(f"the estimate has {len(estimate)} samples and the reference {len(reference)}")
    if is_silent(reference):
        raise MetricError("the reference is silent")
    return estimate, reference


def is_silent(signal: np.ndarray) -> bool:
    """Return whether the energy of the signal, with its mean removed, is at most `EPS` (1e-8): a constant is silent.

    >>> is_silent(np.full(16000, 0.5)), is_silent(np.array([1e-3, -1e-3]))
    (True, False)
    """
    signal = np.asarray(signal, dtype=np.float64)
    return bool(np.square(signal - signal.mean()).sum() <= EPS)


def attenuation_db(estimate: np.ndarray, mixture: np.ndarray) -> float:
    """Return the energy of the mixture over that of the estimate in dB, for trials with no target to extract.

    Positive where the estimate is quieter. eps = 1e-8 is added to both energies, so that silence gives a finite value.

    Args:
        estimate: `[samples]`.
        mixture: `[samples]`.

    >>> mixture = np.array([1.0, -1.0])
    >>> round(attenuation_db(0.1 * mixture, mixture), 3)
    20.0
    """
    energies = [float(np.square(np.asarray(s, dtype=np.float64)).sum()) + EPS for s in (mixture, estimate)]
    return float(10 * np.log10(energies[0] / energies[1]))


def sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Return the signal-to-distortion ratio of BSS-Eval (version 3).

    The estimate is projected on the reference and its 511 delays, so that distortion by a filter of 512 taps does not
    count; SDR is the energy of that projection over the energy of the residual. Computed by fast_bss_eval, with a
    direct solution.

    Args:
        estimate: `[samples]`.
        reference: `[samples]`.

    Returns:
        dB, within ±100.

    Raises:
        MetricError: a signal is silent or not finite, or the lengths differ.

    Source: Vincent, Gribonval, Févotte, "Performance measurement in blind audio source separation", IEEE
    TASLP 14(4), 2006; Scheibler, "SDR - medium rare with fast computations", ICASSP 2022.

    >>> random = np.random.default_rng(0)
    >>> reference, noise = random.standard_normal((2, 16000))
    >>> abs(sdr(reference + 0.1 * noise, reference) - 20) < 0.5
    True
    """
    from fast_bss_eval import sdr_loss

    estimate, reference = checked_pair(estimate, reference)
    if is_silent(estimate):
        raise MetricError("the estimate is silent")
    try:
        # One axis each: with a batch axis, fast_bss_eval 0.1.4 calls numpy.linalg.solve in a way that NumPy 2 refuses.
        loss = float(sdr_loss(estimate, reference, filter_length=SDR_FILTER_LENGTH, clamp_db=SDR_LIMIT_DB))
    except np.linalg.LinAlgError as error:
        raise MetricError(f"the reference's correlation matrix has no inverse ({error})") from error
    if not np.isfinite(loss):
        raise MetricError("the projection on the reference has no finite solution")
    return -loss
