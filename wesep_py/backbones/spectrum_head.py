"""From a latent on the grid of a spectrum to the target's spectrum: as it is, or as a complex mask on the mixture's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.backbones.bands import full_precision

Estimate = Literal["spectrum", "mask"]


class SpectrumHead(nn.Module):
    """A transposed convolution to real and imaginary part.

    Args:
        channels: of the latent.
        causal: see one frame instead of three, so that a stretch of the latent needs nothing of the one before.
        estimate: `spectrum`: the parts are the target's; `mask`: they are a complex mask, one before training. `None`
            is `spectrum` as published, but `mask` where causal: a latent that is normalised frame by frame hardly
            knows a level, and a causal network cannot know the recording's, so the mixture has to give it.
    """

    def __init__(self, channels: int, causal: bool, estimate: Estimate | None) -> None:
        super().__init__()
        frames = 1 if causal else 3
        self.is_mask = (estimate or ("mask" if causal else "spectrum")) == "mask"
        self.conv = nn.ConvTranspose2d(channels, 2, (frames, 3), padding=(frames // 2, 1))
        if self.is_mask:
            with torch.no_grad():
                self.conv.weight.mul_(0.1)
                self.conv.bias.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, latent: Tensor, mixture: Tensor) -> Tensor:
        """The target's spectrum; zero for a mixture that is silent throughout.

        Args:
            latent: `[batch, channels, frames, bins]`.
            mixture: complex `[batch, bins, frames]`.

        Returns:
            complex `[batch, bins, frames]`.
        """
        parts = full_precision(self.conv(latent)).transpose(2, 3)
        out = torch.complex(parts[:, 0], parts[:, 1])
        if self.is_mask:
            return out * mixture
        return out * (mixture.abs().amax(dim=(1, 2), keepdim=True) > 0)
