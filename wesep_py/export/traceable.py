"""Make a copy of a network that can be traced: real arithmetic, and no decision that depends on a length.

A graph consists of fixed operations on real numbers, whatever the length of the recording. So some modules of the copy
get a class that computes the same by other means, with the same weights:

| module | what is different |
| --- | --- |
| `STFT` | products with a basis of sines and cosines; spectra are a `ComplexPair` |
| `HighPass` | a recording of any length is extended by its reflection in the same way |
| `OnePole` | one way for any number of samples |
| `KaldiFilterbank` | mean, pre-emphasis, window and Fourier transform of a frame are one matrix |
| `SequenceNorm`, `BandNorm`, `ChannelNorm`, … | sizes are numbers, and means over time are written out |
| `BandLinear`, `BandSplitBlock`, … | sizes are numbers, for a batch of one |

The batch has one recording, without padding.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.features import STFT, ComplexPair, HighPass, KaldiFilterbank
from wesep_py.features.filterbank import KALDI_MIN_ENERGY, KALDI_PREEMPHASIS
from wesep_py.features.high_pass import OnePole
from wesep_py.features.stft import MIN_OVERLAP
from wesep_py.network.backbones.bsrnn import FLOAT32_EPS, BandEncoder, BandMask, BandSplitBlock, SequenceNorm
from wesep_py.network.backbones.conv_tasnet import ChannelNorm
from wesep_py.network.backbones.spectrum import BandLinear, BandNorm
from wesep_py.network.cues.input_cues import USEF_ATTENTION_EPS, ConvHeadProjection
from wesep_py.network.cues.latent_cues import BandAttention
from wesep_py.network.extraction_network import TargetSpeakerExtractor

# Samples of a block of `TraceableOnePole`, and time constants, in samples, above which it has two levels of blocks.
_BLOCK, _LONGEST = 256, 2048


def traceable(network: TargetSpeakerExtractor) -> TargetSpeakerExtractor:
    """Return a copy of a network, in evaluation mode on the CPU, that can be traced.

    Args:
        network: is not changed.
    """
    duplicate = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    for module in list(duplicate.modules()):
        if (kind := _TRACEABLE.get(type(module))) is not None:
            module.__class__ = kind
            if (begin := getattr(module, "begin", None)) is not None:
                begin()
    return duplicate


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Add frame k at sample k · hop: `[batch, size, frames]` → `[batch, samples]`.

    With frames of three hops, their parts a, b and c lie as follows, so each sum of a column is one addition:

        frame 0    a0 b0 c0
        frame 1       a1 b1 c1
        frame 2          a2 b2 c2

    >>> overlap_add(torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]]), 2).tolist()
    [[1.0, 2.0, 13.0, 20.0, 30.0]]
    """
    size = frames.shape[1]
    count = -(-int(size) // hop)
    parts = F.pad(frames, (0, 0, 0, count * hop - int(size))).unflatten(1, (count, hop))
    total = sum(F.pad(parts[:, i], (i, count - 1 - i)) for i in range(count))
    assert isinstance(total, Tensor)
    return total.transpose(1, 2).flatten(1)[:, : (frames.shape[2] - 1) * hop + int(size)]


class TraceableSTFT(STFT):
    """`STFT` as products with cosines and sines, from and to a `ComplexPair`."""

    def begin(self) -> None:
        """Compute the bases, in float64. They are part of the state, so that a graph holds each once."""
        length = self.window_length
        time = torch.arange(length, dtype=torch.float64)
        angle = 2 * math.pi / length * torch.arange(self.num_bins, dtype=torch.float64)[:, None] * time
        analysis = torch.cat([angle.cos(), -angle.sin()]) * self.window.double()
        # Each bin but the first and the last stands for two of the whole spectrum.
        weight = torch.full((self.num_bins, 1), 2.0 / length, dtype=torch.float64)
        weight[0], weight[-1] = 1 / length, 1 / length
        synthesis = torch.cat([angle.cos() * weight, -angle.sin() * weight]) * self.synthesis_window.double()
        self.register_buffer("analysis_basis", analysis[:, None].float())
        self.register_buffer("synthesis_basis", synthesis.T.contiguous().float())
        self.analysis_basis: Tensor
        self.synthesis_basis: Tensor

    def forward(self, waveform: Tensor) -> Any:
        num_samples, left = waveform.shape[-1], -self.start
        total = (self.num_frames(num_samples) - 1) * self.hop_length + self.window_length
        if self.centred and self.pad_mode == "reflect":
            waveform = F.pad(waveform, (0, torch.as_tensor(left + 1 - num_samples).clamp_min(0)))
            waveform = F.pad(waveform[:, None], (left, left), mode="reflect")[:, 0]
            return self.frames(F.pad(waveform, (0, total - waveform.shape[-1])))
        return self.frames(F.pad(waveform, (left, total - left - num_samples)))

    def frames(self, segment: Tensor) -> Any:
        spectrum = F.conv1d(segment[:, None], self.analysis_basis, stride=self.hop_length)
        return ComplexPair(spectrum[:, : self.num_bins], spectrum[:, self.num_bins :])

    def inverse(self, spectrum: Any, length: int) -> Tensor:
        overlapped = overlap_add(self._signals(spectrum), self.hop_length)
        weights = (self.window * self.synthesis_window)[None, :, None].expand(1, -1, spectrum.shape[-1])
        overlapped = overlapped / overlap_add(weights, self.hop_length).clamp_min(MIN_OVERLAP)
        missing = -self.start + length - overlapped.shape[-1]
        return F.pad(overlapped, (self.start, missing))

    def frame_signals(self, spectrum: Any) -> Tensor:
        return self._signals(spectrum)[:, self.synthesis_start - self.start :]

    def _signals(self, spectrum: ComplexPair) -> Tensor:
        return self.synthesis_basis @ torch.cat([spectrum.real, spectrum.imag], dim=1)


class TraceableHighPass(HighPass):
    """`HighPass` that extends recordings of any length in one way."""

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        waveform = waveform - waveform.mean(dim=1, keepdim=True)
        all_samples = torch.as_tensor(waveform.shape[1])[None, None]
        return waveform - self._low(self._extended(waveform, all_samples), waveform.shape[1])


class TraceableOnePole(OnePole):
    """`OnePole` that computes any number of samples in one way."""

    def forward(self, waveform: Tensor, before: Tensor) -> Tensor:
        rate = -math.log1p(-self.gain)
        return decaying_sum(self.gain * waveform, before, rate, waveform.shape[1])


def decaying_sum(x: Tensor, before: Tensor, rate: float, num_samples: int) -> Tensor:
    """Return y with y[k] = exp(−rate) · y[k−1] + x[k], in blocks as `OnePole`.

    A block is padded, so long blocks would be a waste for the few samples of a hop. With a long time constant, blocks
    are short therefore, and their ends are summed in the same way, with the rate of a block:

        samples    | x x x x | x x x x | x x . . |
        ends               e0        e1        e2       y at e1 = decay of a block · y at e0 + sum of its own block

    Args:
        x: `[batch, n]`.
        before: `[batch, 1]`, y[−1].
        rate: above 0.
        num_samples: n, which a graph knows for certain only of an input.

    >>> decaying_sum(torch.ones(1, 3), torch.zeros(1, 1), math.log(2), 3).tolist()
    [[1.0, 1.5, 1.75]]
    """
    short = 1 / rate <= _LONGEST
    size = max(1, int(2 / rate)) if short else _BLOCK
    powers = torch.exp(-rate * torch.arange(size + 1, dtype=torch.float64))
    decay, steps = powers.float(), 12
    blocks = F.pad(x, (0, -num_samples % size)).unflatten(1, (-1, size))
    within = (blocks / decay[:-1]).cumsum(dim=2) * decay[:-1]
    if short:
        kernel = (powers[-1] ** torch.arange(steps, dtype=torch.float64)).flip(0)[None, None].float()
        ends = torch.cat([before, within[:, :-1, -1]], dim=1)[:, None]
        starts = F.conv1d(F.pad(ends, (steps - 1, 0)), kernel)[:, 0]
    else:
        ends = decaying_sum(within[:, :, -1], before, rate * size, (num_samples + size - 1) // size)
        starts = torch.cat([before, ends[:, :-1]], dim=1)
    return (within + starts[..., None] * decay[1:]).flatten(1)[:, :num_samples]


class TraceableKaldiFilterbank(KaldiFilterbank):
    """`KaldiFilterbank` with one matrix from the samples of a frame to its spectrum."""

    def begin(self) -> None:
        """Compute the matrix: the Fourier transform of what Kaldi makes of each unit impulse, in float64."""
        length = self.window_length
        frames = torch.eye(length, dtype=torch.float64)
        frames = frames - frames.mean(dim=1, keepdim=True)
        previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        frames = (frames - KALDI_PREEMPHASIS * previous) * self.window.double()
        spectrum = torch.fft.rfft(frames, n=self.fft_length)
        basis = torch.cat([spectrum.real, spectrum.imag], dim=1).T[:, None]
        self.register_buffer("basis", basis.float().contiguous())
        self.basis: Tensor

    def _log_mel(self, samples: Tensor) -> Tensor:
        missing = torch.as_tensor(self.window_length - samples.shape[-1]).clamp_min(0)
        samples = F.pad(samples, (0, missing))
        spectrum = F.conv1d(samples[:, None], self.basis, stride=self.hop_length).square()
        num_bins = self.fft_length // 2 + 1
        power = (spectrum[:, :num_bins] + spectrum[:, num_bins:]).transpose(1, 2)
        return (power @ self.filters).clamp(min=KALDI_MIN_ENERGY).log()


class TraceableSequenceNorm(SequenceNorm):
    """`SequenceNorm` of fixed size."""

    def begin(self) -> None:
        """Note the size as a number."""
        self.size = self.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        if self.over_length:
            return _normalise(x, (-2, -1), self.eps) * self.weight + self.bias
        return F.layer_norm(x, (self.size,), self.weight, self.bias, self.eps)


class TraceableBandNorm(BandNorm):
    """`BandNorm` of fixed size."""

    def begin(self) -> None:
        """Note the size as a number."""
        self.size = int(self.weight.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        normalised = (
            _normalise(x, (-2, -1), self.eps) if self.over_time else F.layer_norm(x, (self.size,), eps=self.eps)
        )
        return normalised * self.weight + self.bias


# Shapes of the layers of BSRNN. A size that the tracer reads from a tensor becomes four operations in the graph, so for
# a single recording all sizes are numbers, but that of the frames.


class TraceableBandLinear(BandLinear):
    """`BandLinear` for a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x[0], self.weight).unsqueeze(0)


class TraceableBandEncoder(BandEncoder):
    """`BandEncoder` for a batch of one."""

    def begin(self) -> None:
        """Note the size as a number."""
        self.channels = int(self.linear.weight.shape[1]) // self.group.width
        self.negative_channels = 0 if self.negative is None else int(self.negative.shape[1]) // self.group.width

    def forward(self, features: Tensor) -> Tensor:
        bands = self._bands_of(features if self.negative is None else features[:, : self.channels], self.channels)
        encoded = self.linear(self.norm(bands))
        if self.negative is None:
            return encoded
        power = bands.square().mean(dim=(-2, -1) if self.over_time else -1, keepdim=True)
        negative = self._bands_of(features[:, self.channels :], self.negative_channels)
        return encoded + negative / (power + FLOAT32_EPS).sqrt() @ self.negative

    def _bands_of(self, features: Tensor, channels: int) -> Tensor:
        bands = features.reshape(channels, self.group.count, self.group.width, -1).permute(1, 3, 0, 2)
        return bands.reshape(1, self.group.count, -1, channels * self.group.width)


class TraceableBandSplitBlock(BandSplitBlock):
    """`BandSplitBlock` for a batch of one."""

    def forward(self, latent: Tensor, state: Any = None, live: bool = False) -> tuple[Tensor, Any]:
        bands, state = self.along_time(latent[0], state, live)
        frames, _ = self.across_bands(bands.transpose(0, 1))
        return frames.transpose(0, 1).unsqueeze(0), state


class TraceableBandMask(BandMask):
    """`BandMask` for a batch of one."""

    def forward(self, latent: Tensor) -> Tensor:
        out = self.layers(latent).reshape(self.group.count, -1, 2, 2, self.group.width)
        mask = (out[:, :, 0] * torch.sigmoid(out[:, :, 1])).permute(2, 0, 3, 1)
        return mask.reshape(1, 2, self.group.count * self.group.width, -1)


class TraceableBandAttention(BandAttention):
    """`BandAttention` for a batch of one."""

    def begin(self) -> None:
        """Note the size as a number."""
        self.size = self.query.out_features // self.num_heads

    def forward(self, latent: Tensor, enrolled: Tensor, mask: Tensor) -> Tensor:
        enrolled = self.enrolled_norm(enrolled[0])
        parts = (self.query(self.norm(latent[0])), self.key(enrolled), self.value(enrolled))
        query, key, value = (part.unflatten(-1, (self.num_heads, self.size)).transpose(1, 2) for part in parts)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        return self.output(out.transpose(1, 2).flatten(2)).unsqueeze(0)


class TraceableChannelNorm(ChannelNorm):
    """`ChannelNorm` of fixed size."""

    def begin(self) -> None:
        """Note the size as a number."""
        self.size = self.weight.numel()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.kind == "global":
            return _normalise(x, (-2, -1), self.eps) * self.weight[:, None] + self.bias[:, None]
        frames = F.layer_norm(x.transpose(1, 2), (self.size,), self.weight, self.bias, self.eps)
        return frames.transpose(1, 2)


class TraceableProjection(ConvHeadProjection):
    """`ConvHeadProjection` of fixed size."""

    def begin(self) -> None:
        """Note the sizes as numbers."""
        self.sizes = tuple(int(size) for size in self.weight.shape[-2:])

    def forward(self, features: Tensor) -> Tensor:
        x = self.act(self.conv(features).unflatten(1, (self.heads, -1))).permute(0, 1, 4, 2, 3)
        return F.layer_norm(x, self.sizes, eps=USEF_ATTENTION_EPS) * self.weight + self.bias


def _normalise(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dim=axes, keepdim=True)
    return centred / (centred.square().mean(dim=axes, keepdim=True) + eps).sqrt()


_TRACEABLE: dict[type[nn.Module], Any] = {
    STFT: TraceableSTFT,
    HighPass: TraceableHighPass,
    OnePole: TraceableOnePole,
    KaldiFilterbank: TraceableKaldiFilterbank,
    SequenceNorm: TraceableSequenceNorm,
    BandNorm: TraceableBandNorm,
    BandLinear: TraceableBandLinear,
    BandEncoder: TraceableBandEncoder,
    BandSplitBlock: TraceableBandSplitBlock,
    BandMask: TraceableBandMask,
    BandAttention: TraceableBandAttention,
    ChannelNorm: TraceableChannelNorm,
    ConvHeadProjection: TraceableProjection,
}
