"""ERes2Net, a Res2Net with local and global feature fusion: Chen et al., Interspeech 2023."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wesep_py.speaker.base import speaker_networks
from wesep_py.speaker.res2net import STAGES, AttentiveFusion, Res2Block, Res2Net, through


@speaker_networks.register("eres2net")
class ERes2Net(Res2Net):
    """Res2Net that weighs features against each other: parts within a block (local), and stages (global).

    The last two stages fuse locally; from the second on, each stage's image is fused with what the ones before it
    made, halved in size.

    Args:
        num_mel_bins: size of a filterbank frame (given by the front end).
        num_blocks: blocks of each stage.
        channels: of the first stage; 32 is the published base, 64 the large one.
        embedding_dim: size of the embedding.
        base_width: width of a part, per 64 channels of a stage.
        scale: parts into which a block's channels are split.
        expansion: channels that leave a block, per channel of its stage.
        pooling: a pooling's name, or `{name: …, …}`; see `pooling`.
        second_layer: ReLU, batch normalisation and another linear layer make the embedding.

    Raises:
        ValueError: not four numbers of blocks, one below 1, or too few channels to fuse.

    >>> import torch
    >>> ERes2Net(num_blocks=(1, 1, 1, 1), channels=4, embedding_dim=8)(torch.randn(2, 50, 80)).embedding.shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        num_blocks: tuple[int, ...] = (3, 4, 6, 3),
        channels: int = 32,
        embedding_dim: int = 512,
        base_width: int = 32,
        scale: int = 2,
        expansion: int = 2,
        pooling: str | dict[str, Any] = "tstp",
        second_layer: bool = False,
    ) -> None:
        super().__init__(
            num_mel_bins, num_blocks, channels, embedding_dim, base_width, scale, expansion, pooling, second_layer
        )
        widths = [expansion * channels * 2**stage for stage in range(STAGES)]
        self.downsamples = nn.ModuleList(nn.Conv2d(w, 2 * w, 3, 2, 1, bias=False) for w in widths[:-1])
        self.fusions = nn.ModuleList(AttentiveFusion(w) for w in widths[1:])

    def _block(self, stage: int, *sizes: int) -> Res2Block:
        return Res2Block(*sizes, attentive=stage >= 2)

    def _trunk(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = through(self.stages[0], x, mask)
        fused = x
        for blocks, downsample, fusion in zip(self.stages[1:], self.downsamples, self.fusions, strict=True):
            before = downsample(fused * mask[:, None, None])
            x, mask = through(blocks, x, mask)
            fused = fusion(x, before)
        return fused, mask
