"""High-pass filters, which remove what lies below speech: a constant, the hum of machines, rumble.

A recorder's constant or a lorry's 20 Hz is inaudible, but it changes the lowest bins of a network's input completely.
Both filters subtract a low-passed copy of the waveform, so what they keep and what they remove sum to the waveform.
`HighPass` is for whole recordings, `CausalHighPass` for streaming; the latter's low-pass is a `OnePole`. The filters of
`HighPass` are designed in `array_high_pass`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.features.array_high_pass import SECOND_STEP, HighPassDesign


class HighPass(nn.Module):
    """Zero-phase high-pass for whole recordings: it does not shift the phase of what it keeps.

    The low-passed copy is made by linear-phase filters (Kaiser window, 60 dB), at a low sample rate, and interpolated:

    ```
    waveform ──┬─────────────────────────────────────────────────────────────────────────── − ──► result
               └─► low-pass, 16 kHz to 2 kHz ─► low-pass, 2 kHz to 500 Hz ─► interpolate ───┘
    ```

    Both ends of a recording are extended with their reflections, so nothing rings there. A constant is removed exactly.

    Args:
        sample_rate: in Hz.
        cutoff_hz: frequencies below are attenuated by 60 dB; those from 1.5 times the cutoff up are kept. Above 0 and
            below a sixteenth of the sample rate.

    Raises:
        ValueError: a cutoff that is not between 0 and a sixteenth of the sample rate.

    >>> time_s = torch.arange(16000) / 16000
    >>> rumble = 0.1 + 0.1 * torch.sin(2 * torch.pi * 20 * time_s)[None]
    >>> bool(HighPass(16000, 40.0)(rumble)[:, 1600:-1600].abs().max() < 2e-4)
    True
    """

    def __init__(self, sample_rate: int, cutoff_hz: float) -> None:
        super().__init__()
        design = HighPassDesign(sample_rate, cutoff_hz)
        self.sample_rate, self.cutoff_hz = sample_rate, cutoff_hz
        self.first_step, self.step, self.reach, self._inner = (
            design.first_step,
            design.step,
            design.reach,
            design.inner,
        )
        first, second, phases = (torch.from_numpy(kernel) for kernel in (design.first, design.second, design.phases))
        self.register_buffer("first", first[None, None].float(), persistent=False)
        self.register_buffer("second", second[None, None].float(), persistent=False)
        self.register_buffer("phases", phases[:, None].float().contiguous(), persistent=False)
        self.first: Tensor
        self.second: Tensor
        self.phases: Tensor

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Filter waveforms, in at least float32, also under autocast.

        Args:
            waveform: `[batch, samples]`.
            lengths: `[batch]`, samples of each before it was padded; `None` if none was. Padding becomes zero.

        Returns:
            `[batch, samples]`.
        """
        num_samples = waveform.shape[1]
        if num_samples == 0:
            return waveform
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform if waveform.dtype == torch.float64 else waveform.float()
            # The mean is removed first: it is most of what is to be removed, and otherwise costs precision.
            if lengths is None:
                waveform = waveform - waveform.mean(dim=1, keepdim=True)
                return waveform - self._low(self._extended(waveform), num_samples)
            lengths = lengths.to(waveform.device).clamp(min=1, max=num_samples)[:, None]
            valid = torch.arange(num_samples, device=waveform.device)[None] < lengths
            waveform = waveform * valid
            waveform = (waveform - waveform.sum(dim=1, keepdim=True) / lengths) * valid
            return (waveform - self._low(self._extended(waveform, lengths), num_samples)) * valid

    def _extended(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Extend waveforms by their reflections at both ends: … 2 1 | 0 1 2 … N−1 | N−2 N−3 …"""
        before, after = self.reach, self.reach + self.step
        if lengths is None and waveform.shape[1] > after:
            return F.pad(waveform[:, None], (before, after), mode="reflect")[:, 0]
        last = waveform.shape[1] - 1 if lengths is None else lengths - 1
        last = torch.as_tensor(last, device=waveform.device)
        position = torch.arange(-before, waveform.shape[1] + after, device=waveform.device)[None]
        # The reflections repeat with period 2 · last, as often as a short recording needs. With last = 3:
        #
        #   position    −2 −1  0  1  2  3  4  5  6
        #   remainder    4  5  0  1  2  3  4  5  0      position modulo 6
        #   source       2  1  0  1  2  3  2  1  0      last − |last − remainder|
        position = last - (last - torch.remainder(position, (2 * last).clamp_min(1))).abs()
        return waveform.gather(1, position.clamp_min(0).expand(len(waveform), -1))

    def _low(self, extended: Tensor, num_samples: int) -> Tensor:
        """Return the low-passed copy `[batch, num_samples]` of the output of `_extended`."""
        dtype = extended.dtype
        # Sample m of the low rate is centred on sample m · step − inner of the waveform. After the interpolation,
        # sample t of the waveform is at index t + 2 · inner.
        low = F.conv1d(extended[:, None], self.first.to(dtype), stride=self.first_step)
        low = F.conv1d(low, self.second.to(dtype), stride=SECOND_STEP)
        margin = self.phases.shape[-1] - 1
        low = F.conv1d(F.pad(low, (margin, margin)), self.phases.to(dtype)).transpose(1, 2).flatten(1)
        return low[:, 2 * self._inner : 2 * self._inner + num_samples]

    def extra_repr(self) -> str:
        """Return the arguments, for printing the module."""
        return f"sample_rate={self.sample_rate}, cutoff_hz={self.cutoff_hz:g}"


class OnePole(nn.Module):
    """First-order low-pass (exponential average) of waveforms, in blocks of any size.

    ```
    low[n] = a · low[n−1] + (1 − a) · x[n]          a = exp(−1 / time_constant)
    ```

    Args:
        time_constant: in samples; above 0.

    >>> low = OnePole(100.0)(torch.ones(1, 1000), torch.zeros(1, 1))
    >>> round(float(low[0, 99]), 3)  # 1 − 1/e after a time constant
    0.632
    """

    def __init__(self, time_constant: float) -> None:
        super().__init__()
        rate = 1 / time_constant
        # The recursion is computed without a loop over samples. Within a block of K = 2 / rate samples it is
        #
        #   low[k] = aᵏ · Σ_{j ≤ k} (1 − a) · x[j] · a⁻ʲ + aᵏ⁺¹ · low[−1]        a⁻ʲ is at most e², so nothing overflows
        #
        # with a cumulative sum. From block to block it decays by aᴷ = e⁻², so `low` at the start of a block is a
        # convolution of the ends of the 12 blocks before with powers of e⁻²; e⁻²⁴ is below the resolution of float32.
        self.block, self.gain = max(1, int(2 / rate)), 1 - math.exp(-rate)
        powers = torch.exp(-rate * torch.arange(self.block + 1, dtype=torch.float64))
        block_decay = powers[-1] ** torch.arange(12, dtype=torch.float64)
        self.register_buffer("powers", powers.float(), persistent=False)
        self.register_buffer("block_decay", block_decay.flip(0)[None, None].float(), persistent=False)
        self.powers: Tensor
        self.block_decay: Tensor

    def forward(self, waveform: Tensor, before: Tensor) -> Tensor:
        """Filter the next samples.

        Args:
            waveform: `[batch, samples]`.
            before: `[batch, 1]`, the result at the sample before; 0 at the start.

        Returns:
            `[batch, samples]`.
        """
        num_samples, powers = waveform.shape[1], self.powers.to(waveform.dtype)
        if num_samples <= self.block:
            within = self.gain * (waveform / powers[:num_samples]).cumsum(dim=1) * powers[:num_samples]
            return within + before * powers[1 : num_samples + 1]
        blocks = F.pad(waveform, (0, -num_samples % self.block)).unflatten(1, (-1, self.block))
        within = self.gain * (blocks / powers[:-1]).cumsum(dim=2) * powers[:-1]
        # Value before each block: the ends of the blocks before it, each decayed by e⁻² per block in between.
        ends, block_decay = torch.cat([before, within[:, :-1, -1]], dim=1)[:, None], self.block_decay.to(powers.dtype)
        starts = F.conv1d(F.pad(ends, (block_decay.shape[-1] - 1, 0)), block_decay)[:, 0]
        return (within + starts[..., None] * powers[1:]).flatten(1)[:, :num_samples]


class HighPassState(NamedTuple):
    """Streaming state of a `CausalHighPass`.

    Attributes:
        first: `[batch, 1]`, the recording's first sample, which stands for all samples before it.
        low: `[batch, 1]`, the low-passed copy at the last sample, minus `first`.
    """

    first: Tensor
    low: Tensor


class CausalHighPass(nn.Module):
    """Causal first-order high-pass: removes a constant and slow changes, without look-ahead.

    It starts as if the first sample had lasted for ever, so a constant gives zeros from the first sample on. A causal
    filter that removed a rumble of 20 Hz would shift the phase of voices at 100 Hz by a third of a cycle, because its
    gain determines its phase. This filter, at 5 Hz, shifts it by 3°. It subtracts a `OnePole` from the waveform.

    Args:
        sample_rate: in Hz.
        cutoff_hz: frequency at which half the power is kept; above 0 and below a sixteenth of the sample rate.

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
        self.low_pass = OnePole(sample_rate / (2 * math.pi * cutoff_hz))

    def forward(self, waveform: Tensor, state: HighPassState | None = None) -> tuple[Tensor, HighPassState]:
        """Filter the next samples of recordings, in at least float32.

        Args:
            waveform: `[batch, samples]`.
            state: returned by the call before; `None` at the start of the recordings.

        Returns:
            `[batch, samples]`, and the state after them.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform if waveform.dtype == torch.float64 else waveform.float()
            if state is None:
                state = HighPassState(waveform[:, :1], torch.zeros_like(waveform[:, :1]))
            if waveform.shape[1] == 0:
                return waveform, state
            shifted = waveform - state.first
            low = self.low_pass(shifted, state.low)
            return shifted - low, HighPassState(state.first, low[:, -1:])

    def extra_repr(self) -> str:
        """Return the arguments, for printing the module."""
        return f"sample_rate={self.sample_rate}, cutoff_hz={self.cutoff_hz:g}"
