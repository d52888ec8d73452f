"""TF-GridNet: recurrent layers along bins and along frames, and attention between frames, in turn.

Wang et al., "TF-GridNet: integrating full- and sub-band modeling for speech separation" (TASLP 2023). The defaults are
the sizes of the 7 M network that WeSep trains.

    spectrum ─► convolution, norm ─► blocks ─► transposed convolution ─► spectrum or mask of the target
                                       │
                        ┌──────────────┴───────────────────────────────┐
                        │ LSTM along the bins of each frame            │
                        │ LSTM along the frames of each bin            │  each with a residual connection
                        │ attention between frames, section III-D      │
                        └──────────────────────────────────────────────┘
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from wesep_py.features import STFT
from wesep_py.network.backbones.backbone import Analysis, Backbone, Condition, backbones
from wesep_py.network.backbones.spectrum import EstimateKind, SpectrumHead, full_precision, span_of

NORM_EPS = 1e-5
MAX_ELEMENTS_PER_BLOCK = 2**18
"""Elements of all sequences that a recurrent layer computes at a time outside training: about 60 s in four parts."""
MAX_QUERIES_PER_BLOCK = 512
"""Frames whose attention is computed at a time."""
KeyValueMemory = tuple[Tensor, Tensor]
"""State of a causal attention: keys and values of earlier frames, each `[batch, heads, frames, size]`."""


@backbones.register("tf_gridnet")
class TFGridNet(Backbone):
    """TF-GridNet, which maps the mixture's spectrum to the target's.

    The latent is `[batch, frames, bins, feature_dim]`; an embedding is fused before every block.

    Args:
        sample_rate: Hz (given by the model).
        input_channels: feature channels, those of the cues included (given by the model).
        negative_channels: further channels, of negative enrollments (given by the model).
        window_ms, hop_ms: analysis window (periodic Hann, centred) and its shift, in milliseconds.
        pad_mode: padding before and after the waveform: zeros (`constant`) or its reflection (`reflect`).
        feature_dim: D, the channels of a time-frequency point.
        num_blocks: blocks of two recurrent layers and one attention.
        hidden: units of the recurrent layers, for each direction.
        kernel, kernel_hop: bins, or frames, in one step of a recurrent layer, and the shift from step to step.
        num_heads: attention heads; has to divide `feature_dim`.
        query_size: approximate size of an attention query over all bins: ⌈query_size / bins⌉ channels per bin.
        attention_window_s: seconds to either side that a frame attends to; `null` is the whole recording, at a cost
            that grows with the square of the length. A recording shorter than the window gives the same result as
            without a window.
        fuse_along: axis along which an embedding is fused: the latent's `channels`, or its `bins` (as WeSep does).
        causal: one direction along time, attention and normalisation over no later frame, and one frame in the last
            convolution. The look-ahead that remains is the window's: `latency`.
        norm: of the first convolution's output: `group` over the recording, `frame` over each frame; `null` is
            `frame` when causal and `group` otherwise.
        estimate: output of the last convolution: the target's `spectrum` (as published), or a complex `mask`; `null`
            is `mask` when causal, because the level of the recording is unknown then, and `spectrum` otherwise.
        gradient_checkpointing: keep only the input of each block and compute the others again in the backward pass:
            about a third more time for a fraction of the memory.

    Raises:
        ValueError: sizes below 1, a hop longer than half the window, heads that do not divide `feature_dim`, a
            causal network with `norm: group` or a `kernel_hop` above 1.

    >>> network = TFGridNet(feature_dim=8, num_blocks=1, hidden=8)
    >>> analysis = network.analyse(torch.randn(2, 1000))
    >>> latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    >>> network.synthesise(latent, analysis, 1000)[0].shape
    torch.Size([2, 1000])
    """

    native_channels = 2
    frame_axis = 1

    def __init__(
        self,
        sample_rate: int = 16000,
        input_channels: int = 2,
        negative_channels: int = 0,
        window_ms: float = 8.0,
        hop_ms: float = 4.0,
        pad_mode: Literal["constant", "reflect"] = "constant",
        feature_dim: int = 128,
        num_blocks: int = 6,
        hidden: int = 192,
        kernel: int = 1,
        kernel_hop: int = 1,
        num_heads: int = 4,
        query_size: int = 512,
        attention_window_s: float | None = None,
        fuse_along: Literal["channels", "bins"] = "channels",
        causal: bool = False,
        norm: Literal["group", "frame"] | None = None,
        estimate: EstimateKind | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        window, hop = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
        if not 0 < hop <= window // 2:
            raise ValueError(f"hop_ms: is {hop_ms}; more than 0 and at most half of window_ms ({window_ms}) is allowed")
        if min(feature_dim, num_blocks, hidden, num_heads, query_size) < 1:
            raise ValueError("feature_dim, num_blocks, hidden, num_heads and query_size: must be 1 or more")
        if not 1 <= kernel_hop <= kernel:
            raise ValueError(f"kernel_hop: is {kernel_hop}; from 1 to kernel ({kernel}) is allowed")
        if attention_window_s is not None and attention_window_s <= 0:
            raise ValueError(f"attention_window_s: is {attention_window_s}; more than 0 s, or null, is allowed")
        if causal and norm == "group":
            raise ValueError("norm: 'group' averages over time, which a causal network cannot; use 'frame'")
        if causal and kernel_hop != 1:
            raise ValueError(f"kernel_hop: is {kernel_hop}; a causal network moves on frame by frame, so 1 is needed")

        self.sample_rate, self.causal = sample_rate, causal
        self.over_time = (norm or ("frame" if causal else "group")) == "group"
        self.gradient_checkpointing = gradient_checkpointing
        # See BSRNN: a centred window whose first sample is zero looks window - 2 samples ahead in the worst phase.
        self.stride, self.latency = hop, window - 2 if causal else None
        self.stft = STFT(window, hop, pad_mode=pad_mode)
        self.span = span_of(self.stft)
        num_bins = self.stft.num_bins
        self.num_fusion_points = num_blocks
        self.fusion_axis = -1 if fuse_along == "channels" else -2
        self.latent_dim = feature_dim if fuse_along == "channels" else num_bins

        reach = None if attention_window_s is None else max(1, round(attention_window_s * sample_rate / hop))
        # The kernels of channels of negative enrollments start at zero, and are parameters of their own, so that a
        # network without them can be continued with them.
        self.convolution = nn.Conv2d(input_channels, feature_dim, 3, padding=(0, 1))
        self.negative_convolution = None
        if negative_channels:
            self.negative_convolution = nn.Conv2d(negative_channels, feature_dim, 3, padding=(0, 1), bias=False)
            nn.init.zeros_(self.negative_convolution.weight)
        self.norm_weight = nn.Parameter(torch.ones(feature_dim))
        self.norm_bias = nn.Parameter(torch.zeros(feature_dim))
        self.blocks = nn.ModuleList(
            GridBlock(
                WindowedRNN(feature_dim, hidden, kernel, kernel_hop, causal=False),
                WindowedRNN(feature_dim, hidden, kernel, kernel_hop, causal),
                FullBandAttention(feature_dim, num_bins, num_heads, query_size, causal, reach),
            )
            for _ in range(num_blocks)
        )
        self.synthesis = SpectrumHead(feature_dim, causal, estimate)

    def analyse(self, waveform: Tensor) -> Analysis:
        return self._analyse(self.stft(waveform))

    def analyse_frames(self, segment: Tensor) -> Analysis:
        return self._analyse(self.stft.frames(segment))

    def _analyse(self, spectrum: Tensor) -> Analysis:
        return Analysis(features=torch.stack([spectrum.real, spectrum.imag], dim=1), spectrum=spectrum)

    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        frames = features.transpose(2, 3)
        # The convolution sees three frames: one to either side, or, when causal, the two before. Those are the first
        # entry of the state; one entry per block follows.
        if not self.causal:
            frames, last_frames = F.pad(frames, (0, 0, 1, 1)), None
        else:
            past = frames.new_zeros(*frames.shape[:2], 2, frames.shape[3]) if state is None else state[0]
            frames = torch.cat([past, frames], dim=2)
            last_frames = frames[:, :, -2:]
        given = self.convolution.in_channels
        convolved = self.convolution(frames[:, :given])
        if self.negative_convolution is not None:
            convolved = convolved + self.negative_convolution(frames[:, given:])
        latent = full_precision(convolved).permute(0, 2, 3, 1)
        shape = latent.shape[1:] if self.over_time else latent.shape[2:]
        latent = F.layer_norm(latent, shape, eps=NORM_EPS) * self.norm_weight + self.norm_bias
        new_state = [last_frames]
        for point, block in enumerate(self.blocks):
            latent = condition(point, latent)
            latent, block_state = self._run_block(block, latent, None if state is None else state[point + 1])
            new_state.append(block_state)
        return latent, new_state if self.causal else None

    def synthesise(self, latent: Tensor, analysis: Analysis, length: int) -> tuple[Tensor, ...]:
        estimate = self.synthesis(latent.permute(0, 3, 1, 2), analysis.spectrum)
        return (self.stft.inverse(estimate, length),)

    def frame_signals(self, latent: Tensor, analysis: Analysis) -> Tensor:
        return self.stft.frame_signals(self.synthesis(latent.permute(0, 3, 1, 2), analysis.spectrum))

    def synthesis_weights(self) -> Tensor:
        return self.stft.synthesis_weights()

    def summarise(self, latent: Tensor) -> Tensor:
        return latent.mean(dim=-2 if self.fusion_axis == -1 else -1)

    def _run_block(self, block: Callable[..., Any], latent: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, latent, state, use_reentrant=False)
        return block(latent, state)


class GridBlock(nn.Module):
    """Block of TF-GridNet: recurrent layers along bins and frames, and attention, each with a residual connection."""

    def __init__(self, along_bins: WindowedRNN, along_frames: WindowedRNN, attention: FullBandAttention) -> None:
        super().__init__()
        self.along_bins, self.along_frames, self.attention = along_bins, along_frames, attention

    def forward(self, latent: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return `[batch, frames, bins, dim]` of the same shape, and the states of its causal layers."""
        batch, frames, bins, dim = latent.shape
        rnn_state, memory = (None, None) if state is None else state
        # As published, both axes are padded before the first layer, so the second layer sees, at both ends of the
        # recording, the first layer's output for silent frames. A causal second layer has its own past instead.
        before, after = self.along_bins.padding(bins)
        first, last = (0, 0) if self.along_frames.causal else self.along_frames.padding(frames)
        x = F.pad(latent, (0, 0, before, after, first, last))
        x, _ = self.along_bins(x.flatten(0, 1))
        x = x.view(batch, first + frames + last, -1, dim)[:, :, before : before + bins].transpose(1, 2)
        x, rnn_state = self.along_frames(x.reshape(batch * bins, -1, dim), rnn_state)
        x = x.view(batch, bins, -1, dim)[:, :, first : first + frames].transpose(1, 2)
        x, memory = self.attention(x, memory)
        return x, (rnn_state, memory)


class WindowedRNN(nn.Module):
    """Recurrent layer on overlapping windows: `x + overlap_add(linear(LSTM(windows(norm(x)))))`.

    It works along the middle axis of `[batch, length, dim]`. One step sees `kernel` neighbouring elements and adds to
    the same number; the next step is `hop` elements later. A causal step sees its element and the `kernel` − 1 before,
    and adds to its element and the `kernel` − 1 after.

    Args:
        dim: size of the last axis.
        hidden: units of the LSTM, for each direction.
        kernel, hop: elements of a step, and the shift from step to step.
        causal: whether the LSTM runs in one direction and keeps a state.
    """

    def __init__(self, dim: int, hidden: int, kernel: int, hop: int, causal: bool) -> None:
        super().__init__()
        self.kernel, self.hop, self.causal = kernel, hop, causal
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.rnn = nn.LSTM(dim * kernel, hidden, batch_first=True, bidirectional=not causal)
        self.linear = nn.Linear(hidden * (1 if causal else 2), kernel * dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(hop, dim))  # one bias for each position within a hop

    def padding(self, length: int) -> tuple[int, int]:
        """Return the zeros to put before and after `length` elements: `kernel` − `hop`, and to fill the last step."""
        overlap = self.kernel - self.hop
        steps = -(-(length + 2 * overlap - self.kernel) // self.hop)
        return overlap, steps * self.hop + self.kernel - length - overlap

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the output, of the same shape, and the state for the next block (`None` if not causal).

        Args:
            x: `[batch, length, dim]`, padded as `padding` says unless the layer is causal.
            state: of the block before; `None` at the start of a recording.
        """
        batch, length, dim = x.shape
        if batch * length > MAX_ELEMENTS_PER_BLOCK and batch > 1 and not self.causal and not torch.is_grad_enabled():
            blocks = x.split(max(1, MAX_ELEMENTS_PER_BLOCK // length))
            return torch.cat([self(block)[0] for block in blocks]), None
        windowed, overlap = self.norm(full_precision(x)), self.kernel - 1
        # A causal layer with kernel 3, so an overlap of 2, on a block of 4 elements:
        #
        #   input    | p p | 0 1 2 3 |            p: the last two inputs of the block before
        #   steps    [ p p 0 ] … [ 1 2 3 ]        step t sees the elements t−2 … t and adds to t … t+2
        #   output         | 0 1 2 3 | t t |      t: the tail, which is added to the next block's first two elements
        if self.causal:
            past, tail, rnn_state = (windowed.new_zeros(batch, overlap, dim),) * 2 + (None,) if state is None else state
            windowed = torch.cat([past, windowed], dim=1)
        else:
            rnn_state = None
        out, rnn_state = self.rnn(windowed.unfold(1, self.kernel, self.hop).flatten(2), rnn_state)
        added = overlap_add(self.linear(out).view(batch, -1, self.kernel, dim), self.hop)
        if self.causal:
            added = torch.cat([added[:, :overlap] + tail, added[:, overlap:]], dim=1)
            state = (windowed[:, length:], added[:, length:], rnn_state)
            added = added[:, :length]
        repeats = -(-length // self.hop)
        return x + added + self.bias.repeat(repeats, 1)[:length], state if self.causal else None


def overlap_add(windows: Tensor, hop: int) -> Tensor:
    """Add windows to a sequence, window i from element i · hop on.

    `[batch, steps, kernel, dim]` → `[batch, (steps − 1) · hop + kernel, dim]`.
    """
    batch, steps, kernel, dim = windows.shape
    if kernel == hop:
        return windows.reshape(batch, steps * kernel, dim)
    out = windows.new_zeros(batch, (steps - 1) * hop + kernel, dim)
    for k in range(kernel):
        out[:, k : k + (steps - 1) * hop + 1 : hop] += windows[:, :, k]
    return out


class FullBandAttention(nn.Module):
    """Self-attention between frames: `x + norm(PReLU(W · attention(x)))` (section III-D).

    Query, key and value of a frame consist of all its bins, in every head: `ceil(query_size / bins)` channels of each
    bin for query and key, `dim / num_heads` for the value. Shapes: `[batch, frames, bins, dim]` in and out.

    Args:
        dim, num_bins: sizes of the last two axes.
        num_heads: attention heads; has to divide `dim`.
        query_size: approximate size of a query over all bins.
        causal: whether a frame attends only to itself and earlier frames.
        window: number of frames to either side that a frame attends to; `None` is all of them.

    Raises:
        ValueError: heads that do not divide `dim`.
    """

    def __init__(
        self, dim: int, num_bins: int, num_heads: int, query_size: int, causal: bool, window: int | None
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads: is {num_heads}; a divisor of feature_dim ({dim}) is needed")
        self.causal, self.window = causal, window
        query_dim = math.ceil(query_size / num_bins)
        self.query = HeadProjection(dim, num_bins, num_heads, query_dim)
        self.key = HeadProjection(dim, num_bins, num_heads, query_dim)
        self.value = HeadProjection(dim, num_bins, num_heads, dim // num_heads)
        self.linear = nn.Linear(dim, dim)
        self.activation = nn.PReLU()
        self.norm = nn.LayerNorm((num_bins, dim), eps=NORM_EPS)

    def forward(self, x: Tensor, memory: KeyValueMemory | None = None) -> tuple[Tensor, KeyValueMemory | None]:
        """Return the frames, and (causal) the keys and values that the next block needs."""
        batch, frames, bins, dim = x.shape
        query, key, value = self.query(x), self.key(x), self.value(x)
        if memory is not None:
            key, value = torch.cat([memory[0], key], dim=2), torch.cat([memory[1], value], dim=2)
        attended = windowed_attention(query, key, value, self.causal, self.window)
        heads = attended.view(batch, -1, frames, dim // attended.shape[1], bins)
        out = self.linear(heads.permute(0, 2, 4, 1, 3).reshape(batch, frames, bins, dim))
        out = x + self.norm(full_precision(self.activation(out)))
        if not self.causal:
            return out, None
        remembered = key.shape[2] if self.window is None else min(self.window, key.shape[2])
        start = key.shape[2] - remembered
        return out, (key[:, :, start:], value[:, :, start:])


class HeadProjection(nn.Module):
    """Linear layer, PReLU and normalisation of each frame: `[batch, frames, bins, dim]` → `[batch, heads, frames, d]`.

    d = `size` · `num_bins`. Each head has its own PReLU slope, and is normalised over its channels and bins.
    """

    def __init__(self, dim: int, num_bins: int, num_heads: int, size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear = nn.Linear(dim, num_heads * size)
        self.slope = nn.Parameter(torch.full((num_heads, 1, 1, 1), 0.25))
        self.weight = nn.Parameter(torch.ones(num_heads, 1, size, num_bins))
        self.bias = nn.Parameter(torch.zeros(num_heads, 1, size, num_bins))

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, bins, _ = x.shape
        heads = self.linear(x).view(batch, frames, bins, self.num_heads, -1).permute(0, 3, 1, 4, 2)
        heads = full_precision(torch.where(heads > 0, heads, heads * self.slope))
        heads = F.layer_norm(heads, heads.shape[-2:], eps=NORM_EPS) * self.weight + self.bias
        return heads.flatten(3)


def windowed_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool, window: int | None) -> Tensor:
    """Return `softmax(QKᵀ / √size) V`, each query over the keys within its window.

    Queries are computed `MAX_QUERIES_PER_BLOCK` at a time, with the keys within their reach, so no tensor holds every
    pair of frames. With a window, the number of operations grows with the length instead of its square.

    Args:
        query: `[batch, heads, frames, size]`.
        key: `[batch, heads, earlier + frames, size]`; the last ones belong to the frames of the query.
        value: `[batch, heads, earlier + frames, any size]`.
        causal: whether a query sees no later frame.
        window: number of frames to either side that a query sees; `None`: all.

    Returns:
        `[batch, heads, frames, size of value]`.

    >>> x = torch.randn(1, 2, 50, 8)
    >>> full, windowed = (windowed_attention(x, x, x, False, window) for window in (None, 49))
    >>> torch.allclose(full, windowed, atol=1e-5)
    True
    """
    frames, keys = query.shape[2], key.shape[2]
    # Query t belongs to key earlier + t. Causal, 2 earlier keys, window 2, one block of 4 queries:
    #
    #   key        0 1 2 3 4 5
    #   query 0    x x x . . .      x: visible, |distance| <= window, and distance >= 0 where causal
    #   query 1    . x x x . .      distance = (earlier + t) − key
    #   query 2    . . x x x .
    #   query 3    . . . x x x
    #
    # Keys `first` to `last`, here 0 to 6, are those that any query of the block sees; the mask hides the others.
    earlier = keys - frames
    reach = keys if window is None else window
    attended = []
    for start in range(0, frames, MAX_QUERIES_PER_BLOCK):
        stop = min(start + MAX_QUERIES_PER_BLOCK, frames)
        first = max(0, earlier + start - reach)
        last = min(keys, earlier + stop + (0 if causal else reach))
        mask = None
        if causal or window is not None:
            position = torch.arange(earlier + start, earlier + stop, device=query.device)[:, None]
            distance = position - torch.arange(first, last, device=query.device)
            mask = distance.abs() <= reach
            if causal:
                mask &= distance >= 0
        attended.append(
            F.scaled_dot_product_attention(
                query[:, :, start:stop], key[:, :, first:last], value[:, :, first:last], attn_mask=mask
            )
        )
    return torch.cat(attended, dim=2)
