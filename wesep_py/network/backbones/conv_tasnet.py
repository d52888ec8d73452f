"""Conv-TasNet: learned filters instead of a Fourier transform, and a temporal convolutional network that masks them.

Luo & Mesgarani, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation" (TASLP 2019).

    waveform ─► learned encoders ─► norm, 1×1 ─► TCN blocks ─► mask · encoder output ─► learned decoders ─► estimates
                                                    │
                                                    fusion points: before a block, inside it, or at its output

Three systems that steer it are configurations:

- SpEx+ (Ge et al., Interspeech 2020): three encoders of one hop and different windows, one estimate from each; an
  embedding concatenated inside the first block of every stack (`fusion_place: inside`, see `ConvTasNet`).
- MC-SpEx (Chen et al., Interspeech 2023, arXiv 2306.16250): SpEx+ whose three scales see one another before the blocks
  (`fuse_scales`) and where the masks are made (`mix_masks`), with an embedding fused by FiLM.
- TD-SpeakerBeam (Delcroix et al., ICASSP 2020): an embedding multiplied into the output of the eighth block
  (`fusion_blocks: [8]`). ESPnet's form of it sums the skip connections of all blocks (`skip_sum: network`), and fuses
  one half of the embedding into what the block adds to the residual path, the other half into its skip connection
  (`fusion_place: output`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.network.backbones.backbone import Analysis, Backbone, Condition, FrameSpan, backbones
from wesep_py.network.backbones.filterbanks import BasisConfig, FilterbankDecoder, FilterbankEncoder
from wesep_py.network.backbones.spectrum import full_precision

NormKind = Literal["global", "frame", "batch"]
Activation = Literal["linear", "prelu", "relu", "sigmoid", "tanh"]
Steering = Callable[[Tensor], Tensor]
"""Fuses an embedding into a tensor of a block, `[batch, channels, frames]`; the shape stays."""
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
DEEP_DILATIONS = (1, 2, 4, 8)
"""Dilations of the convolutions of a `deep` encoder."""


@backbones.register("conv_tasnet")
class ConvTasNet(Backbone):
    """Conv-TasNet: masks on learned encoders of one or several window lengths, one estimate from each.

    An encoder is a strided convolution and a ReLU; frame t begins at sample t · hop. All encoders share the hop, so
    their filters lie side by side in the features, `[batch, channels, encoders · filters, frames]`. The latent is
    `[batch, bottleneck, frames]`; an embedding is fused along its channels.

    Inside a block, the fusion point is the output of its first 1×1 convolution, `[batch, hidden, frames]`. There,
    `add` is what SpEx+ calls concatenation: W [h; e] + b = (W_h h + b) + W_e e, with h alone on the residual path. At
    the output of a block, the first fusion point is what the block adds to the residual path; with `skip`, a second
    one is its skip connection.

    Args:
        sample_rate: Hz (given by the model).
        input_channels: feature channels, those of the cues included (given by the model).
        kernels_ms: window of each encoder, in milliseconds; the first is that of the result.
        hop_ms: shift of all windows, in milliseconds; at most the shortest window.
        num_filters: filters of each encoder.
        bottleneck: channels of the residual path.
        hidden: channels within a block.
        kernel: taps of the depthwise convolutions; odd, unless causal.
        blocks_per_stack: blocks of a stack, with dilations 1, 2, 4, …
        num_stacks: number of stacks.
        norm: `global` normalises over time and channels, `frame` over the channels of each frame, `batch` with the
            statistics of the training data; `null` is `frame` when causal and `global` otherwise.
        input_norm: norm of the features before the first block, with the same choices.
        fusion_blocks: the blocks at which an embedding is fused, counted from 0; `null` is the first of each stack.
        fusion_place: whether an embedding is fused `before` the block, `inside` it, or into its `output`.
        fusion_norm: whether PReLU and norm follow every fusion (only with `before`).
        skip: whether the output of a stack is the sum of skip connections, one 1×1 convolution from each of its
            blocks, instead of the output of its last block; a block inside which an embedding is fused has none.
        skip_sum: `stack`: skip connections are summed as `skip` says. `network`: the residual path continues through
            all stacks, and the latent is the sum of the skip connections of all blocks.
        latent_activation: activation of the latent, before the 1×1 convolution that makes the mask.
        mask_activation: activation of the mask.
        fuse_scales: whether each encoder's features are fused with those of the others, of mixtures and enrollments
            alike (`ScaleFuser`); for several encoders.
        mix_masks: whether the mask of each encoder is made of what makes the others' too (`MaskMixer`); likewise.
        deep: whether four dilated convolutions follow the encoder's filters instead of a ReLU, and precede the
            decoder's filters in reverse order; for one encoder, not causal.
        basis_bias: whether encoders and decoders have a bias.
        conv_bias: whether the convolutions between encoders and decoders have a bias.
        norm_eps: added to the variance by norms `global` and `frame`, above 0.
        input_norm_eps: the same for the norm of the features; `null` is `norm_eps`.
        drop_last: whether samples at the end that do not fill a frame are dropped, and are zero in the estimate;
            otherwise the last frame is filled up with zeros.
        basis: a filterbank in place of the learned encoders and decoders (`filterbanks.BasisConfig`); `null`: those.
        causal: whether no frame depends on later ones. The look-ahead that remains is the longest window's: `latency`.

    Raises:
        ValueError: sizes below 1, a hop longer than a window, an even `kernel` or `norm: global` where they are not
            allowed, a block that does not exist, `deep` with several encoders or causal, `fuse_scales` or `mix_masks`
            with one encoder, an eps of 0 or less, a `basis` with `deep` or `basis_bias`.

    >>> network = ConvTasNet(num_filters=8, bottleneck=4, hidden=8, num_stacks=1)
    >>> analysis = network.analyse(torch.randn(2, 1000))
    >>> latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    >>> network.synthesise(latent, analysis, 1000)[0].shape
    torch.Size([2, 1000])
    """

    native_channels = 1

    def __init__(
        self,
        sample_rate: int = 16000,
        input_channels: int = 1,
        kernels_ms: tuple[float, ...] = (2.0,),
        hop_ms: float = 1.0,
        num_filters: int = 256,
        bottleneck: int = 256,
        hidden: int = 512,
        kernel: int = 3,
        blocks_per_stack: int = 8,
        num_stacks: int = 4,
        norm: NormKind | None = None,
        input_norm: NormKind = "frame",
        fusion_blocks: tuple[int, ...] | None = None,
        fusion_place: Literal["before", "inside", "output"] = "before",
        fusion_norm: bool = False,
        skip: bool = False,
        skip_sum: Literal["stack", "network"] = "stack",
        latent_activation: Activation = "linear",
        mask_activation: Activation = "relu",
        deep: bool = False,
        basis_bias: bool = False,
        conv_bias: bool = True,
        norm_eps: float = 1e-5,
        input_norm_eps: float | None = None,
        drop_last: bool = False,
        basis: BasisConfig | None = None,
        causal: bool = False,
        fuse_scales: bool = False,
        mix_masks: bool = False,
    ) -> None:
        super().__init__()
        kernels, hop = [round(sample_rate * ms / 1000) for ms in kernels_ms], round(sample_rate * hop_ms / 1000)
        if not kernels or not 0 < hop <= min(kernels):
            raise ValueError(f"hop_ms: is {hop_ms}; more than 0 and at most each of kernels_ms ({list(kernels_ms)})")
        if min(num_filters, bottleneck, hidden, kernel, blocks_per_stack, num_stacks) < 1:
            raise ValueError("num_filters, bottleneck, hidden, kernel, blocks_per_stack, num_stacks: must be 1 or more")
        if not causal and kernel % 2 == 0:
            raise ValueError(f"kernel: is {kernel}; odd numbers are allowed, unless causal")
        if causal and "global" in (norm, input_norm):
            raise ValueError("norm and input_norm: 'global' averages over time, which a causal network cannot")
        if deep and (causal or len(kernels) > 1):
            raise ValueError("deep: looks ahead and works with one encoder; use neither causal nor several kernels_ms")
        if (fuse_scales or mix_masks) and len(kernels) == 1:
            raise ValueError("fuse_scales and mix_masks: are for several encoders; give two or more kernels_ms")
        if fusion_norm and fusion_place != "before":
            raise ValueError("fusion_norm: a block normalises by itself after a fusion inside it; use false")
        if basis is not None and (deep or basis_bias):
            raise ValueError("basis: a filterbank has no further layers and no bias; use deep and basis_bias: false")
        input_norm_eps = norm_eps if input_norm_eps is None else input_norm_eps
        if min(norm_eps, input_norm_eps) <= 0:
            raise ValueError(f"norm_eps and input_norm_eps: are {norm_eps} and {input_norm_eps}; above 0 is allowed")
        num_blocks = num_stacks * blocks_per_stack
        points = range(0, num_blocks, blocks_per_stack) if fusion_blocks is None else sorted(set(fusion_blocks))
        if not points or not 0 <= points[0] <= points[-1] < num_blocks:
            raise ValueError(f"fusion_blocks: is {list(points)}; one or more from 0 to {num_blocks - 1} are needed")
        if skip and fusion_place == "inside" and blocks_per_stack == 1:
            raise ValueError("skip: needs blocks without a fusion inside; 2 or more blocks_per_stack are allowed")
        norm = norm or ("frame" if causal else "global")

        self.sample_rate, self.causal, self.drop_last, self.kernels = sample_rate, causal, drop_last, kernels
        self.inside, self.fusion_place = fusion_place == "inside", fusion_place
        self.points_per_block = 2 if fusion_place == "output" and skip else 1
        self.latent_dim, self.fusion_axis = hidden if self.inside else bottleneck, 1
        self.num_fusion_points = len(points) * self.points_per_block
        self._point_of = {block: i * self.points_per_block for i, block in enumerate(points)}
        # Output sample n is made of frames that begin at n or before. In the worst phase one begins exactly at n, and
        # it covers the longest window from there on:
        #
        #       n                    last input sample
        #       |──── longest window − 1 ────|
        self.stride, self.latency = hop, max(kernels) - 1 if causal else None
        self.span = FrameSpan(0, max(kernels), 0, kernels[0])

        if basis is None:
            self.bases = nn.ModuleList(LearnedEncoder(num_filters, size, hop, deep, basis_bias) for size in kernels)
        else:
            filterbank = (basis, num_filters)
            self.bases = nn.ModuleList(FilterbankEncoder(*filterbank, size, hop, sample_rate) for size in kernels)
            num_filters = self.bases[0].filters.num_features  # the STFT has two more
        features = input_channels * len(kernels) * num_filters
        self.input = nn.Sequential(
            channel_norm(features, input_norm, input_norm_eps), nn.Conv1d(features, bottleneck, 1, bias=conv_bias)
        )
        # Number of blocks after which their skip connections are summed.
        self.skip_period = blocks_per_stack if skip_sum == "stack" else num_blocks
        self.blocks = nn.ModuleList(
            TCNBlock(
                bottleneck,
                hidden,
                kernel,
                2 ** (i % blocks_per_stack),
                norm,
                causal,
                skip and not (self.inside and i in self._point_of),
                conv_bias,
                norm_eps,
            )
            for i in range(num_blocks)
        )
        self.fusion_norms = nn.ModuleList(
            nn.Sequential(nn.PReLU(), channel_norm(bottleneck, norm, norm_eps)) if fusion_norm else nn.Identity()
            for _ in points
        )
        self.latent_activation = ACTIVATIONS[latent_activation]()
        self.mask = nn.Sequential(
            nn.Conv1d(bottleneck, len(kernels) * num_filters, 1, bias=conv_bias), ACTIVATIONS[mask_activation]()
        )
        self.scale_fuser = ScaleFuser(len(kernels), num_filters, norm_eps) if fuse_scales else None
        self.mask_mixer = MaskMixer(len(kernels), num_filters, conv_bias) if mix_masks else None
        if basis is None:
            self.decoders = nn.ModuleList(LearnedDecoder(num_filters, size, hop, deep, basis_bias) for size in kernels)
        else:
            self.decoders = nn.ModuleList(FilterbankDecoder(*filterbank, sample_rate, base) for base in self.bases)

    def analyse(self, waveform: Tensor) -> Analysis:
        frames = self.num_frames(torch.as_tensor(waveform.shape[1]))
        return self._analyse(waveform, frames if torch.jit.is_tracing() else int(frames))  # type: ignore[arg-type]

    def analyse_frames(self, segment: Tensor) -> Analysis:
        return self._analyse(segment, (segment.shape[1] - self.span.size) // self.stride + 1)

    def _analyse(self, waveform: Tensor, frames: int) -> Analysis:
        with torch.autocast(waveform.device.type, enabled=False):
            encoded = torch.cat([encoder(full_precision(waveform), frames) for encoder in self.bases], dim=1)
        features = encoded if self.scale_fuser is None else self.scale_fuser(encoded)
        return Analysis(features=features[:, None], spectrum=encoded)

    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        latent, new_state, skips = self.input(features.flatten(1, 2)), [], []
        for i, block in enumerate(self.blocks):
            point, inside, output = self._point_of.get(i), None, []
            if point is not None and self.fusion_place == "before":
                latent = self.fusion_norms[point](condition(point, latent))
            elif point is not None and self.inside:
                inside = partial(condition, point)
            elif point is not None:
                output = [partial(condition, point + k) for k in range(self.points_per_block)]
            latent, past = block(latent, None if state is None else state[i], inside, output)
            new_state.append(past)
            if block.skip is not None:
                latent, skip = latent
                skips.append(skip)
            if skips and (i + 1) % self.skip_period == 0:  # the end of a stack, or of the network
                latent, skips = torch.stack(skips).sum(dim=0), []
        return latent, new_state if self.causal else None

    def _masked(self, latent: Tensor, analysis: Analysis) -> Tensor:
        linear, activation = self.mask
        hidden = linear(self.latent_activation(latent))
        if self.mask_mixer is not None:
            hidden = self.mask_mixer(hidden)
        return full_precision(activation(hidden)) * analysis.spectrum

    def synthesise(self, latent: Tensor, analysis: Analysis, length: int) -> tuple[Tensor, ...]:
        masked = self._masked(latent, analysis).chunk(len(self.kernels), dim=1)
        with torch.autocast(latent.device.type, enabled=False):
            estimates = [decoder(encoded) for decoder, encoded in zip(self.decoders, masked, strict=True)]
        if self.drop_last:
            covered = (analysis.num_frames - 1) * self.stride + self.kernels[0]  # samples within the frames
            estimates = [estimate[:, :covered] for estimate in estimates]
        return tuple(nn.functional.pad(estimate, (0, length - estimate.shape[1])) for estimate in estimates)

    def frame_signals(self, latent: Tensor, analysis: Analysis) -> Tensor:
        masked = self._masked(latent, analysis)
        return self.decoders[0].frame_signals(masked.chunk(len(self.kernels), dim=1)[0])

    def synthesis_offset(self) -> Tensor | float:
        bias = getattr(self.decoders[0].filters, "bias", None)  # a filterbank has none
        return 0.0 if bias is None else bias

    @property
    def summary_dim(self) -> int:
        """Channels of the residual path, wherever the fusion points are."""
        return self.mask[0].in_channels

    def summarise(self, latent: Tensor) -> Tensor:
        """Reduce the latent to `[batch, frames, summary_dim]`: here, all of it."""
        return latent.transpose(1, 2)

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return the number of frames that the first window needs to reach the end, at least one.

        With `drop_last`: the number of frames that it fills.
        """
        beyond = (lengths - self.kernels[0]).clamp_min(0)
        return 1 + (beyond if self.drop_last else beyond + self.stride - 1) // self.stride


class ScaleFuser(nn.Module):
    """Fusion of the features of several encoders: `x_i + LN(W_i [x_1; x_2; …])` for each, LN over a frame's channels.

    Chen et al., "MC-SpEx: towards effective speaker extraction with multi-scale interfusion and conditional speaker
    modulation" (Interspeech 2023). One module for mixture and enrollment, so that both stay in one space, is theirs;
    the layers are a choice of ours.

    Args:
        num_scales: number of encoders.
        num_filters: of each.
        eps: added to the variance.
    """

    def __init__(self, num_scales: int, num_filters: int, eps: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(num_scales * num_filters, num_filters, 1) for _ in range(num_scales)
        )
        self.norms = nn.ModuleList(ChannelNorm(num_filters, "frame", eps) for _ in range(num_scales))

    def forward(self, encoded: Tensor) -> Tensor:
        """Return `[batch, num_scales · num_filters, frames]` of the same shape."""
        added = [norm(conv(encoded)) for conv, norm in zip(self.convolutions, self.norms, strict=True)]
        return encoded + torch.cat(added, dim=1)


class MaskMixer(nn.Module):
    """Exchange between the heads of several masks: each becomes the sum of itself and of a layer of the others.

    The mask generator of MC-SpEx (see `ScaleFuser`), in which the scales see one another; the layers are a choice of
    ours.

    Args:
        num_scales: number of masks.
        num_filters: of each.
        bias: whether the layers have a bias.
    """

    def __init__(self, num_scales: int, num_filters: int, bias: bool) -> None:
        super().__init__()
        others = (num_scales - 1) * num_filters
        self.convolutions = nn.ModuleList(nn.Conv1d(others, num_filters, 1, bias=bias) for _ in range(num_scales))

    def forward(self, heads: Tensor) -> Tensor:
        """Return `[batch, num_scales · num_filters, frames]` of the same shape, before the activation of the masks."""
        scales = heads.chunk(len(self.convolutions), dim=1)
        mixed = []
        for i, conv in enumerate(self.convolutions):
            mixed.append(scales[i] + conv(torch.cat([*scales[:i], *scales[i + 1 :]], dim=1)))
        return torch.cat(mixed, dim=1)


class TCNBlock(nn.Module):
    """Block of the temporal convolutional network.

    1×1 convolution, dilated depthwise convolution, 1×1 convolution; PReLU and norm after the first two; a residual
    connection around all.

    Args:
        channels: channels of the residual path.
        hidden: channels between the 1×1 convolutions.
        kernel: taps of the depthwise convolution; odd, unless causal.
        dilation: frames between two taps.
        norm: see `channel_norm`.
        causal: whether all taps but the last lie in the past.
        skip: whether a second 1×1 convolution beside the last makes a skip connection; see `forward`.
        bias: whether the convolutions have a bias.
        norm_eps: see `channel_norm`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        kernel: int,
        dilation: int,
        norm: NormKind,
        causal: bool,
        skip: bool = False,
        bias: bool = True,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation if causal else 0
        padding = 0 if causal else (kernel - 1) * dilation // 2
        self.expand = nn.Conv1d(channels, hidden, 1, bias=bias)
        self.activation1, self.norm1 = nn.PReLU(), channel_norm(hidden, norm, norm_eps)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel, dilation=dilation, padding=padding, groups=hidden, bias=bias)
        self.activation2, self.norm2 = nn.PReLU(), channel_norm(hidden, norm, norm_eps)
        self.project = nn.Conv1d(hidden, channels, 1, bias=bias)
        self.skip = nn.Conv1d(hidden, channels, 1, bias=bias) if skip else None

    def forward(
        self,
        x: Tensor,
        past: Tensor | None = None,
        steer: Steering | None = None,
        steer_output: Sequence[Steering] = (),
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Apply the block.

        Args:
            x: `[batch, channels, frames]`.
            past: streaming state of a causal block: the last `reach` frames before the depthwise convolution,
                `[batch, hidden, reach]`; `None` at the start of a recording (silence).
            steer: applied to the output of the first 1×1 convolution, `[batch, hidden, frames]`.
            steer_output: none, or one for the output without the residual connection and, with `skip`, one for the
                skip connection.
            mask: `[batch, frames]`, true for valid frames; `None` if all are. Padding has no influence on valid
                frames; its own values mean nothing. For blocks that are not causal.

        Returns:
            `[batch, channels, frames]`, or with `skip` `[2, batch, channels, frames]`, the output and the skip
            connection; and the past for the next block of frames (`None` if not causal).
        """
        hidden = self.expand(x)
        if steer is not None:
            hidden = steer(hidden)
        hidden = _normalise(self.norm1, self.activation1(hidden), mask)
        if mask is not None:
            hidden = hidden * mask[:, None]
        # With kernel 3 and dilation 2, frame t is made of the frames t − 4, t − 2 and t, so reach = 4:
        #
        #   past       block
        #   | a b c d | e f g |      e: of a, c, e;  the next past is | d e f g |
        if self.reach:
            if past is None:
                past = hidden.new_zeros(*hidden.shape[:2], self.reach)
            hidden = torch.cat([past, hidden], dim=-1)
            past = hidden[..., -self.reach :]
        hidden = _normalise(self.norm2, self.activation2(self.depthwise(hidden)), mask)
        outputs = [self.project(hidden)] if self.skip is None else [self.project(hidden), self.skip(hidden)]
        if steer_output:
            outputs = [fuse(output) for fuse, output in zip(steer_output, outputs, strict=True)]
        out = x + outputs[0]
        return out if self.skip is None else torch.stack([out, outputs[1]]), past


def channel_norm(channels: int, kind: NormKind, eps: float = 1e-5) -> nn.Module:
    """Return a normalisation of `[batch, channels, frames]`: a `ChannelNorm`, or for `batch` a batch normalisation.

    Args:
        channels, kind, eps: as for `ChannelNorm`; batch normalisation has an eps of its own, 1e-5.
    """
    return nn.BatchNorm1d(channels) if kind == "batch" else ChannelNorm(channels, kind, eps)


def _normalise(norm: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    return norm(x, mask) if isinstance(norm, ChannelNorm) else norm(x)


class ChannelNorm(nn.Module):
    """Normalisation of `[batch, channels, frames]`, with one weight and one bias for each channel.

    Args:
        channels: size of the middle axis.
        kind: `global` takes mean and variance over channels and frames, `frame` over the channels of each frame.
        eps: added to the variance.

    >>> ChannelNorm(4, "frame")(torch.randn(2, 4, 10)).mean(dim=1).abs().max() < 1e-5
    tensor(True)
    """

    def __init__(self, channels: int, kind: Literal["global", "frame"], eps: float = 1e-5) -> None:
        super().__init__()
        self.kind, self.eps = kind, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise `[batch, channels, frames]`; a mask `[batch, frames]` is true for frames that count."""
        x = full_precision(x)
        if self.kind == "global" and mask is not None:
            valid = mask[:, None].to(x.dtype)
            count = x.shape[1] * valid.sum(dim=(1, 2), keepdim=True).clamp_min(1)
            centred = x - (x * valid).sum(dim=(1, 2), keepdim=True) / count
            variance = (centred * valid).square().sum(dim=(1, 2), keepdim=True) / count
            return centred * (variance + self.eps).rsqrt() * self.weight[:, None] + self.bias[:, None]
        if self.kind == "global":
            return nn.functional.group_norm(x, 1, self.weight, self.bias, self.eps)
        frames = nn.functional.layer_norm(x.transpose(1, 2), x.shape[1:2], self.weight, self.bias, self.eps)
        return frames.transpose(1, 2)


class LearnedEncoder(nn.Module):
    """Learned encoder: a strided convolution, then a ReLU or, if `deep`, dilated convolutions with PReLUs."""

    def __init__(self, num_filters: int, size: int, hop: int, deep: bool, bias: bool) -> None:
        super().__init__()
        self.size, self.hop = size, hop
        self.filters = nn.Conv1d(1, num_filters, size, stride=hop, bias=bias)
        if deep:
            layers = [nn.Conv1d(num_filters, num_filters, 3, padding=d, dilation=d) for d in DEEP_DILATIONS]
            self.layers = nn.Sequential(*(module for layer in layers for module in (layer, nn.PReLU())))
        else:
            self.layers = nn.Sequential(nn.ReLU())

    def forward(self, waveform: Tensor, num_frames: int) -> Tensor:
        """`[batch, samples]` → `[batch, num_filters, num_frames]`; zeros are appended, or samples cut, to fit."""
        needed = (num_frames - 1) * self.hop + self.size
        waveform = nn.functional.pad(waveform, (0, needed - waveform.shape[1]))
        return self.layers(self.filters(waveform[:, None]))


class LearnedDecoder(nn.Module):
    """Learned decoder: the layers of a `LearnedEncoder` as transposed convolutions, in reverse order."""

    def __init__(self, num_filters: int, size: int, hop: int, deep: bool, bias: bool) -> None:
        super().__init__()
        if deep:
            layers = [
                nn.ConvTranspose1d(num_filters, num_filters, 3, padding=d, dilation=d) for d in DEEP_DILATIONS[::-1]
            ]
            self.layers = nn.Sequential(*(module for layer in layers for module in (layer, nn.PReLU())))
        else:
            self.layers = nn.Sequential()
        self.filters = nn.ConvTranspose1d(num_filters, 1, size, stride=hop, bias=bias)

    def forward(self, masked: Tensor) -> Tensor:
        """`[batch, num_filters, frames]` → waveform `[batch, (frames − 1) · hop + size]`."""
        return self.filters(self.layers(masked)).squeeze(1)

    def frame_signals(self, masked: Tensor) -> Tensor:
        """`[batch, num_filters, frames]` → samples of each frame, not overlapped, `[batch, size, frames]`; no bias."""
        return self.filters.weight.squeeze(1).transpose(-1, -2) @ self.layers(masked)
