"""BSRNN: a band-split recurrent network, whose layers run along time within a band and across the bands of a frame.

Luo & Yu, "Music source separation with band-split RNN" (TASLP 2023); steered by an enrollment: Yu et al., "TSpeech-AI
system description to the 5th DNS challenge" (2023). Layer sizes and the band list follow the latter at 16 kHz.

    spectrum ─► split into bands ─► linear per band ─► blocks ─► mask per band ─► complex mask · spectrum
                                                         │
                                        LSTM along time, for each band
                                        LSTM across bands, for each frame
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py.features import STFT, apply_mask
from wesep_py.features.stft import Window
from wesep_py.network.backbones.backbone import Analysis, Backbone, Condition, backbones
from wesep_py.network.backbones.spectrum import (
    STANDARD_BANDS,
    BandGroup,
    BandLinear,
    BandNorm,
    band_widths,
    full_precision,
    group_bands,
    span_of,
)

FLOAT32_EPS = torch.finfo(torch.float32).eps
"""Distance from 1 to the next larger float32, which is added to variances."""


@backbones.register("bsrnn")
class BSRNN(Backbone):
    """Band-split recurrent network (BSRNN) with a complex mask.

    The latent is `[batch, bands, frames, feature_dim]`; an embedding is fused along its last axis, with one layer
    for all bands, before every block.

    Args:
        sample_rate: Hz (given by the model).
        input_channels: feature channels, those of the cues included (given by the model).
        negative_channels: further channels, of negative enrollments (given by the model).
        window_ms, hop_ms: analysis window and its shift, in milliseconds.
        window: `hann`, `sqrt_hann`, or `asymmetric`, whose frames reach one hop past the sample they are centred on, so
            that a causal network looks two hops ahead, however long the window is (`STFT`).
        bands: (bandwidth in Hz, number of bands) from the lowest up; see `band_widths`.
        feature_dim: N, the size of a band's features.
        num_blocks: blocks of one recurrent layer along time and one across bands.
        time_hidden, band_hidden: units of those layers, for each direction; `null` is 2 · N.
        mask_hidden: units of the mask's two hidden layers; `null` is 4 · N.
        causal: one direction along time, and no normalisation over time. The look-ahead that remains is the window's:
            `latency`.
        live: whether the network can also leave out the backward direction along time, and stream
            (`TargetSpeakerExtractor.live`). Each layer along time then has a second output layer, for the forward
            direction alone. Needs `norm: frame`, and excludes `causal`, where there is no backward direction.
        norm: `group` normalises over time and features, `frame` over the features of each frame; `null` is
            `frame` when causal and `group` otherwise.
        norm_across: the same for the layers across bands, where `group` is over the bands and features of one frame,
            so a causal network may use it; `null` is `norm`.
        norm_eps: added to the variance by the normalisations before the recurrent layers; `null` is `FLOAT32_EPS`
            for `group` and 1e-5 for `frame`.
        input_power: exponent on the magnitude of the network's input, from 0 (phase alone) to 1 (unchanged). The mask
            is applied to the unchanged spectrum.
        pad_mode: padding before and after the recording: zeros (`constant`) or its reflection (`reflect`).

    Attributes:
        num_bands: number of bands at this sample rate, the size of the latent's second axis.

    Raises:
        ValueError: sizes below 1, a hop longer than half the window, `norm: group` in a causal network.

    >>> network = BSRNN(feature_dim=8, num_blocks=1)
    >>> analysis = network.analyse(torch.randn(2, 1000))
    >>> latent, _ = network.encode(analysis.features, lambda point, latent: latent)
    >>> network.synthesise(latent, analysis, 1000)[0].shape
    torch.Size([2, 1000])
    """

    native_channels = 2

    def __init__(
        self,
        sample_rate: int = 16000,
        input_channels: int = 2,
        negative_channels: int = 0,
        window_ms: float = 32.0,
        hop_ms: float = 8.0,
        window: Window = "hann",
        bands: tuple[tuple[float, int], ...] = STANDARD_BANDS,
        feature_dim: int = 128,
        num_blocks: int = 6,
        time_hidden: int | None = None,
        band_hidden: int | None = None,
        mask_hidden: int | None = None,
        causal: bool = False,
        live: bool = False,
        norm: Literal["group", "frame"] | None = None,
        norm_across: Literal["group", "frame"] | None = None,
        norm_eps: float | None = None,
        input_power: float = 1.0,
        pad_mode: Literal["constant", "reflect"] = "constant",
    ) -> None:
        super().__init__()
        length, hop = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
        if not 0 < hop <= length // 2:
            raise ValueError(f"hop_ms: is {hop_ms}; more than 0 and at most half of window_ms ({window_ms}) is allowed")
        if min(feature_dim, num_blocks) < 1:
            raise ValueError("feature_dim and num_blocks: must be 1 or more")
        if not 0 <= input_power <= 1:
            raise ValueError(f"input_power: is {input_power}; between 0 and 1 is allowed")
        if causal and norm == "group":
            raise ValueError("norm: 'group' averages over time, which a causal network cannot; use 'frame'")
        if norm_eps is not None and norm_eps <= 0:
            raise ValueError(f"norm_eps: is {norm_eps}; more than 0 is needed")
        norm = norm or ("frame" if causal else "group")
        if live and (causal or norm == "group"):
            raise ValueError(
                f"live: is true with norm {norm!r} and causal {str(causal).lower()}; a network that works offline and "
                "live needs norm 'frame' and causal false"
            )
        over_time, over_bands = norm == "group", (norm_across or norm) == "group"

        self.sample_rate, self.input_power, self.causal, self.live = sample_rate, input_power, causal, live
        self.latent_dim, self.fusion_axis, self.num_fusion_points = feature_dim, -1, num_blocks
        # Frame t covers the samples t·hop + start … t·hop + stop − 1, and contributes to the samples from
        # t·hop + synthesis_start on; the first of these has weight zero. So the last frame that contributes to output
        # sample n is at most −synthesis_start − 1 samples after it, and its own last sample another stop − 1 samples.
        # With a symmetric window both are window/2 − 1, with an asymmetric one hop − 1:
        #
        #       n            frame t           last input sample
        #       |── −start − 1 ──|──── stop − 1 ────|
        self.stft = STFT(length, hop, window, pad_mode=pad_mode)
        self.span = span_of(self.stft)
        self.stride, self.latency = hop, self.stft.stop - self.stft.synthesis_start - 2 if causal else None

        widths = band_widths(sample_rate, self.stft.num_bins, bands)
        self.num_bands, self.groups = len(widths), group_bands(widths)
        self.split = nn.ModuleList(
            BandEncoder(group, input_channels, feature_dim, over_time, negative_channels) for group in self.groups
        )
        self.blocks = nn.ModuleList(
            BandSplitBlock(
                ResidualRNN(feature_dim, time_hidden or 2 * feature_dim, over_time, not causal, norm_eps, live),
                ResidualRNN(feature_dim, band_hidden or 2 * feature_dim, over_bands, True, norm_eps),
            )
            for _ in range(num_blocks)
        )
        self.masks = nn.ModuleList(
            BandMask(group, feature_dim, mask_hidden or 4 * feature_dim, over_time) for group in self.groups
        )

    def analyse(self, waveform: Tensor) -> Analysis:
        return self._analyse(self.stft(waveform))

    def analyse_frames(self, segment: Tensor) -> Analysis:
        return self._analyse(self.stft.frames(segment))

    def _analyse(self, spectrum: Tensor) -> Analysis:
        compressed = spectrum
        if self.input_power != 1:
            compressed = spectrum * (spectrum.abs() + 1e-8) ** (self.input_power - 1)
        return Analysis(features=torch.stack([compressed.real, compressed.imag], dim=1), spectrum=spectrum)

    def encode(self, features: Tensor, condition: Condition, state: Any = None) -> tuple[Tensor, Any]:
        latent = split_bands(features, self.split, self.groups)
        new_state = []
        for point, block in enumerate(self.blocks):
            latent = condition(point, latent)
            latent, block_state = block(latent, None if state is None else state[point])
            new_state.append(block_state)
        return latent, new_state if self.causal else None

    def encode_enrollment(self, features: Tensor, condition: Condition) -> Tensor:
        if not self.live:
            return self.encode(features, condition)[0]
        latent = split_bands(features, self.split, self.groups)
        for point, block in enumerate(self.blocks):
            latent, _ = block(condition(point, latent), live=True)
        return latent

    def synthesise(self, latent: Tensor, analysis: Analysis, length: int) -> tuple[Tensor, ...]:
        return (self.stft.inverse(self.estimate_spectrum(latent, analysis), length),)

    def frame_signals(self, latent: Tensor, analysis: Analysis) -> Tensor:
        return self.stft.frame_signals(self.estimate_spectrum(latent, analysis))

    def synthesis_weights(self) -> Tensor:
        return self.stft.synthesis_weights()

    def estimate_spectrum(self, latent: Tensor, analysis: Analysis) -> Tensor:
        """Return the target's spectrum, complex `[batch, bins, frames]`: the masks of all bands, applied."""
        bands = latent.split([group.count for group in self.groups], dim=1)
        mask = full_precision(torch.cat([layer(band) for layer, band in zip(self.masks, bands, strict=True)], dim=2))
        return apply_mask(mask[:, 0], mask[:, 1], analysis.spectrum)

    def summarise(self, latent: Tensor) -> Tensor:
        return latent.mean(dim=1)


def split_bands(features: Tensor, encoders: nn.ModuleList, groups: Sequence[BandGroup]) -> Tensor:
    """Apply one `BandEncoder` to each group: `[batch, channels, bins, frames]` → `[batch, bands, frames, dim]`."""
    bands = [encode(features[:, :, g.start : g.stop]) for encode, g in zip(encoders, groups, strict=True)]
    return torch.cat(bands, dim=1)


class BandEncoder(nn.Module):
    """Encoder of a group of bands: normalisation and a linear layer for each band, from bins to features.

    The channels of negative enrollments have a linear layer of their own, which starts at zero, and are divided by the
    RMS of the others instead of being normalised with them. So the features without a negative enrollment are those of
    an encoder without these channels.

    Args:
        group: the bands.
        input_channels, feature_dim: sizes.
        over_time: as for `BandNorm`.
        negative_channels: number of the last channels that belong to negative enrollments.
    """

    def __init__(
        self, group: BandGroup, input_channels: int, feature_dim: int, over_time: bool, negative_channels: int = 0
    ) -> None:
        super().__init__()
        self.group, self.input_channels, self.over_time = group, input_channels, over_time
        self.norm = BandNorm(group.count, input_channels * group.width, over_time, FLOAT32_EPS)
        self.linear = BandLinear(group.count, input_channels * group.width, feature_dim)
        self.negative = None
        if negative_channels:
            weight = torch.zeros(group.count, negative_channels * group.width, feature_dim)
            self.negative = nn.Parameter(weight)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, channels, count · width, frames]` → `[batch, count, frames, feature_dim]`."""
        bands = self._by_band(features[:, : self.input_channels])
        encoded = self.linear(self.norm(bands))
        if self.negative is None:
            return encoded
        power = full_precision(bands).square().mean(dim=(-2, -1) if self.over_time else -1, keepdim=True)
        negative = self._by_band(features[:, self.input_channels :]) / (power + FLOAT32_EPS).sqrt()
        return encoded + negative.to(encoded.dtype) @ self.negative.to(encoded.dtype)

    def _by_band(self, features: Tensor) -> Tensor:
        """`[batch, channels, count · width, frames]` → `[batch, count, frames, channels · width]`."""
        batch, channels, _, frames = features.shape
        bands = features.reshape(batch, channels, self.group.count, self.group.width, frames)
        return bands.permute(0, 2, 4, 1, 3).reshape(batch, self.group.count, frames, -1)


class BandSplitBlock(nn.Module):
    """Block of BSRNN: a residual recurrent layer along time, then one across bands."""

    def __init__(self, along_time: ResidualRNN, across_bands: ResidualRNN) -> None:
        super().__init__()
        self.along_time, self.across_bands = along_time, across_bands

    def forward(self, latent: Tensor, state: Any = None, live: bool = False) -> tuple[Tensor, Any]:
        """Return `[batch, bands, frames, dim]` of the same shape, and the state of the layer along time.

        With `live`, a block with a live mode works in that mode.
        """
        batch, bands, frames, dim = latent.shape
        latent, state = self.along_time(latent.reshape(batch * bands, frames, dim), state, live)
        latent = latent.view(batch, bands, frames, dim).transpose(1, 2)
        latent, _ = self.across_bands(latent.reshape(batch * frames, bands, dim))
        return latent.view(batch, frames, bands, dim).transpose(1, 2), state


class ResidualRNN(nn.Module):
    """Residual recurrent layer: `u + Linear(LSTM(norm(u)))` along the middle axis of `[batch, length, dim]`.

    Args:
        dim, hidden: sizes of the last axis and of the LSTM, for each direction.
        over_length, eps: as for `SequenceNorm`.
        bidirectional: whether the LSTM runs in both directions.
        live: whether there is a second linear layer, for the forward direction alone; used by the network's live mode.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        over_length: bool,
        bidirectional: bool,
        eps: float | None = None,
        live: bool = False,
    ) -> None:
        super().__init__()
        self.norm = SequenceNorm(dim, over_length, eps)
        self.rnn = nn.LSTM(dim, hidden, batch_first=True, bidirectional=bidirectional)
        self.linear = nn.Linear(hidden * (2 if bidirectional else 1), dim)
        if live:
            self.live_linear = nn.Linear(hidden, dim)
            self.begin_live()

    def begin_live(self) -> None:
        """Set the live layer to the forward half of `linear`: what remains if the backward direction is silent."""
        with torch.no_grad():
            self.live_linear.weight.copy_(self.linear.weight[:, : self.rnn.hidden_size])
            self.live_linear.bias.copy_(self.linear.bias)

    def forward(self, x: Tensor, state: Any = None, live: bool = False) -> tuple[Tensor, Any]:
        """Return the output, of the same shape, and the state of the LSTM after it.

        With `live`, the output is that of the forward direction and the live layer; there is no state then.
        """
        out, state = self.rnn(self.norm(x), state)
        if live:
            return x + self.live_linear(out[..., : self.rnn.hidden_size]), None
        return x + self.linear(out), state


class SequenceNorm(nn.Module):
    """Normalisation of `[batch, length, dim]`, with one weight for each element of the last axis.

    Args:
        dim: size of the last axis.
        over_length: whether statistics are over length and dim (one-group GroupNorm), or over dim alone (LayerNorm).
        eps: added to the variance; `None` is `FLOAT32_EPS` with `over_length` and 1e-5 without.
    """

    def __init__(self, dim: int, over_length: bool, eps: float | None = None) -> None:
        super().__init__()
        self.over_length, self.eps = over_length, eps or (FLOAT32_EPS if over_length else 1e-5)
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = full_precision(x)
        if self.over_length:
            normalised = nn.functional.layer_norm(x, x.shape[-2:], eps=self.eps)
            return normalised * self.weight + self.bias
        return nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


class BandMask(nn.Module):
    """Mask decoder of a group of bands: the complex mask of their bins, as a value times a gate between 0 and 1."""

    def __init__(self, group: BandGroup, feature_dim: int, hidden: int, over_time: bool) -> None:
        super().__init__()
        self.group = group
        self.layers = nn.Sequential(
            BandNorm(group.count, feature_dim, over_time, FLOAT32_EPS),
            BandLinear(group.count, feature_dim, hidden),
            nn.Tanh(),
            BandLinear(group.count, hidden, hidden),
            nn.Tanh(),
            BandLinear(group.count, hidden, 4 * group.width),
        )
        self._start_at_one()

    def _start_at_one(self) -> None:
        """Set the mask near one before training: the estimate starts as the mixture, not as noise 20 dB worse."""
        last = self.layers[-1]
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_().view(self.group.count, 2, 2, self.group.width)[:, 0, 0] = 2.0  # 2 · sigmoid(0) = 1

    def forward(self, latent: Tensor) -> Tensor:
        """`[batch, count, frames, feature_dim]` → `[batch, 2, count · width, frames]`: real and imaginary part."""
        batch, count, frames, _ = latent.shape
        # The last layer gives, for each band: [value, gate] × [real, imaginary] × bins.
        out = self.layers(latent).view(batch, count, frames, 2, 2, self.group.width)
        mask = out[..., 0, :, :] * torch.sigmoid(out[..., 1, :, :])
        return mask.permute(0, 3, 1, 4, 2).reshape(batch, 2, count * self.group.width, frames)
