"""Resample waveforms inside a network: differentiable, on the device of the input.

Apart from `resample` because it imports torch, which reading and writing audio must not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import InputError


class SincResample(nn.Module):
    """Resample `[..., T] → [..., ⌈T · to_rate / from_rate⌉]` by a windowed sinc, as a strided convolution.

    Band-limited interpolation (Smith, "Digital Audio Resampling", 2002) with torchaudio's kernel in the
    settings that match librosa's `kaiser_best`. For arrays outside a network, use `audio.resample`.

    Args:
        from_rate: sample rate of the input in Hz.
        to_rate: sample rate of the output in Hz.

    Raises:
        InputError: a rate that is not positive.

    >>> SincResample(16000, 8000)(torch.zeros(2, 16001)).shape
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
            from torchaudio.transforms import Resample

            sinc = Resample(
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
        """Return the waveform `[..., T]` at `to_rate`."""
        if self.from_rate == self.to_rate:
            return waveform
        num_samples = waveform.shape[-1]
        length = -(-num_samples * self._step_out // self._step_in)
        rows = waveform.reshape(-1, 1, num_samples)
        rows = F.pad(rows, (self._width, self._width + self._step_in))
        # Between two strides of `_step_in` input samples lie `_step_out` output samples, at fixed phases relative to
        # the input. One kernel (output channel) computes each phase; interleaved, they are the output:
        #
        #     stride 0: phase 0, 1, …, _step_out - 1   stride 1: phase 0, 1, …
        phases = F.conv1d(rows, self.kernel.to(rows.dtype), stride=self._step_in)
        interleaved = phases.transpose(1, 2).reshape(len(rows), -1)
        return interleaved[:, :length].reshape(*waveform.shape[:-1], length)
