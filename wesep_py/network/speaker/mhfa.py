"""Multi-head factorised attention pooling, for the layers of a self-supervised model.

Peng et al., "An attention-based backend allowing efficient fine-tuning of transformer models for speaker verification"
(SLT 2022): keys and values are two different weighted sums of the layers (`self_supervised: {layers: two_sums}`), so
that what is looked at and what is taken of it may come from different depths.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wesep_py.network.speaker.speaker_network import SpeakerNetwork, SpeakerOutput, speaker_networks


@speaker_networks.register("mhfa")
class MHFA(SpeakerNetwork):
    """Heads that each average the values over time, with weights from the keys; a linear layer makes the embedding.

        keys k_t, values v_t [dim]     A_th = softmax over t of (w_h · k_t),   c_h = Σ_t A_th v_t
        embedding = linear [c_1; c_2; …]

    Args:
        num_mel_bins: size of a frame, keys and values together (given by the front end); even.
        num_heads: number of heads.
        dim: size of keys and values, after a linear layer for each.
        embedding_dim: size of the embedding.

    Raises:
        ValueError: a size below 1, or frames that are no pairs of keys and values.

    >>> network = MHFA(num_mel_bins=24, num_heads=4, dim=8, embedding_dim=6)
    >>> network(torch.randn(2, 50, 24)).embedding.shape
    torch.Size([2, 6])
    """

    def __init__(self, num_mel_bins: int = 1536, num_heads: int = 64, dim: int = 128, embedding_dim: int = 256) -> None:
        super().__init__()
        if min(num_heads, dim, embedding_dim) < 1:
            raise ValueError("num_heads, dim, embedding_dim: must be 1 or more")
        if num_mel_bins % 2:
            raise ValueError("mhfa: frames are pairs of keys and values; give self_supervised the key layers: two_sums")
        self.frame_dim, self.embedding_dim = dim, embedding_dim
        self.key, self.value = (nn.Linear(num_mel_bins // 2, dim) for _ in range(2))
        self.heads = nn.Linear(dim, num_heads, bias=False)
        self.output = nn.Linear(num_heads * dim, embedding_dim)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        keys, values = features.chunk(2, dim=-1)
        values = self.value(values) * mask[:, :, None]
        scores = self.heads(self.key(keys)).float().masked_fill(~mask[:, :, None], -torch.inf)
        pooled = scores.softmax(dim=1).transpose(1, 2) @ values.float()
        return SpeakerOutput(values.transpose(1, 2), mask, self.output(pooled.flatten(1)).float())
