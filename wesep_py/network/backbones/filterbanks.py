"""Filterbanks of asteroid in place of Conv-TasNet's learned basis: free, analytic, sinc, gammatone, STFT.

Pariente et al., "Filterbank design for end-to-end speech separation" (ICASSP 2020); Ditter & Gerkmann, "A multi-phase
gammatone filterbank for speech separation via TasNet" (ICASSP 2020). The filters are those of the package
asteroid_filterbanks (MIT; extra `filterbanks`), but for two that it computes wrongly or not at all with today's
libraries (version 0.4.0): the imaginary part of an analytic filter is reversed in time there instead of
Hilbert-transformed, with torch 1.8 and later, and its gammatone filters need names that NumPy 2 has not. They are
computed here.

| kind | filters | output |
| --- | --- | --- |
| `free` | any | rectified |
| `analytic_free` | any, and their Hilbert transforms | pairs |
| `param_sinc` | band-pass filters with a lower edge and a bandwidth each, in both phases | pairs |
| `multiphase_gammatone` | gammatone filters at 24 frequencies, in several phases | rectified |
| `stft` | windowed sines and cosines | pairs |

The parts of a pair are not rectified; the mask has a value for each.
"""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wesep_py.common.errors import ConfigError

Kind = Literal["free", "analytic_free", "param_sinc", "multiphase_gammatone", "stft"]
INVERSE_RTOL = 1e-4
"""Directions of the filters that are weaker than this share of the strongest are not inverted."""
RECTIFIED: tuple[Kind, ...] = ("free", "multiphase_gammatone")
"""Kinds whose output is rectified, as that of a learned basis."""
NUM_GAMMATONE_FREQUENCIES, LOWEST_GAMMATONE_HZ = 24, 100.0


@dataclass
class BasisConfig:
    """A filterbank as basis.

    Attributes:
        kind: see the module.
        learned: whether the filters are trained; those of `param_sinc` by their edges, all others freely.
        synthesis: filters of the decoder: a second filterbank of the kind (`same`), or the pseudo-inverse of the
            encoder's, for filters that are not trained (`inverse`). `null` is `same` if learned, else `inverse`.

    Raises:
        ValueError: `inverse` of filters that are trained.
    """

    kind: Kind
    learned: bool = True
    synthesis: Literal["same", "inverse"] | None = None

    def __post_init__(self) -> None:
        if self.learned and self.synthesis == "inverse":
            raise ValueError("synthesis: 'inverse' is for filters that are not trained; use 'same', or learned: false")

    @property
    def inverts(self) -> bool:
        """True if the decoder's filters are the pseudo-inverse of the encoder's."""
        return (self.synthesis or ("same" if self.learned else "inverse")) == "inverse"


class Filters(nn.Module):
    """The filters of a basis.

    Args:
        config: kind, and whether they are trained.
        num_filters: number of filters, pairs counted twice; even. The STFT has two more.
        size: samples of a filter.
        hop: samples between two frames.
        sample_rate: in Hz.

    Attributes:
        num_features: number of filters.

    Raises:
        ValueError: an odd number of filters, or one that is too small for the STFT.
        ConfigError: the package is not installed.
    """

    def __init__(self, config: BasisConfig, num_filters: int, size: int, hop: int, sample_rate: int) -> None:
        super().__init__()
        if num_filters % 2:
            raise ValueError(f"num_filters: is {num_filters}; a basis of kind {config.kind!r} needs an even number")
        if config.kind == "stft" and num_filters < size:
            raise ValueError(f"num_filters: is {num_filters}; an STFT of {size} samples needs at least as many")
        self.kind, self.size = config.kind, size
        package = import_filterbanks()
        self.bank: nn.Module | None = None
        self.table: Tensor | nn.Parameter | None = None
        if config.kind in ("free", "analytic_free"):
            count = num_filters if config.kind == "free" else num_filters // 2
            free = package.FreeFB(count, size, hop, sample_rate=float(sample_rate)).filters().detach()
            self._set_table(free, config.learned)
        elif config.kind == "param_sinc":
            # Sinc filters have an odd length; one of even length ends with a zero.
            odd = size - 1 + size % 2
            self.bank = package.ParamSincFB(num_filters, odd, hop, sample_rate=float(sample_rate))
            self.bank.requires_grad_(config.learned)
        elif config.kind == "stft":
            self._set_table(package.STFTFB(num_filters, size, hop).filters(), config.learned)
        else:
            gammatones = multiphase_gammatone(num_filters, size, sample_rate)
            self._set_table(torch.from_numpy(gammatones).float()[:, None], config.learned)
        self.num_features = self().shape[0]

    def _set_table(self, filters: Tensor, learned: bool) -> None:
        if learned:
            self.table = nn.Parameter(filters.clone())
        else:
            del self.table
            self.register_buffer("table", filters.clone())

    def forward(self) -> Tensor:
        """Return the filters `[num_features, 1, size]`."""
        if self.bank is not None:
            filters = self.bank.filters()
            return nn.functional.pad(filters, (0, self.size - filters.shape[-1]))
        assert self.table is not None, "every kind has a bank or a table"
        return torch.cat([self.table, hilbert(self.table)]) if self.kind == "analytic_free" else self.table


class FilterbankEncoder(nn.Module):
    """Encoder with the filters of a filterbank; arguments as for `Filters`."""

    def __init__(self, config: BasisConfig, num_filters: int, size: int, hop: int, sample_rate: int) -> None:
        super().__init__()
        self.filters = Filters(config, num_filters, size, hop, sample_rate)
        self.size, self.hop, self.is_rectified = size, hop, config.kind in RECTIFIED

    def forward(self, waveform: Tensor, num_frames: int) -> Tensor:
        """`[batch, samples]` → `[batch, num_features, num_frames]`; zeros are appended, or samples cut, to fit."""
        needed = (num_frames - 1) * self.hop + self.size
        waveform = nn.functional.pad(waveform, (0, needed - waveform.shape[1]))
        encoded = nn.functional.conv1d(waveform[:, None], self.filters(), stride=self.hop)
        return encoded.relu() if self.is_rectified else encoded


class FilterbankDecoder(nn.Module):
    """Decoder with the filters of a filterbank, or with the pseudo-inverse of an encoder's.

    Args:
        config, num_filters, sample_rate: as for `Filters`.
        encoder: of the same basis.
    """

    def __init__(self, config: BasisConfig, num_filters: int, sample_rate: int, encoder: FilterbankEncoder) -> None:
        super().__init__()
        self.hop, self.size = encoder.hop, encoder.size
        self.synthesis: Filters | None = None
        if config.inverts:
            with torch.no_grad():
                inverse = overlapped_inverse(encoder.filters()[:, 0], self.hop)
            self.register_buffer("inverse", inverse[:, None])
        else:
            self.synthesis = Filters(config, num_filters, self.size, self.hop, sample_rate)

    def filters(self) -> Tensor:
        """Return the filters `[num_features, 1, size]`."""
        return self.inverse if self.synthesis is None else self.synthesis()

    def forward(self, masked: Tensor) -> Tensor:
        """`[batch, num_features, frames]` → waveform `[batch, (frames − 1) · hop + size]`."""
        return nn.functional.conv_transpose1d(masked, self.filters(), stride=self.hop).squeeze(1)

    def frame_signals(self, masked: Tensor) -> Tensor:
        """`[batch, num_features, frames]` → samples of each frame, not overlapped, `[batch, size, frames]`."""
        return self.filters()[:, 0].T @ masked


def overlapped_inverse(filters: Tensor, hop: int) -> Tensor:
    """Return the pseudo-inverse of filters `[num_features, size]`, divided by how often frames cover each sample.

    A window that is zero at its first sample (that of the STFT) does not cover it, and the pseudo-inverse of asteroid,
    which divides by size / hop, is 10⁷ times too large there.
    """
    inverse = torch.linalg.pinv(filters, rtol=INVERSE_RTOL)
    covered = (inverse @ filters).diagonal()
    phases = nn.functional.pad(covered, (0, -len(covered) % hop)).view(-1, hop).sum(dim=0)
    return (inverse / phases.clamp_min(INVERSE_RTOL).repeat(-(-len(covered) // hop))[: len(covered), None]).T


def hilbert(filters: Tensor) -> Tensor:
    """Return the Hilbert transform of filters along their last axis: every positive frequency turned by −90°.

    >>> time = torch.arange(8) * torch.pi / 4
    >>> torch.allclose(hilbert(torch.cos(time)), torch.sin(time), atol=1e-6)
    True
    """
    return torch.fft.irfft(-1j * torch.fft.rfft(filters), n=filters.shape[-1])


def multiphase_gammatone(num_filters: int, size: int, sample_rate: int) -> NDArray[np.float64]:
    """Return multi-phase gammatone filters of equal RMS, `[num_filters, size]` (Ditter & Gerkmann, 2020).

    `t e^{−2πbt} cos(2πft + φ)`, at 24 centre frequencies f from 100 Hz on, one apart on the ERB scale. The phases of a
    frequency are evenly spaced over half a turn, and each filter has its negative. Low frequencies get the phases that
    are left over.

    Args:
        num_filters: even.
        size: samples of a filter.
        sample_rate: in Hz.
    """
    pairs, left = divmod(num_filters // 2, NUM_GAMMATONE_FREQUENCIES)
    # As the authors' code has it: the first instant is 1 / sample_rate.
    time_s = np.linspace(1 / sample_rate, size / sample_rate, size)
    # Bandwidth parameter of a gammatone of order 2: ERB · (1!)² · 2² / (π · 2!).
    bandwidth_of_erb = 4 / (2 * math.pi)
    frequency_hz, rows = LOWEST_GAMMATONE_HZ, []
    for number in range(NUM_GAMMATONE_FREQUENCIES):
        count = pairs + (number < left)
        decay = np.exp(-2 * np.pi * bandwidth_of_erb * (24.7 + 0.108 * frequency_hz) * time_s)
        half_turn = [
            time_s * decay * np.cos(2 * np.pi * frequency_hz * time_s + np.pi * phase / count) for phase in range(count)
        ]
        rows += [*half_turn, *(-row for row in half_turn)]
        erbs = 9.265 * math.log(1 + frequency_hz / (24.7 * 9.265)) + 1
        frequency_hz = (math.exp(erbs / 9.265) - 1) * 24.7 * 9.265
    filters = np.stack(rows)
    rms = np.sqrt(np.square(filters).mean(axis=1, keepdims=True))
    return filters * (rms.max() / rms)


def import_filterbanks() -> Any:
    """Import asteroid_filterbanks.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import asteroid_filterbanks
    except ImportError as error:
        raise ConfigError(
            f"backbone.basis: asteroid_filterbanks is not installed ({error}); pip install 'wesep-py[filterbanks]'"
        ) from error
    return asteroid_filterbanks
