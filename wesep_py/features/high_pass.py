"""What lies below speech taken out of a waveform: a constant, hum of machines, rumble.

A recorder's constant or a lorry's 20 Hz changes nothing that is heard, and everything that a network sees in its
lowest bins. Both filters here subtract a low-passed copy of the waveform, so what they keep and what they take away
sum to it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of the low-pass: attenuation of what it should not let through, and its pass band's ripple likewise.
_ATTENUATION_DB = 80.0
# It ends its pass band at the cutoff and stops at this multiple of it: 60 Hz, below the lowest voices, for 40 Hz.
_STOP = 1.5
# Its narrow band is cut out at about 50 times the cutoff, and kept at a quarter of that rate.
_FIRST_RATE, _SECOND_STEP = 50, 4


class HighPass(nn.Module):
    """Remove what lies below a frequency from whole recordings, without moving the phase of what is kept.

    The low-passed copy is that of linear-phase filters (Kaiser window, 60 dB), computed at a low rate and interpolated:

    ```
    waveform ──┬─────────────────────────────────────────────────────────────────────────── − ──► result
               └─► low-pass, 16 kHz to 2 kHz ─► low-pass, 2 kHz to 500 Hz ─► interpolate ───┘
    ```

    Beyond its ends a recording goes on as its reflection, so nothing rings there. A constant is removed exactly.

    Args:
        sample_rate: in Hz.
        cutoff_hz: what lies below is removed (by 60 dB); from 1.5 times this frequency up all is kept.

    Raises:
        ValueError: a cutoff that is not between 0 and a sixteenth of the sample rate.

    >>> time_s = torch.arange(16000) / 16000
    >>> rumble = 0.1 + 0.1 * torch.sin(2 * torch.pi * 20 * time_s)[None]
    >>> bool(HighPass(16000, 40.0)(rumble)[:, 1600:-1600].abs().max() < 2e-4)
    True
    """

    def __init__(self, sample_rate: int, cutoff_hz: float) -> None:
        super().__init__()
        if not 0 < cutoff_hz < sample_rate / 16:
            raise ValueError(f"cutoff_hz: is {cutoff_hz}; above 0 and below {sample_rate / 16:g} Hz is allowed")
        self.sample_rate, self.cutoff_hz = sample_rate, cutoff_hz
        stop_hz = _STOP * cutoff_hz
        self.first_step = max(1, round(sample_rate / (_FIRST_RATE * cutoff_hz)))
        self.step = self.first_step * _SECOND_STEP
        first_rate, low_rate = sample_rate / self.first_step, sample_rate / self.step
        first = _low_pass(sample_rate, stop_hz, first_rate - stop_hz)
        second = _low_pass(first_rate, cutoff_hz, stop_hz)
        interpolate = _low_pass(sample_rate, stop_hz, low_rate - stop_hz, self.step)
        self._inner = len(interpolate) // 2
        self.reach = len(first) // 2 + len(second) // 2 * self.first_step + self._inner
        # One output channel for each of the samples between two of the low rate.
        phases = F.pad(interpolate, (0, -len(interpolate) % self.step)).unflatten(0, (-1, self.step)).flip(0).T
        self.register_buffer("first", first[None, None].float(), persistent=False)
        self.register_buffer("second", second[None, None].float(), persistent=False)
        self.register_buffer("phases", phases[:, None].float().contiguous(), persistent=False)
        self.first: Tensor
        self.second: Tensor
        self.phases: Tensor

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Filter, in float32 at least, also where autocast is on.

        Args:
            waveform: `[batch, samples]`.
            lengths: `[batch]`, samples of each before it was padded; all, if `None`. Padding becomes zero.

        Returns:
            `[batch, samples]`.
        """
        num_samples = waveform.shape[1]
        if num_samples == 0:
            return waveform
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform if waveform.dtype == torch.float64 else waveform.float()
            # The mean first: it is most of what there is to remove, and costs the filter's precision otherwise.
            if lengths is None:
                waveform = waveform - waveform.mean(dim=1, keepdim=True)
                return waveform - self._low(self._extended(waveform), num_samples)
            lengths = lengths.to(waveform.device).clamp(min=1, max=num_samples)[:, None]
            valid = torch.arange(num_samples, device=waveform.device)[None] < lengths
            waveform = waveform * valid
            waveform = (waveform - waveform.sum(dim=1, keepdim=True) / lengths) * valid
            return (waveform - self._low(self._extended(waveform, lengths), num_samples)) * valid

    def _extended(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The waveforms with their reflections before and behind: … 2 1 | 0 1 2 … N−1 | N−2 N−3 …"""
        before, behind = self.reach, self.reach + self.step
        if lengths is None and waveform.shape[1] > behind:
            return F.pad(waveform[:, None], (before, behind), mode="reflect")[:, 0]
        last = waveform.shape[1] - 1 if lengths is None else lengths - 1
        last = torch.as_tensor(last, device=waveform.device)
        position = torch.arange(-before, waveform.shape[1] + behind, device=waveform.device)[None]
        position = last - (last - torch.remainder(position, (2 * last).clamp_min(1))).abs()
        return waveform.gather(1, position.clamp_min(0).expand(len(waveform), -1))

    def _low(self, extended: Tensor, num_samples: int) -> Tensor:
        """The low-passed copy `[batch, num_samples]` of what `_extended` returned."""
        dtype = extended.dtype
        # Sample m of the low rate is centred on sample m · step − inner of the waveform; interpolated, sample t of the
        # waveform stands at t + 2 · inner.
        low = F.conv1d(extended[:, None], self.first.to(dtype), stride=self.first_step)
        low = F.conv1d(low, self.second.to(dtype), stride=_SECOND_STEP)
        margin = self.phases.shape[-1] - 1
        low = F.conv1d(F.pad(low, (margin, margin)), self.phases.to(dtype)).transpose(1, 2).flatten(1)
        return low[:, 2 * self._inner : 2 * self._inner + num_samples]

    def extra_repr(self) -> str:
        """The arguments, for printing the module."""
        return f"sample_rate={self.sample_rate}, cutoff_hz={self.cutoff_hz:g}"


class HighPassState(NamedTuple):
    """Where a `CausalHighPass` is in a recording.

    Attributes:
        first: `[batch, 1]`, the recording's first sample: what it is taken to have been before it began.
        low: `[batch, 1]`, the low-passed copy at the last sample, less `first`.
    """

    first: Tensor
    low: Tensor


class CausalHighPass(nn.Module):
    """Remove a constant, and what changes more slowly than a frequency, sample by sample without looking ahead.

    A first-order filter that starts as if the first sample had lasted for ever: a constant gives zeros from the first
    sample on. A causal filter that removed a rumble of 20 Hz would turn the phase of voices of 100 Hz by a third of a
    cycle (its gain decides its phase); this one, at 5 Hz, turns it by 3°.

    ```
    low[n] = a · low[n−1] + (1 − a) · x[n]        result = x − low        a = exp(−2π · cutoff_hz / sample_rate)
    ```

    Args:
        sample_rate: in Hz.
        cutoff_hz: where half the power is kept.

    Raises:
        ValueError: a cutoff that is not between 0 and a sixteenth of the sample rate.

    >>> whole, _ = CausalHighPass(16000, 5.0)(torch.full((1, 8000), 0.1))
    >>> float(whole.abs().max())
    0.0
    """

    def __init__(self, sample_rate: int, cutoff_hz: float) -> None:
        super().__init__()
        if not 0 < cutoff_hz < sample_rate / 16:
            raise ValueError(f"cutoff_hz: is {cutoff_hz}; above 0 and below {sample_rate / 16:g} Hz is allowed")
        self.sample_rate, self.cutoff_hz = sample_rate, cutoff_hz
        rate = 2 * math.pi * cutoff_hz / sample_rate
        # Within a block of 2 / rate samples the recursion is a running sum of samples that are weighted by a⁻ᵏ, at
        # most e²; from block to block it is a convolution with a few powers of e⁻².
        self.block, self.share = max(1, int(2 / rate)), 1 - math.exp(-rate)
        powers = torch.exp(-rate * torch.arange(self.block + 1, dtype=torch.float64))
        carried = powers[-1] ** torch.arange(12, dtype=torch.float64)
        self.register_buffer("powers", powers.float(), persistent=False)
        self.register_buffer("carried", carried.flip(0)[None, None].float(), persistent=False)
        self.powers: Tensor
        self.carried: Tensor

    def forward(self, waveform: Tensor, state: HighPassState | None = None) -> tuple[Tensor, HighPassState]:
        """Filter the next samples of recordings, in float32 at least.

        Args:
            waveform: `[batch, samples]`.
            state: what the call before returned; `None` at the beginning.

        Returns:
            `[batch, samples]`, and the state after them.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform if waveform.dtype == torch.float64 else waveform.float()
            if state is None:
                state = HighPassState(waveform[:, :1], torch.zeros_like(waveform[:, :1]))
            num_samples = waveform.shape[1]
            if num_samples == 0:
                return waveform, state
            shifted = waveform - state.first
            low = self._low(shifted, state.low)[:, :num_samples]
            return shifted - low, HighPassState(state.first, low[:, -1:])

    def _low(self, waveform: Tensor, before: Tensor) -> Tensor:
        powers, carried = self.powers.to(waveform.dtype), self.carried.to(waveform.dtype)
        blocks = F.pad(waveform, (0, -waveform.shape[1] % self.block)).unflatten(1, (-1, self.block))
        within = self.share * (blocks / powers[:-1]).cumsum(dim=2) * powers[:-1]
        # What each block begins with: the sum of the ends of those before it, each e⁻² less a block further on.
        ends = torch.cat([before, within[:, :-1, -1]], dim=1)[:, None]
        begins = F.conv1d(F.pad(ends, (carried.shape[-1] - 1, 0)), carried)[:, 0]
        return (within + begins[..., None] * powers[1:]).flatten(1)

    def extra_repr(self) -> str:
        """The arguments, for printing the module."""
        return f"sample_rate={self.sample_rate}, cutoff_hz={self.cutoff_hz:g}"


def _low_pass(sample_rate: float, pass_hz: float, stop_hz: float, step: int = 1) -> Tensor:
    """A linear-phase low-pass of odd length whose samples, each `step`-th, sum to 1: Kaiser's design."""
    reach = math.ceil((_ATTENUATION_DB - 8) / (2.285 * 2 * math.pi * (stop_hz - pass_hz) / sample_rate) / 2)
    time = torch.arange(-reach, reach + 1, dtype=torch.float64)
    beta = 0.1102 * (_ATTENUATION_DB - 8.7)
    window = torch.special.i0(beta * (1 - (time / reach) ** 2).clamp_min(0).sqrt())
    kernel = torch.special.sinc(time * (pass_hz + stop_hz) / sample_rate) * window
    # Each phase by itself, so that a constant is interpolated to exactly that constant.
    for phase in range(step):
        kernel[phase::step] /= kernel[phase::step].sum()
    return kernel
