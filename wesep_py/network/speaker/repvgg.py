"""RepVGG: several branches in training, one convolution afterwards.

Ding et al., "RepVGG: making VGG-style ConvNets great again" (CVPR 2021); on filterbanks, and with a dilated branch:
Ma et al., "Rep works in speaker verification" (arXiv 2110.09720).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.network.speaker.pooling import masked_statistics
from wesep_py.network.speaker.speaker_network import PooledNetwork, speaker_networks

NUM_STAGES = 4
MAX_STEM_CHANNELS = 64
SE_REDUCTION = 4


@speaker_networks.register("repvgg")
class RepVGG(PooledNetwork):
    """One block, then four stages of blocks over frequency and time, then pooling over time.

    A block adds up branches, each normalised, before its ReLU. After training, `fold` makes one convolution of them.

    Args:
        num_mel_bins: number of mel bins (given by the front end).
        num_blocks: number of blocks of each stage.
        channels: number of channels of each stage; the first block has those of the first stage, at most 64.
        strides: in frequency and time, of the first block and of each stage.
        embedding_dim: size of the embedding.
        block: the branch beside the 3×3 convolution and the identity: a 1×1 convolution (`repvgg`), or a 3×3
            convolution of dilation 2 (`rsbb`, which folds to 5×5: more parameters than before, in one operation).
        groups: groups of the convolutions in each block, through all stages; 1 for blocks after the end of the list.
        squeeze_excite: end each block with a weight per channel.
        pooling: name of a pooling, or `{name: …, …}`; see `pooling`.
        folded: build blocks of one convolution, as after `fold`; such a network is not for training.

    Raises:
        ValueError: the number of blocks, channels, strides or groups is wrong, or one is below 1.

    >>> network = RepVGG(num_blocks=(1, 1, 1, 1), channels=(4, 4, 8, 8), embedding_dim=8).eval()
    >>> features = torch.randn(2, 100, 80)
    >>> before = network(features).embedding
    >>> torch.allclose(network.fold()(features).embedding, before, atol=1e-4)
    True
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        num_blocks: tuple[int, ...] = (3, 4, 23, 3),
        channels: tuple[int, ...] = (32, 64, 128, 256),
        strides: tuple[int, ...] = (1, 1, 2, 2, 2),
        embedding_dim: int = 256,
        block: Literal["repvgg", "rsbb"] = "repvgg",
        groups: tuple[int, ...] = (),
        squeeze_excite: bool = False,
        pooling: str | dict[str, Any] = "tstp",
        folded: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(num_blocks, channels, strides, groups)
        width, bins = min(MAX_STEM_CHANNELS, channels[0]), -(-num_mel_bins // strides[0])
        self.stem = RepBlock(1, width, strides[0], 1, block, squeeze_excite, folded)
        self.stages = nn.ModuleList()
        remaining_groups = iter(groups)
        for count, out_channels, stride in zip(num_blocks, channels, strides[1:], strict=True):
            blocks = nn.ModuleList()
            for step in [stride] + [1] * (count - 1):
                num_groups = next(remaining_groups, 1)
                blocks.append(RepBlock(width, out_channels, step, num_groups, block, squeeze_excite, folded))
                width = out_channels
            self.stages.append(blocks)
            bins = -(-bins // stride)
        self.add_head(width * bins, embedding_dim, pooling)

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames to be pooled and their mask; see `PoolingNetwork.encode`."""
        x, mask = self.stem(features.transpose(1, 2)[:, None], mask)
        for blocks in self.stages:
            for block in blocks:
                x, mask = block(x, mask)
        return x.flatten(1, 2) * mask[:, None], mask

    def fold(self) -> RepVGG:
        """Make one convolution of each block's branches, in place; the output in evaluation mode stays the same.

        The weights then fit a network that is built with `folded`.

        Returns:
            The network itself.
        """
        for module in list(self.modules()):
            if isinstance(module, RepBlock):
                module.fold()
        return self


class RepBlock(nn.Module):
    """`relu(Σ branch(x))` on an image and the mask of its valid frames, both at the block's stride.

    Args:
        in_channels, out_channels: if they are equal and the stride is 1, the input itself is a branch too.
        stride: in frequency and time.
        groups: of the convolutions.
        kind: the branch beside the 3×3 convolution; see `RepVGG`.
        squeeze_excite: weight each channel after the ReLU.
        folded: one convolution instead of the branches.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        groups: int,
        kind: Literal["repvgg", "rsbb"],
        squeeze_excite: bool,
        folded: bool,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups: {groups} do not divide a block's channels ({in_channels} to {out_channels})")
        self.stride = stride
        size = 5 if kind == "rsbb" else 3
        self.folded = None
        self.convs, self.norms, self.identity = nn.ModuleList(), nn.ModuleList(), None
        if folded:
            self.folded = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups)
        else:
            for kernel, dilation in ((3, 1), (3, 2) if kind == "rsbb" else (1, 1)):
                padding = dilation * (kernel // 2)
                self.convs.append(
                    nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False)
                )
                self.norms.append(nn.BatchNorm2d(out_channels))
            if in_channels == out_channels and stride == 1:
                self.identity = nn.BatchNorm2d(out_channels)
        self.excite = SqueezeExcite2d(out_channels) if squeeze_excite else None
        self._folded_shape = out_channels, in_channels // groups, size, size

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        # After the end of a recording the convolution must see zeros, as its own padding is.
        x = x * mask[:, None, None]
        mask = mask[:, :: self.stride]
        if self.folded is not None:
            total = self.folded(x)
        else:
            total = sum(norm(conv(x)) for conv, norm in zip(self.convs, self.norms, strict=True))
            if self.identity is not None:
                total = total + self.identity(x)
        x = torch.relu(total)
        return (x if self.excite is None else self.excite(x, mask)), mask

    @torch.no_grad()
    def fold(self) -> None:
        """Replace the branches by one convolution (Ding et al., section 3.3).

        A normalised convolution is a convolution with weights `γ/σ · W` and bias `β − γ/σ · μ`. Convolutions of one
        stride add up when their kernels are centred in the largest one, a dilated one with gaps; the identity is a
        kernel with a one in its middle:

            3×3 in 5×5       3×3 of dilation 2    identity
            . . . . .        x . x . x            . . . . .
            . x x x .        . . . . .            . . . . .
            . x x x .    +   x . x . x       +    . . 1 . .
            . x x x .        . . . . .            . . . . .
            . . . . .        x . x . x            . . . . .
        """
        if self.folded is not None:
            return
        conv = self.convs[0]
        out_channels, in_group, size, _ = self._folded_shape
        weight, bias = conv.weight.new_zeros(self._folded_shape), conv.weight.new_zeros(out_channels)
        middle = size // 2
        for branch, norm in zip(self.convs, self.norms, strict=True):
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            taps = slice(middle - branch.padding[0], middle + branch.padding[0] + 1, branch.dilation[0])
            weight[:, :, taps, taps] += gain[:, None, None, None] * branch.weight
            bias += norm.bias - gain * norm.running_mean
        if self.identity is not None:
            norm = self.identity
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            channel = torch.arange(out_channels, device=weight.device)
            weight[channel, channel % in_group, middle, middle] += gain
            bias += norm.bias - gain * norm.running_mean
        folded = nn.Conv2d(conv.in_channels, out_channels, size, conv.stride, middle, groups=conv.groups)
        folded = folded.to(weight.device, weight.dtype)
        folded.weight.copy_(weight)
        folded.bias.copy_(bias)
        self.folded = folded
        self.convs, self.norms, self.identity = nn.ModuleList(), nn.ModuleList(), None


class SqueezeExcite2d(nn.Module):
    """A weight for each channel, from the mean over frequency and valid frames (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        bottleneck = max(channels // SE_REDUCTION, 1)
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mean, _ = masked_statistics(x.mean(dim=2).float(), mask)
        weights = torch.sigmoid(self.linear2(torch.relu(self.linear1(mean.squeeze(2).to(x.dtype)))))
        return x * weights[:, :, None, None]


def _check_sizes(
    num_blocks: tuple[int, ...], channels: tuple[int, ...], strides: tuple[int, ...], groups: tuple[int, ...]
) -> None:
    for name, values, size in (
        ("num_blocks", num_blocks, NUM_STAGES),
        ("channels", channels, NUM_STAGES),
        ("strides", strides, NUM_STAGES + 1),
    ):
        if len(values) != size or min(values) < 1:
            raise ValueError(f"{name}: is {list(values)}; {size} numbers, each 1 or more, are needed")
    if len(groups) > sum(num_blocks) or min(groups, default=1) < 1:
        raise ValueError(
            f"groups: is {list(groups)}; at most {sum(num_blocks)} numbers (the blocks), each 1 or more, are needed"
        )
