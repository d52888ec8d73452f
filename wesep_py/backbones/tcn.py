"""The temporal convolutional network of Conv-TasNet: residual blocks of dilated depthwise convolutions.

Luo & Mesgarani, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation" (TASLP 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.backbones.bands import full_precision

NormKind = Literal["global", "frame", "batch"]


def channel_norm(channels: int, kind: NormKind) -> nn.Module:
    """Normalisation of `[batch, channels, frames]`: a `ChannelNorm`, or for `batch` a batch normalisation."""
    return nn.BatchNorm1d(channels) if kind == "batch" else ChannelNorm(channels, kind)


class ChannelNorm(nn.Module):
    """Normalisation of `[batch, channels, frames]`; one weight and one bias a channel.

    Args:
        channels: size of the middle axis.
        kind: `global` takes mean and variance over channels and frames, `frame` over the channels of each frame.
        eps: added to the variance.

    >>> ChannelNorm(4, "frame")(torch.randn(2, 4, 10)).mean(dim=1).abs().max() < 1e-5
    tensor(True)
    """

    def __init__(self, channels: int, kind: Literal["global", "frame"], eps: float = 1e-5) -> None:
        super().__init__()
        self.kind, self.eps = kind, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = full_precision(x)
        if self.kind == "global":
            return nn.functional.group_norm(x, 1, self.weight, self.bias, self.eps)
        frames = nn.functional.layer_norm(x.transpose(1, 2), x.shape[1:2], self.weight, self.bias, self.eps)
        return frames.transpose(1, 2)


class TCNBlock(nn.Module):
    """1×1 convolution, dilated depthwise convolution, 1×1 convolution; PReLU and norm after the first two; residual.

    Args:
        channels: of the residual path.
        hidden: of what is between the 1×1 convolutions.
        kernel: taps of the depthwise convolution; odd, unless causal.
        dilation: frames between two taps.
        norm: see `channel_norm`.
        causal: the taps lie in the past.
        skip: another 1×1 convolution, `skip`, stands beside the last; see `forward`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        kernel: int,
        dilation: int,
        norm: NormKind,
        causal: bool,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation if causal else 0
        padding = 0 if causal else (kernel - 1) * dilation // 2
        self.expand = nn.Conv1d(channels, hidden, 1)
        self.activation1, self.norm1 = nn.PReLU(), channel_norm(hidden, norm)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel, dilation=dilation, padding=padding, groups=hidden)
        self.activation2, self.norm2 = nn.PReLU(), channel_norm(hidden, norm)
        self.project = nn.Conv1d(hidden, channels, 1)
        self.skip = nn.Conv1d(hidden, channels, 1) if skip else None

    def forward(
        self, x: Tensor, past: Tensor | None = None, steer: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """One block.

        Args:
            x: `[batch, channels, frames]`.
            past: what an earlier call returned: the frames `[batch, hidden, reach]` that the taps of a causal
                block still reach; `None` at the start of a recording (silence).
            steer: applied to the output of the first 1×1 convolution, `[batch, hidden, frames]`.

        Returns:
            `[batch, channels, frames]`, or with `skip` `[2, batch, channels, frames]`, the second what leaves by the
            skip convolution; and the past of the next frames (`None` if not causal).
        """
        hidden = self.expand(x)
        if steer is not None:
            hidden = steer(hidden)
        hidden = self.norm1(self.activation1(hidden))
        if self.reach:
            if past is None:
                past = hidden.new_zeros(*hidden.shape[:2], self.reach)
            hidden = torch.cat([past, hidden], dim=-1)
            past = hidden[..., -self.reach :]
        hidden = self.norm2(self.activation2(self.depthwise(hidden)))
        out = x + self.project(hidden)
        return out if self.skip is None else torch.stack([out, self.skip(hidden)]), past
