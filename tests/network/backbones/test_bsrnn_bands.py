"""BSRNN with the bands of one width in one product equals a plain loop over its bands."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wesep_py.network.backbones import BSRNN
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network

EPS = torch.finfo(torch.float32).eps
EMBEDDING_DIM = 256


class LoopedBSRNN(nn.Module):
    """BSRNN as in its paper: a normalisation and a layer for every band, one after the other.

    The latent is `[batch, bands, feature_dim, frames]`, as convolutions need it.

    Args:
        network: source of the weights.
    """

    def __init__(self, network: TargetSpeakerExtractor) -> None:
        super().__init__()
        ours = network.backbone
        assert isinstance(ours, BSRNN)
        self.stft, dim = ours.stft, ours.latent_dim
        self.widths = [group.width for group in ours.groups for _ in range(group.count)]
        self.split, self.masks = nn.ModuleList(), nn.ModuleList()
        for group, split, mask in zip(ours.groups, ours.split, ours.masks, strict=True):
            for band in range(group.count):
                self.split.append(nn.Sequential(norm_of(split.norm, band), conv_of(split.linear, band)))
                norm, first, _, second, _, last = mask.layers
                layers = [norm_of(norm, band), conv_of(first, band), nn.Tanh(), conv_of(second, band), nn.Tanh()]
                self.masks.append(nn.Sequential(*layers, conv_of(last, band)))
        self.fusion = nn.Linear(EMBEDDING_DIM, dim)
        self.fusion.load_state_dict(network.cues[0].fusion.layers[0].linear.state_dict())
        self.blocks = nn.ModuleList()
        for block in ours.blocks:
            self.blocks.append(LoopedRNN(block.along_time, dim))
            self.blocks.append(LoopedRNN(block.across_bands, dim))

    def forward(self, mixture: Tensor, embedding: Tensor) -> Tensor:
        """Return the estimate `[batch, samples]` of a mixture `[batch, samples]` and an embedding `[batch, dim]`."""
        spectrum = self.stft(mixture)
        latent = self.split_bands(torch.stack([spectrum.real, spectrum.imag], dim=1))
        latent = latent * self.fusion(embedding)[:, None, :, None]
        batch, bands, dim, frames = latent.shape
        for along_time, across_bands in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            latent = along_time(latent.view(batch * bands, dim, frames)).view(batch, bands, dim, frames)
            turned = latent.permute(0, 3, 2, 1).reshape(batch * frames, dim, bands)
            latent = across_bands(turned).view(batch, frames, dim, bands).permute(0, 3, 2, 1).contiguous()
        mask = self.make_masks(latent)
        return self.stft.inverse(torch.complex(mask[:, 0], mask[:, 1]) * spectrum, mixture.shape[1])

    def split_bands(self, features: Tensor) -> Tensor:
        """`[batch, 2, bins, frames]` → `[batch, bands, dim, frames]`."""
        bands = features.split(self.widths, dim=2)
        return torch.stack([layer(band.flatten(1, 2)) for layer, band in zip(self.split, bands, strict=True)], dim=1)

    def make_masks(self, latent: Tensor) -> Tensor:
        """`[batch, bands, dim, frames]` → `[batch, 2, bins, frames]`."""
        masks = []
        for band, (layer, width) in enumerate(zip(self.masks, self.widths, strict=True)):
            out = layer(latent[:, band]).view(len(latent), 2, 2, width, -1)
            masks.append(out[:, 0] * torch.sigmoid(out[:, 1]))
        return torch.cat(masks, dim=2)


class LoopedRNN(nn.Module):
    """`u + Linear(LSTM(norm(u)))` of `[batch, dim, length]`."""

    def __init__(self, ours: nn.Module, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, dim, EPS)
        self.norm.load_state_dict(ours.norm.state_dict())
        self.rnn = nn.LSTM(dim, ours.rnn.hidden_size, batch_first=True, bidirectional=True)
        self.rnn.load_state_dict(ours.rnn.state_dict())
        self.linear = nn.Linear(2 * ours.rnn.hidden_size, dim)
        self.linear.load_state_dict(ours.linear.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(self.norm(x).transpose(1, 2).contiguous())
        return x + self.linear(out).transpose(1, 2)


def norm_of(norm: nn.Module, band: int) -> nn.GroupNorm:
    """Return the normalisation of one band of a `BandNorm`."""
    copy = nn.GroupNorm(1, norm.weight.shape[-1], EPS)
    copy.load_state_dict({"weight": norm.weight[band, 0], "bias": norm.bias[band, 0]})
    return copy


def conv_of(linear: nn.Module, band: int) -> nn.Conv1d:
    """Return the layer of one band of a `BandLinear`."""
    copy = nn.Conv1d(*linear.weight.shape[1:], 1)
    copy.load_state_dict({"weight": linear.weight[band].T[:, :, None], "bias": linear.bias[band, 0]})
    return copy


def networks(feature_dim: int = 8, num_blocks: int = 2) -> tuple[nn.Module, nn.Module]:
    """Return the package's network and the loop with the same weights."""
    torch.manual_seed(0)
    backbone = {"name": "bsrnn", "feature_dim": feature_dim, "num_blocks": num_blocks, "pad_mode": "reflect"}
    cue = {"name": "embedding", "fusion": "multiply", "points": "first", "embedding_dim": EMBEDDING_DIM}
    network = build_network({"normalise": "none", "highpass_hz": 0, "backbone": backbone, "cues": [cue]})
    return Ours(network), LoopedBSRNN(network)


class Ours(nn.Module):
    """The package's network as a function of a mixture and an embedding."""

    def __init__(self, network: TargetSpeakerExtractor) -> None:
        super().__init__()
        self.network = network

    def forward(self, mixture: Tensor, embedding: Tensor) -> Tensor:
        return self.network.extract(mixture, {"0.embedding": embedding}).waveforms[0]


def largest_difference(ours: nn.Module, loop: nn.Module) -> float:
    """Return the largest difference of the two outputs, relative to the largest sample."""
    mixture, embedding = torch.randn(2, 16000), torch.randn(2, EMBEDDING_DIM)
    with torch.inference_mode():
        estimate, reference = ours(mixture, embedding), loop(mixture, embedding)
    return float((estimate - reference).abs().max() / reference.abs().max())


@pytest.fixture
def pair():
    return networks()


def test_outputs_equal_a_loop_over_the_bands(pair):
    ours, loop = pair
    assert largest_difference(ours, loop) < 1e-5
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in loop.parameters())
    assert len(loop.split) == len(loop.masks) == 32


def test_gradients_equal_a_loop_over_the_bands(pair):
    ours, loop = pair
    mixture, embedding = torch.randn(1, 4000), torch.randn(1, EMBEDDING_DIM)
    for network in pair:
        network(mixture, embedding).square().mean().backward()
    first, last = ours.network.backbone.split[0].linear, ours.network.backbone.masks[-1].layers[1]
    assert torch.allclose(first.weight.grad[3].T, loop.split[3][1].weight.grad[:, :, 0], rtol=1e-3, atol=1e-7)
    assert torch.allclose(last.weight.grad[-1].T, loop.masks[-1][1].weight.grad[:, :, 0], rtol=1e-3, atol=1e-7)
    rnn = ours.network.backbone.blocks[1].across_bands.rnn.weight_hh_l0
    assert torch.allclose(rnn.grad, loop.blocks[3].rnn.weight_hh_l0.grad, rtol=1e-3, atol=1e-7)
    assert rnn.grad.any() and first.weight.grad[3].any()


@pytest.mark.parametrize("part", ["split.20.1", "masks.31.5", "blocks.2.linear", "fusion"])
def test_the_comparison_sees_a_changed_weight(pair, part):
    ours, loop = pair
    assert isinstance(loop, LoopedBSRNN)
    with torch.no_grad():
        loop.get_submodule(part).weight.mul_(1.5)
    assert largest_difference(ours, loop) > 1e-5
