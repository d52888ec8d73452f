"""Causal level of a waveform, for networks that need input at a known level and cannot know that of the recording."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.features.high_pass import OnePole

MIN_LEVEL = 1e-4
"""Lowest level that `LevelTracker` returns (−80 dB): silence, and the noise of a quiet recorder, stay quiet."""


class LevelState(NamedTuple):
    """Streaming state of a `LevelTracker`.

    Attributes:
        power: `[batch, 1]`, the exponential average of the squares at the last sample.
        weight: `[batch, 1]`, the sum of the weights in that average, which approaches 1.
    """

    power: Tensor
    weight: Tensor


class LevelTracker(nn.Module):
    """Slow causal level: the RMS of the samples until now, of which later ones count more.

    The squares are averaged exponentially, and the average is divided by the sum of its weights (as in Adam), so the
    level is right from the first sample on and does not rise from zero:

    ```
    power[n] = a · power[n−1] + (1 − a) · x[n]²       level[n] = √(power[n] / (1 − aⁿ⁺¹)), at least MIN_LEVEL
    ```

    Args:
        sample_rate: in Hz.
        time_constant_s: seconds after which the weight of a sample has fallen to 1/e; above 0. It has to be long:
            a fast tracker would remove the loudness contour of speech.

    Raises:
        ValueError: a time constant that is not above 0.

    >>> level, _ = LevelTracker(16000)(torch.full((1, 8000), 0.1))
    >>> torch.allclose(level, torch.tensor(0.1))
    True
    """

    def __init__(self, sample_rate: int, time_constant_s: float = 3.0) -> None:
        super().__init__()
        if not time_constant_s > 0:
            raise ValueError(f"time_constant_s: is {time_constant_s}; above 0 s is allowed")
        self.average = OnePole(time_constant_s * sample_rate)

    def forward(self, waveform: Tensor, state: LevelState | None = None) -> tuple[Tensor, LevelState]:
        """Return the level at each of the next samples.

        Args:
            waveform: `[batch, samples]`.
            state: returned by the call before; `None` at the start of the recordings.

        Returns:
            `[batch, samples]`, and the state after them.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform if waveform.dtype == torch.float64 else waveform.float()
            if state is None:
                zero = waveform.new_zeros(len(waveform), 1)
                state = LevelState(zero, zero)
            if waveform.shape[1] == 0:
                return waveform, state
            power = self.average(waveform.square(), state.power)
            weight = self.average(torch.ones_like(waveform), state.weight)
            level = (power / weight).sqrt().clamp_min(MIN_LEVEL)
            return level, LevelState(power[:, -1:], weight[:, -1:])
