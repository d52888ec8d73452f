"""How far the frames lie from learnt centres: NetVLAD and GhostVLAD."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wesep_py.speaker.pooling.base import Pooling, poolings


@poolings.register("ghostvlad")
class GhostVLAD(Pooling):
    """Residuals to each centre, summed over time, weighted by how much a frame belongs to it; ghosts are left out.

    With frames `x_t`, centres `c_k` and assignments `a_tk = softmax_k(w_k · x_t + b_k)` over centres and ghosts,
    `V_k = Σ_t a_tk (x_t − c_k)`, each of length one. A ghost takes frames that belong to no centre, and has no row.
    Xie et al., "Utterance-level aggregation for speaker recognition in the wild", ICASSP 2019, eq. 1.

    Args:
        dim: channels.
        num_clusters: centres.
        num_ghosts: ghosts.

    Raises:
        ValueError: no centre, or a negative number of ghosts.

    >>> GhostVLAD(16)(torch.randn(2, 16, 50), torch.ones(2, 50, dtype=torch.bool)).shape
    torch.Size([2, 128])
    """

    def __init__(self, dim: int, num_clusters: int = 8, num_ghosts: int = 2) -> None:
        super().__init__()
        if num_clusters < 1:
            raise ValueError(f"num_clusters: is {num_clusters}; 1 or more is needed")
        if num_ghosts < 0:
            raise ValueError(f"num_ghosts: is {num_ghosts}; 0 or more is needed")
        self.out_dim = dim * num_clusters
        self.assign = nn.Conv1d(dim, num_clusters + num_ghosts, 1)
        self.centres = nn.Parameter(nn.init.orthogonal_(torch.empty(num_clusters, dim)))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """`[batch, dim, frames]`, `[batch, frames]` → `[batch, num_clusters · dim]`, centre by centre."""
        frames = frames.float()
        assignments = self.assign(frames).float().softmax(dim=1)[:, : len(self.centres)] * mask[:, None]
        with torch.autocast(frames.device.type, enabled=False):
            summed = assignments @ (frames * mask[:, None]).transpose(1, 2)
        residuals = summed - assignments.sum(dim=2, keepdim=True) * self.centres
        return nn.functional.normalize(residuals, dim=2).flatten(1)


@poolings.register("netvlad")
class NetVLAD(GhostVLAD):
    """`GhostVLAD` without ghosts: Arandjelović et al., CVPR 2016; for speakers, Xie et al., ICASSP 2019.

    Args:
        dim: channels.
        num_clusters: centres.

    Raises:
        ValueError: no centre.
    """

    def __init__(self, dim: int, num_clusters: int = 8) -> None:
        super().__init__(dim, num_clusters, num_ghosts=0)
