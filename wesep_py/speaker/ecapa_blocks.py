"""ECAPA-TDNN whose frame-level features are its last block's, as WeSpeaker hands them out."""

from __future__ import annotations

import torch
from torch import Tensor

from wesep_py.speaker.base import SpeakerOutput, speaker_networks
from wesep_py.speaker.ecapa import ECAPATDNN


@speaker_networks.register("ecapa_tdnn_last_block")
class ECAPALastBlock(ECAPATDNN):
    """`ECAPATDNN`, with `frames` taken after the third block (`channels` wide) instead of before pooling.

    Args: as `ECAPATDNN`; `frame_dim` there stays the width before pooling.

    >>> ECAPALastBlock(channels=16, embedding_dim=8)(torch.randn(2, 100, 80)).frames.shape
    torch.Size([2, 16, 100])
    """

    def __init__(
        self,
        num_mel_bins: int = 80,
        channels: int = 512,
        frame_dim: int = 1536,
        embedding_dim: int = 192,
        res2_scale: int = 8,
        global_context: bool = True,
        embedding_norm: bool = False,
    ) -> None:
        super().__init__(num_mel_bins, channels, frame_dim, embedding_dim, res2_scale, global_context, embedding_norm)
        self.frame_dim = channels

    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        valid = mask[:, None].to(features.dtype)
        x = self.layer1(features.transpose(1, 2) * valid)
        outputs = []
        for block in self.blocks:
            x = block(x * valid, mask)
            outputs.append(x)
        pooled = self.pool(torch.relu(self.conv(torch.cat(outputs, dim=1))) * valid, mask)
        embedding = self.embedding_norm(self.linear(self.pool_norm(pooled)))
        return SpeakerOutput(x * valid, mask, embedding.float())
