"""The speaker branch of TD-SpeakerBeam: Delcroix et al., "Improving speaker discrimination of target speech extraction
with time-domain SpeakerBeam" (ICASSP 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wesep_py.network.backbones.conv_tasnet import ACTIVATIONS, Activation, NormKind, TCNBlock, channel_norm
from wesep_py.network.speaker.speaker_network import SpeakerNetwork, SpeakerOutput, speaker_networks


@speaker_networks.register("tcn")
class TCNSpeakerNetwork(SpeakerNetwork):
    """One stack of the temporal convolutional network of `conv_tasnet`, then the mean over time.

    For the learned basis of an extractor (`front_end: backbone`). It sees the whole enrollment, so it is never causal.

    Args:
        num_mel_bins: size of a frame (given by the front end).
        bottleneck: channels of the residual path, and of the frame-level features.
        hidden: channels within a block.
        kernel: taps of the depthwise convolutions; odd.
        num_blocks: number of blocks, with dilations 1, 2, 4, …
        norm: of the blocks: `global`, `frame` or `batch`, as for `conv_tasnet`; that of the input is `frame`.
        skip: whether the frame-level features are the sum of skip connections of all blocks, instead of the output of
            the last block.
        activation: of the frame-level features, before the linear layer that makes the embedding.
        conv_bias: whether convolutions and linear layer have a bias.
        norm_eps: added to the variance by norms `global` and `frame`, above 0.
        input_norm_eps: the same for the norm of the input; `null` is `norm_eps`.
        embedding_dim: size of the embedding.

    Raises:
        ValueError: a size below 1, an even kernel, an eps of 0 or less.

    >>> network = TCNSpeakerNetwork(num_mel_bins=24, bottleneck=8, hidden=12, num_blocks=2, embedding_dim=4)
    >>> network(torch.randn(2, 100, 24)).embedding.shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        num_mel_bins: int = 256,
        bottleneck: int = 256,
        hidden: int = 512,
        kernel: int = 3,
        num_blocks: int = 8,
        norm: NormKind = "global",
        skip: bool = True,
        activation: Activation = "prelu",
        conv_bias: bool = True,
        norm_eps: float = 1e-5,
        input_norm_eps: float | None = None,
        embedding_dim: int = 256,
    ) -> None:
        super().__init__()
        if min(bottleneck, hidden, num_blocks, embedding_dim) < 1:
            raise ValueError("bottleneck, hidden, num_blocks, embedding_dim: must be 1 or more")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel: is {kernel}; odd numbers are allowed")
        input_norm_eps = norm_eps if input_norm_eps is None else input_norm_eps
        if min(norm_eps, input_norm_eps) <= 0:
            raise ValueError(f"norm_eps and input_norm_eps: are {norm_eps} and {input_norm_eps}; above 0 is allowed")
        self.frame_dim, self.embedding_dim = bottleneck, embedding_dim
        self.input = nn.Sequential(
            channel_norm(num_mel_bins, "frame", input_norm_eps), nn.Conv1d(num_mel_bins, bottleneck, 1, bias=conv_bias)
        )
        self.blocks = nn.ModuleList(
            TCNBlock(bottleneck, hidden, kernel, 2**i, norm, False, skip, conv_bias, norm_eps)
            for i in range(num_blocks)
        )
        self.activation = ACTIVATIONS[activation]()
        self.output = nn.Linear(bottleneck, embedding_dim, bias=conv_bias)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> SpeakerOutput:
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        path, skips = self.input(features.transpose(1, 2)), []
        for block in self.blocks:
            path, _ = block(path, mask=mask)
            if block.skip is not None:
                path, skip = path
                skips.append(skip)
        frames = self.activation(torch.stack(skips).sum(dim=0) if skips else path) * mask[:, None]
        # The mean and the linear layer can be exchanged; so the layer is computed once, not for every frame.
        mean = frames.float().sum(dim=2) / mask.sum(dim=1, keepdim=True).clamp_min(1)
        return SpeakerOutput(frames, mask, self.output(mean).float())
