"""SI-SDR: how much of an estimate is the reference at any scale, in dB. NumPy arrays and torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from wesep_py.errors import InputError

if TYPE_CHECKING:
    import torch

EPS = 1e-8
"""Added to the energy of the scaled target and to that of the error (energies are sums over samples)."""

Signal = TypeVar("Signal", "np.ndarray", "torch.Tensor")


@overload
def si_sdr(estimate: torch.Tensor, reference: torch.Tensor, ceiling_db: float | None = None) -> torch.Tensor: ...
@overload
def si_sdr(estimate: np.ndarray, reference: np.ndarray, ceiling_db: float | None = None) -> Any: ...
def si_sdr(estimate: Any, reference: Any, ceiling_db: float | None = None) -> Any:
    """Scale-invariant signal-to-distortion ratio along the last axis.

    With the means removed, alpha = <estimate, reference> / |reference|^2 and
    SI-SDR = 10 log10((|alpha reference|^2 + eps) / (|estimate - alpha reference|^2 + eps)), eps = 1e-8.

    Finite for every finite input: a silent estimate gives 0 dB, a silent reference 10 log10(eps /
    (|estimate|^2 + eps)). Neither says anything about an extraction; results count both apart (`score`).

    Args:
        estimate: `[..., samples]`, NumPy or torch, any scale.
        reference: the same kind, of a shape that broadcasts against `estimate`, with as many samples.
        ceiling_db: a soft upper limit, for use as a loss: |alpha reference|^2 / 10^(ceiling_db / 10) is added
            to the error's energy, so that what is already good no longer pulls (the threshold of Wisdom et
            al., "Unsupervised sound separation using mixture invariant training", NeurIPS 2020, eq. 2). None:
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
    """SI-SDR of the estimate less that of the unprocessed mixture, in dB ("SI-SDRi").

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
    """Energies of the scaled reference and of what remains of the estimate.

    The residual is formed, not inferred from energies, so that float32 holds up to about 100 dB.
    """
    estimate = estimate - estimate.mean(-1)[..., None]
    reference = reference - reference.mean(-1)[..., None]
    # A reference below eps is silence: its projection is then nothing, not a quotient of rounding errors.
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
