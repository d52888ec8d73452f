"""CAM++, a densely connected TDNN with context-aware masking: Wang et al., Interspeech 2023."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wesep_py.network.speaker.pooling import build_pooling
from wesep_py.network.speaker.speaker_network import ConvNorm, PoolingNetwork, shortcut, speaker_networks

DILATIONS = (1, 2, 2)
SEGMENT_LENGTH = 100
"""Frames of a segment of the masks' context: two seconds, as the network has one frame per 20 ms."""

Step = Literal["batchnorm", "batchnorm_", "relu", "prelu"]


@speaker_networks.register("campplus")
class CAMPlusPlus(PoolingNetwork):
    """A small ResNet over frequency, then three blocks of a dense TDNN at half the frame rate.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        embedding_dim: size of the embedding.
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.
        growth_rate: number of channels that each layer of a block adds.
        bottleneck_factor: channels of a layer before its mask, as a multiple of `growth_rate`.
        init_channels: number of input channels of the first block.
        nonlinearity: steps before each convolution, in order; `batchnorm_` has no scale and shift.
        num_layers: number of layers of each of the three blocks.
        head_channels: number of channels of the ResNet.

    Raises:
        ValueError: `num_layers` are not three numbers of 1 or more, a size is below 1, or the nonlinearity is empty or
            has a step twice.

    >>> network = CAMPlusPlus(num_layers=(1, 2, 1), growth_rate=8, head_channels=4, embedding_dim=16)
    >>> network(torch.randn(2, 100, 80)).embedding.shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        embedding_dim: int = 512,
        pooling: str | dict[str, Any] = "tstp",
        growth_rate: int = 32,
        bottleneck_factor: int = 4,
        init_channels: int = 128,
        nonlinearity: tuple[Step, ...] = ("batchnorm", "relu"),
        num_layers: tuple[int, ...] = (12, 24, 16),
        head_channels: int = 32,
    ) -> None:
        super().__init__()
        if len(num_layers) != len(DILATIONS) or min(num_layers) < 1:
            raise ValueError(f"num_layers: is {list(num_layers)}; three numbers, each 1 or more, are needed")
        if growth_rate * bottleneck_factor < 2:
            raise ValueError("growth_rate: times bottleneck_factor is below 2; a product of 2 or more is needed")
        self.embedding_dim = embedding_dim
        self.head = FrequencyResNet(num_mel_bins, head_channels)
        channels, inner = init_channels, growth_rate * bottleneck_factor
        self.tdnn = nn.Conv1d(self.head.out_dim, channels, 5, stride=2, padding=2, bias=False)
        self.tdnn_activation = nonlinearity_layers(nonlinearity, channels)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for count, dilation in zip(num_layers, DILATIONS, strict=True):
            widths = [channels + i * growth_rate for i in range(count)]
            self.blocks.append(nn.ModuleList(DenseLayer(w, inner, growth_rate, dilation, nonlinearity) for w in widths))
            channels += count * growth_rate
            self.transitions.append(
                nn.Sequential(
                    nonlinearity_layers(nonlinearity, channels), nn.Conv1d(channels, channels // 2, 1, bias=False)
                )
            )
            channels //= 2
        self.activation = nonlinearity_layers(nonlinearity, channels)
        self.frame_dim = channels
        self.pool = build_pooling(pooling, channels)
        self.linear = nn.Linear(self.pool.out_dim, embedding_dim, bias=False)
        self.embedding_norm = nn.BatchNorm1d(embedding_dim, affine=False)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames to be pooled and their mask; see `PoolingNetwork.encode`."""
        image = features.transpose(1, 2)[:, None]
        x = self.tdnn_activation(self.tdnn(self.head(image, mask) * mask[:, None]))
        mask = mask[:, ::2]
        for layers, transition in zip(self.blocks, self.transitions, strict=True):
            for layer in layers:
                x = torch.cat([x, layer(x, mask)], dim=1)
            x = transition(x)
        return self.activation(x) * mask[:, None], mask

    def embed(self, pooled: Tensor) -> Tensor:
        """Return the embeddings of pooled vectors; see `PoolingNetwork.embed`."""
        return self.embedding_norm(self.linear(pooled)).float()


class FrequencyResNet(nn.Module):
    """Residual blocks that halve the frequency three times and keep the frame rate.

    Args:
        num_mel_bins: number of bins of the image.
        channels: number of channels of all layers.

    Attributes:
        out_dim: size of a frame of the output.
    """

    def __init__(self, num_mel_bins: int, channels: int) -> None:
        super().__init__()
        self.stem = ConvNorm(1, channels, 3)
        self.blocks = nn.ModuleList(FrequencyBlock(channels, stride) for stride in (2, 1, 2, 1))
        self.last = ConvNorm(channels, channels, 3, (2, 1))
        self.out_dim = channels * -(-num_mel_bins // 8)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, out_dim, frames]` of an image `[batch, 1, bins, frames]` and the mask of its frames."""
        x = torch.relu(self.stem(image, mask)[0])
        for block in self.blocks:
            x = block(x, mask)
        return torch.relu(self.last(x, mask)[0]).flatten(1, 2)


class FrequencyBlock(nn.Module):
    """`relu(x + f(x))`, where f is two 3×3 convolutions; the stride is in frequency only."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, 3, (stride, 1))
        self.second = ConvNorm(channels, channels, 3)
        self.shortcut = shortcut(channels, channels, (stride, 1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        residual = x if self.shortcut is None else self.shortcut(x, mask)[0]
        x = torch.relu(self.first(x, mask)[0])
        return torch.relu(self.second(x, mask)[0] + residual)


class DenseLayer(nn.Module):
    """One layer of a dense block: `growth_rate` new channels of all earlier ones, masked by their context.

    Args:
        in_channels: number of channels of the block so far.
        inner_channels: channels before the dilated convolution.
        growth_rate: number of new channels.
        dilation: of that convolution, in frames.
        nonlinearity: steps before each convolution.
    """

    def __init__(
        self, in_channels: int, inner_channels: int, growth_rate: int, dilation: int, nonlinearity: tuple[Step, ...]
    ) -> None:
        super().__init__()
        self.activation = nonlinearity_layers(nonlinearity, in_channels)
        self.reduce = nn.Conv1d(in_channels, inner_channels, 1, bias=False)
        self.inner_activation = nonlinearity_layers(nonlinearity, inner_channels)
        self.conv = nn.Conv1d(inner_channels, growth_rate, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(inner_channels, inner_channels // 2, 1)
        self.linear2 = nn.Conv1d(inner_channels // 2, growth_rate, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.inner_activation(self.reduce(self.activation(x)))
        context = segment_context(x, mask)
        weights = torch.sigmoid(self.linear2(torch.relu(self.linear1(context))))
        weights = weights.repeat_interleave(SEGMENT_LENGTH, dim=2)[:, :, : x.shape[2]]
        return self.conv(x * mask[:, None]) * weights


def segment_context(x: Tensor, mask: Tensor, length: int = SEGMENT_LENGTH) -> Tensor:
    """Return the mean of the whole recording plus the mean of each segment of it, over valid frames only.

    Args:
        x: `[batch, channels, frames]`.
        mask: `[batch, frames]`, True for valid frames.
        length: number of frames of a segment; the last one may be shorter.

    Returns:
        `[batch, channels, segments]`, in float32.

    >>> segment_context(torch.tensor([[[1.0, 2.0, 6.0, 9.0]]]), torch.tensor([[True, True, True, False]]), 2)
    tensor([[[4.5000, 9.0000]]])
    """
    missing = -x.shape[2] % length  # frames that complete the last segment
    valid = functional.pad(mask[:, None].float(), (0, missing)).unflatten(2, (-1, length)).sum(dim=3)
    x = x.float().masked_fill(~mask[:, None], 0.0)
    sums = functional.pad(x, (0, missing)).unflatten(2, (-1, length)).sum(dim=3)
    overall = sums.sum(dim=2, keepdim=True) / valid.sum(dim=2, keepdim=True).clamp_min(1)
    return overall + sums / valid.clamp_min(1)


def nonlinearity_layers(steps: tuple[Step, ...], channels: int) -> nn.Sequential:
    """Build the layers of a nonlinearity.

    Args:
        steps: names of the layers, in order.
        channels: number of channels.

    Raises:
        ValueError: there is no step, or one is listed twice.
    """
    makers = {
        "batchnorm": lambda: ("norm", nn.BatchNorm1d(channels)),
        "batchnorm_": lambda: ("norm", nn.BatchNorm1d(channels, affine=False)),
        "relu": lambda: ("relu", nn.ReLU()),
        "prelu": lambda: ("prelu", nn.PReLU(channels)),
    }
    layers = nn.Sequential()
    for step in steps:
        name, layer = makers[step]()
        if hasattr(layers, name):
            raise ValueError(f"nonlinearity: is {list(steps)}; each step may be listed once, and batchnorm in one form")
        layers.add_module(name, layer)
    if not steps:
        raise ValueError("nonlinearity: is empty; one step or more is needed, for example [batchnorm, relu]")
    return layers
