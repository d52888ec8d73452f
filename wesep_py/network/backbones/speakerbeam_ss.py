"""SpeakerBeam-SS: a wide learned basis at a low frame rate, and state-space layers that remember for long.

After Sato et al., "SpeakerBeam-SS: real-time target speaker extraction with lightweight Conv-TasNet and state space
modeling" (Interspeech 2024, arXiv 2407.01857):

    waveform ─► 4096 filters of 20 ms, hop 10 ms ─► norm, 1×1 ─► n × (Conv1D block, S4D block) ─► mask ─► decoder
                                                                 │
                                                                 fusion point before each pair

Certain are the basis, the Conv1D blocks of Conv-TasNet, S4D (Gu et al., "On the parameterization and initialization of
diagonal state space models", NeurIPS 2022) with 32 states, GELU, GLU and a feed-forward layer, and that all of it is
causal. The number of pairs and the size of the feed-forward layer are ours. Every norm is over the channels of a frame,
because a network has to be trained with the norm that it streams with.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from wesep_py.network.backbones.backbone import Condition, backbones
from wesep_py.network.backbones.conv_tasnet import ChannelNorm, TCNBlock
from wesep_py.network.backbones.masked_basis import MaskedBasis
from wesep_py.network.backbones.spectrum import full_precision

STATE_CHUNK = 256
"""Frames at a time over which the state after a recording is summed: their powers of A are in memory."""
MIN_STEP, MAX_STEP = 1e-3, 1e-1
"""Range of the steps Δ that S4D begins with, in frames."""


@backbones.register("speakerbeam_ss")
class SpeakerBeamSS(MaskedBasis):
    """SpeakerBeam-SS; always causal.

    The latent is `[batch, bottleneck, frames]`; an embedding is fused along its second axis, before each pair.

    Args:
        sample_rate: Hz (given by the model).
        input_channels: feature channels, those of the cues included (given by the model).
        kernel_ms, hop_ms: window of the learned encoder and its shift, in milliseconds.
        num_filters: filters of the encoder.
        bottleneck: channels of the residual path.
        hidden: channels within a Conv1D block.
        kernel: taps of its depthwise convolution.
        num_blocks: number of pairs of a Conv1D block, with dilation 1, 2, 4, …, and an S4D block.
        num_states: complex states of a channel in conjugate pairs: half of them are computed; even.
        feedforward: channels within the feed-forward layer of an S4D block.

    Raises:
        ValueError: sizes below 1, a hop longer than the window, an odd number of states.

    >>> network = SpeakerBeamSS(num_filters=8, bottleneck=4, hidden=8, num_blocks=2, feedforward=8)
    >>> analysis = network.analyse(torch.randn(2, 1000))
    >>> latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    >>> network.synthesise(latent, analysis, 1000)[0].shape
    torch.Size([2, 1000])
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        input_channels: int = 1,
        kernel_ms: float = 20.0,
        hop_ms: float = 10.0,
        num_filters: int = 4096,
        bottleneck: int = 256,
        hidden: int = 512,
        kernel: int = 3,
        num_blocks: int = 3,
        num_states: int = 32,
        feedforward: int = 1024,
    ) -> None:
        if min(num_filters, bottleneck, hidden, kernel, num_blocks, feedforward) < 1:
            raise ValueError("num_filters, bottleneck, hidden, kernel, num_blocks, feedforward: must be 1 or more")
        if num_states < 2 or num_states % 2:
            raise ValueError(f"num_states: is {num_states}; an even number is needed")
        super().__init__(sample_rate, kernel_ms, hop_ms, num_filters, causal=True)
        self.latent_dim, self.num_fusion_points = bottleneck, num_blocks
        features = input_channels * num_filters
        self.input = nn.Sequential(ChannelNorm(features, "frame"), nn.Conv1d(features, bottleneck, 1))
        self.convolutions = nn.ModuleList(
            TCNBlock(bottleneck, hidden, kernel, 2**i, "frame", causal=True) for i in range(num_blocks)
        )
        self.state_spaces = nn.ModuleList(S4DBlock(bottleneck, num_states, feedforward) for _ in range(num_blocks))
        self.mask = nn.Sequential(nn.Conv1d(bottleneck, num_filters, 1), nn.ReLU())

    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        latent, new_state = self.input(features.flatten(1, 2)), []
        for point, (convolution, state_space) in enumerate(zip(self.convolutions, self.state_spaces, strict=True)):
            past, memory = (None, None) if state is None else state[point]
            latent, past = convolution(condition(point, latent), past)
            latent, memory = state_space(latent, memory)
            new_state.append((past, memory))
        return latent, new_state


class S4DBlock(nn.Module):
    """Two residual layers: S4D with GELU and GLU, then a feed-forward layer; each behind a norm.

    Args:
        channels, num_states: as for `S4D`.
        feedforward: channels within the feed-forward layer.
    """

    def __init__(self, channels: int, num_states: int, feedforward: int) -> None:
        super().__init__()
        self.norm, self.state_space = ChannelNorm(channels, "frame"), S4D(channels, num_states)
        self.gate = nn.Conv1d(channels, 2 * channels, 1)
        self.feedforward = nn.Sequential(
            ChannelNorm(channels, "frame"),
            nn.Conv1d(channels, feedforward, 1),
            nn.GELU(),
            nn.Conv1d(feedforward, channels, 1),
        )

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`[batch, channels, frames]` and the state of the frames before → the same."""
        out, state = self.state_space(self.norm(x), state)
        x = x + nn.functional.glu(self.gate(nn.functional.gelu(out)), dim=1)
        return x + self.feedforward(x), state


class S4D(nn.Module):
    """Diagonal state-space layer: each channel is filtered by its own linear system.

    With A = −exp(a) + i b, B = 1 and zero-order hold of step Δ: `Ā = exp(ΔA)`, `B̄ = (Ā − 1) / A`, and

        recurrence    x_t = Ā x_{t−1} + B̄ u_t,   y_t = 2 Re(Σ_n C_n x_t,n) + D u_t
        convolution   y = K ∗ u + D u,           K_l = 2 Re(Σ_n C_n B̄_n Ā_nˡ)

    A recording from its start is convolved by FFT; the frames after a state follow by the recurrence. Computed in
    float32, because a long memory has |Ā| next to 1. A begins as −½ + i π n (S4D-Lin).

    Args:
        channels: number of systems.
        num_states: states of each, in conjugate pairs.
    """

    def __init__(self, channels: int, num_states: int) -> None:
        super().__init__()
        pairs = num_states // 2
        steps = torch.rand(channels) * (math.log(MAX_STEP) - math.log(MIN_STEP)) + math.log(MIN_STEP)
        self.log_step = nn.Parameter(steps)
        self.log_decay = nn.Parameter(torch.full((channels, pairs), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(pairs).expand(channels, pairs).clone())
        self.output = nn.Parameter(torch.randn(channels, pairs, 2) * math.sqrt(0.5))
        self.direct = nn.Parameter(torch.randn(channels))

    def systems(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ΔA, B̄ and C, complex `[channels, pairs]`."""
        a = torch.complex(-self.log_decay.exp(), self.frequency)
        scaled = a * self.log_step.exp()[:, None]
        return scaled, (scaled.exp() - 1) / a, torch.view_as_complex(self.output)

    def forward(self, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Filter the next frames.

        Args:
            u: `[batch, channels, frames]`.
            state: of the frames before, `[batch, channels, pairs, 2]` (real and imaginary part); `None` at the start.

        Returns:
            Of the same shape, and the state after them.
        """
        with torch.autocast(u.device.type, enabled=False):
            u = full_precision(u)
            out, new_state = self.convolve(u) if state is None else self.recur(u, state)
            return out + self.direct[:, None] * u, new_state

    def convolve(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output for `[batch, channels, frames]` without the direct path, by convolution, and the state."""
        scaled, b, c = self.systems()
        num_frames = u.shape[2]
        powers = (scaled[..., None] * torch.arange(num_frames, device=u.device)).exp()
        kernel = 2 * torch.einsum("hn,hnl->hl", b * c, powers).real
        size = 2 * num_frames
        out = torch.fft.irfft(torch.fft.rfft(u, size) * torch.fft.rfft(kernel, size), size)[..., :num_frames]
        # State: Σ_l Ā^(frames − 1 − l) B̄ u_l, chunk by chunk.
        state = u.new_zeros(*u.shape[:2], scaled.shape[1], dtype=scaled.dtype)
        for chunk in u.split(STATE_CHUNK, dim=2):
            length = chunk.shape[2]
            remaining = powers[..., :length].flip(-1)
            state = (scaled * length).exp() * state + torch.einsum(
                "hnl,bhl->bhn", remaining, chunk.to(remaining.dtype)
            ) * b
        return out, torch.view_as_real(state)

    def recur(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output for `[batch, channels, frames]` without the direct path, by recurrence, and the state."""
        scaled, b, c = self.systems()
        decay, x, outputs = scaled.exp(), torch.view_as_complex(state), []
        for frame in u.unbind(dim=2):
            x = decay * x + b * frame[..., None]
            outputs.append(2 * (c * x).sum(dim=-1).real)
        return torch.stack(outputs, dim=2), torch.view_as_real(x)
