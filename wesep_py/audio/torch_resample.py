"""Another sample rate for a waveform inside a network: differentiable, on the device of its input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import InputError


class Resample(nn.Module):
    """Resample `[..., T] → [..., ⌈T · to_rate / from_rate⌉]` by a windowed sinc, as a strided convolution.

    Band-limited interpolation (Smith, "Digital Audio Resampling", 2002) with torchaudio's kernel in the
    settings that match librosa's `kaiser_best`. For arrays outside networks `resample` is used.

    Args:
        from_rate: sample rate of the input in Hz.
        to_rate: sample rate of the output in Hz.

    Raises:
        InputError: a rate that is not positive.

    >>> Resample(16000, 8000)(torch.zeros(2, 16001)).shape
    torch.Size([2, 8001])
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        super().__init__()
        if from_rate < 1 or to_rate < 1:
            raise InputError(f"a sample rate of {min(from_rate, to_rate)} Hz; it has to be positive")
        self.from_rate, self.to_rate = from_rate, to_rate
        common = math.gcd(from_rate, to_rate)
        self._step_in, self._step_out = from_rate // common, to_rate // common
        kernel = torch.ones(1, 1, 1)
        self._width = 0
        if from_rate != to_rate:
            from torchaudio.transforms import Resample as SincKernel

            sinc = SincKernel(
                from_rate,
                to_rate,
                resampling_method="sinc_interp_kaiser",
                lowpass_filter_width=64,
                rolloff=0.9475937167399596,
                beta=14.769656459379492,
            )
            kernel, self._width = sinc.kernel, sinc.width
        self.register_buffer("kernel", kernel, persistent=False)
        self.kernel: Tensor

    def forward(self, waveform: Tensor) -> Tensor:
        """The waveform `[..., T]` at `to_rate`."""
        if self.from_rate == self.to_rate:
            return waveform
        num_samples = waveform.shape[-1]
        length = -(-num_samples * self._step_out // self._step_in)
        rows = waveform.reshape(-1, 1, num_samples)
        rows = F.pad(rows, (self._width, self._width + self._step_in))
        # One output channel for each phase of the output grid; a stride moves all of them by `_step_in`
        # samples.
        phases = F.conv1d(rows, self.kernel.to(rows.dtype), stride=self._step_in)
        interleaved = phases.transpose(1, 2).reshape(len(rows), -1)
        return interleaved[:, :length].reshape(*waveform.shape[:-1], length)
