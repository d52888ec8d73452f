"""Preprocessing of a network's input: high-pass, and division by the level.

    whole recording     ─► scaled down if its squares would overflow ─► zero-phase high-pass ─► ÷ level of the recording
    block of a mixture  ─► clipped to MAX_SAMPLE ─► causal high-pass ─► ÷ level until now

Enrollments are whole recordings, also of a causal network. The network multiplies its estimate by the level again.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from wesep_py.features import CausalHighPass, HighPass, LevelTracker
from wesep_py.network.speaker import length_mask

# A causal filter shifts the phase of what is above its cutoff. A cutoff of 40 Hz would shift the phase of voices; an
# eighth of it, 5 Hz, shifts the phase at 100 Hz by 3°.
CAUSAL_CUTOFF_RATIO = 1 / 8
# Samples above MAX_SAMPLE occur in no recording, and their squares may overflow. They are scaled by SHRINK before
# levels are computed. A causal network does not know the samples to come, so it clips them instead.
MAX_SAMPLE, SHRINK = 1e9, 2.0**-100
MIN_RECORDING_LEVEL = 1e-8
"""A recording with no higher level is silence, and is not divided."""


class FrontEndState(NamedTuple):
    """Streaming state of high-pass and level tracker; `None` for one that the network does not have."""

    high_pass: Any = None
    level: Any = None


class Preprocessing(nn.Module):
    """High-pass, and division by the level.

    It has no parameters, and none of its buffers is stored.

    Args:
        sample_rate: in Hz.
        highpass_hz: cutoff of the high-pass in Hz; 0 for none.
        normalise: level by which waveforms are divided (`ModelConfig.normalise`).
        causal: mixtures are filtered block by block.

    Attributes:
        high_pass: of whole recordings; or `None`.
        causal_high_pass: of a mixture block by block, with a lower cutoff; or `None`.
        level_tracker: with `tracked`; else `None`.

    >>> preprocess = Preprocessing(16000, 40.0, "rms", causal=False)
    >>> waveform, level = preprocess(0.1 * torch.randn(2, 16000))
    >>> torch.allclose(waveform.square().mean(dim=1), torch.ones(2))
    True
    """

    def __init__(
        self,
        sample_rate: int,
        highpass_hz: float,
        normalise: Literal["none", "rms", "std", "tracked"],
        causal: bool,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.high_pass = HighPass(sample_rate, highpass_hz) if highpass_hz else None
        self.causal_high_pass = None
        if causal and highpass_hz:
            self.causal_high_pass = CausalHighPass(sample_rate, CAUSAL_CUTOFF_RATIO * highpass_hz)
        self.level_tracker = LevelTracker(sample_rate) if normalise == "tracked" else None

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | float]:
        """Filter a whole recording with the high-pass and divide it by its level, as `normalise` says.

        Args:
            waveform: `[batch, samples]`.
            lengths: `[batch]`, samples of each before it was padded; `None` if none was.

        Returns:
            `[batch, samples]`, and the divisor `[batch, 1]`.
        """
        peak = waveform.detach().abs().amax(dim=1, keepdim=True) if waveform.shape[1] else waveform.sum(1, True)
        # A power of two changes exponents only, so that everything but the scale stays bit-exact.
        shrink = torch.where(peak > MAX_SAMPLE, SHRINK, 1.0).to(waveform.dtype)
        waveform = waveform * shrink
        if self.high_pass is not None:
            waveform = self.high_pass(waveform, lengths)
        scale = self._level(waveform, lengths)
        return waveform / scale, scale / shrink

    def forward_block(
        self, waveform: Tensor, state: FrontEndState | None = None
    ) -> tuple[Tensor, Tensor | float, FrontEndState]:
        """Filter the next samples of a mixture for a causal backbone, and divide them by the level until now.

        The filter removes a constant and slow changes.

        Args:
            waveform: `[batch, samples]`.
            state: returned by the call before; `None` at the start of a recording.

        Returns:
            `[batch, samples]`, the divisor (1, or `[batch, samples]` with `normalise: tracked`), and the state after
            the samples.
        """
        high_pass, level = state or FrontEndState()
        waveform = waveform.clamp(-MAX_SAMPLE, MAX_SAMPLE)
        if self.causal_high_pass is not None:
            waveform, high_pass = self.causal_high_pass(waveform, high_pass)
        scale: Tensor | float = 1.0
        if self.level_tracker is not None:
            scale, level = self.level_tracker(waveform, level)
            waveform = waveform / scale
        return waveform, scale, FrontEndState(high_pass, level)

    def _level(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor | float:
        """Return the level `[batch, 1]` by which a waveform without overflows is divided; 1 for silence."""
        if self.normalise == "none":
            return 1.0
        # A `tracked` network divides an enrollment, which it knows as a whole, by its RMS.
        lengths = full_lengths(waveform) if lengths is None else lengths
        valid, count = length_mask(lengths, waveform.shape[1]), lengths.clamp_min(1)[:, None]
        waveform = waveform.float() * valid
        if self.normalise == "std":
            waveform = (waveform - waveform.sum(dim=1, keepdim=True) / count) * valid
            count = (count - 1).clamp_min(1)  # the unbiased estimate, as TF-GridNet's authors compute it
        level = (waveform.square().sum(dim=1, keepdim=True) / count).sqrt()
        return torch.where(level > MIN_RECORDING_LEVEL, level, torch.ones_like(level))


def full_lengths(waveform: Tensor) -> Tensor:
    """Return the lengths `[batch]` of waveforms `[batch, samples]` without padding."""
    return torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
