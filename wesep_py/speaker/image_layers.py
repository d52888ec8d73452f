"""Layers on a filterbank as an image, `[batch, channels, bins, frames]`, that are deaf to padding."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; what stands past the end of a recording is zero to the convolution.

    Args:
        in_channels, out_channels: of the image.
        kernel_size: odd; in bins and frames.
        stride: in bins and frames.

    >>> import torch
    >>> x, mask = ConvNorm(1, 4, 3, (2, 1))(torch.randn(2, 1, 80, 50), torch.ones(2, 50, dtype=torch.bool))
    >>> x.shape, mask.shape
    (torch.Size([2, 4, 40, 50]), torch.Size([2, 50]))
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int | tuple[int, int] = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, in_channels, bins, frames]`, `[batch, frames]` → both at the convolution's stride."""
        if self.conv.kernel_size[1] > 1:
            x = x * mask[:, None, None]
        return self.norm(self.conv(x)), mask[:, :: self.conv.stride[1]]


def shortcut(in_channels: int, out_channels: int, stride: int | tuple[int, int]) -> ConvNorm | None:
    """What carries a block's input past it: nothing where it fits as it is, else a strided 1×1 convolution."""
    if stride in (1, (1, 1)) and in_channels == out_channels:
        return None
    return ConvNorm(in_channels, out_channels, 1, stride)
