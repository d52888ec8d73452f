"""WavLM, wav2vec 2.0 or HuBERT in place of the filterbank: a learned weighted sum of the model's layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.speaker.base import length_mask
from wesep_py.speaker.self_supervised_models import build_model, complete

SAMPLE_RATE = 16000


class SelfSupervised(nn.Module):
    """Hidden states of a self-supervised model `[B, T] → [B, frames, bins]`, summed with learned weights.

    The softmax of one weight a hidden state, the first transformer layer's input among them and the last one with the
    model's final normalisation, says how much each counts (Yang et al., "SUPERB", Interspeech 2021; before ECAPA: Chen
    et al., "WavLM", JSTSP 2022). A frame is 20 ms at the published sizes. Padding does not count, also where the first
    convolution is normalised over time (`feat_extract_norm: group`): its statistics are those of each waveform's own
    frames.

    Models: Chen et al., JSTSP 2022 (WavLM); Baevski et al., NeurIPS 2020 (wav2vec 2.0); Hsu et al., TASLP 2021
    (HuBERT), as the optional package `transformers` builds them. Nothing is ever downloaded.

    Args:
        kind: `wavlm`, `wav2vec2` or `hubert`.
        path: folder with the model's `config.json` and its weights (`model.safetensors` or `pytorch_model.bin`).
        config: the content of `config.json`; without a path, a model of this form with random weights.
        training: the model is left as it is (`frozen`); so too, but with an adapter after each layer that learns
            (`adapters`); or it learns itself (`full`).
        adapter_dim: width of the adapters.
        layers: all hidden states (`weighted_sum`), or the `last` alone.
        normalise: each waveform gets mean 0 and variance 1 first. `None`: as the folder's `preprocessor_config.json`
            says (`do_normalize`), else where `feat_extract_norm` is `layer`, as these models were trained.
        mean_norm: subtract each feature's mean over the frames of its utterance.
        sample_rate: in Hz (given by the encoder's configuration); 16000, at which these models hear.
        initialise: read the weights; false where others are about to be loaded.

    Raises:
        ValueError: neither path nor configuration, another sample rate, a size below 1.
        ConfigError: the package or the folder is missing; the configuration is of another kind, or builds nothing; the
            folder's weights are missing, damaged, or do not fit.
    """

    def __init__(
        self,
        kind: Literal["wavlm", "wav2vec2", "hubert"],
        path: str | None = None,
        config: dict[str, Any] | None = None,
        training: Literal["frozen", "adapters", "full"] = "frozen",
        adapter_dim: int = 64,
        layers: Literal["weighted_sum", "last"] = "weighted_sum",
        normalise: bool | None = None,
        mean_norm: bool = True,
        sample_rate: int = SAMPLE_RATE,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        if sample_rate != SAMPLE_RATE:
            raise ValueError(f"sample_rate: is {sample_rate}; self-supervised models hear at {SAMPLE_RATE} Hz")
        if adapter_dim < 1:
            raise ValueError(f"adapter_dim: is {adapter_dim}; 1 or more is needed")
        completed = complete({"kind": kind, "path": path, "config": config, "normalise": normalise})
        if completed["config"] is None:
            raise ValueError("path: is missing; give the folder of a model, or its form as 'config'")
        self.model = build_model(kind, completed["config"], path if initialise else None)
        form = self.model.config
        if form.feat_extract_norm == "group":
            first = self.model.feature_extractor.conv_layers[0]
            first.layer_norm = OwnFramesNorm(first.layer_norm)
        self.sample_rate, self.num_mel_bins = sample_rate, int(form.hidden_size)
        self.kernels, self.strides = tuple(form.conv_kernel), tuple(form.conv_stride)
        self.window_length, self.hop_length = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            self.window_length += (kernel - 1) * self.hop_length
            self.hop_length *= stride
        self.trained, self.mean_norm = training, mean_norm
        self.normalise = form.feat_extract_norm == "layer" if completed["normalise"] is None else completed["normalise"]
        count = len(self.model.encoder.layers)
        self.layer_weights = nn.Parameter(torch.zeros(count + 1)) if layers == "weighted_sum" else None
        self.adapters = nn.ModuleList(
            Adapter(self.num_mel_bins, adapter_dim) for _ in range(count if training == "adapters" else 0)
        )
        self.model.requires_grad_(training == "full")
        self.train()

    def train(self, mode: bool = True) -> SelfSupervised:
        """A model that does not learn stays in evaluation mode: no dropout, and statistics stay."""
        super().train(mode)
        self.model.train(mode and self.trained == "full")
        return self

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Frames of waveforms of `lengths` samples: integers `[B]`, each at least 1."""
        lengths = lengths.clamp(min=self.window_length)
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The features; a waveform shorter than a frame's window is extended with zeros.

        Args:
            waveform: `[B, T]`, T ≥ 1, at 16 kHz.
            lengths: samples of each waveform before it was padded to T, integers `[B]`; `None` if all are T.

        Returns:
            float32 `[B, frames, num_mel_bins]`, zero past each waveform's own frames.
        """
        if lengths is None:
            lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        waveform = F.pad(waveform.float(), (0, max(0, self.window_length - waveform.shape[1])))
        inside = length_mask(lengths, waveform.shape[1])
        if self.normalise:
            waveform = _normalised(waveform, inside)
        states = self._states(waveform * inside, lengths.clamp(min=self.window_length))
        if self.layer_weights is None:
            features = states[-1].float()
        else:
            weights = self.layer_weights.softmax(dim=0)
            features = sum(weight * state.float() for weight, state in zip(weights, states, strict=True))
        mask = length_mask(self.frame_lengths(lengths), features.shape[1])[:, :, None]
        if self.mean_norm:
            features = features - (features * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
        return features * mask

    def _states(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """The first layer's input, then every layer's output, the last one as the model returns it."""
        states: list[Tensor] = []
        learns = torch.is_grad_enabled() and self.trained != "frozen"
        with torch.set_grad_enabled(learns), self._listening(states), self._counting(lengths):
            mask = length_mask(lengths, waveform.shape[1]).long()
            states[-1:] = [self.model(waveform, attention_mask=mask).last_hidden_state]
        return states

    @contextmanager
    def _listening(self, states: list[Tensor]) -> Iterator[None]:
        """Layers append their hidden states to the list; adapters work on what a layer returns."""

        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            states.append(inputs[0])

        def after(index: int, output: Any) -> Any:
            hidden, *rest = output if isinstance(output, tuple) else (output,)
            hidden = self.adapters[index](hidden) if self.adapters else hidden
            states.append(hidden)
            return (hidden, *rest) if isinstance(output, tuple) else hidden

        layers = self.model.encoder.layers
        handles = [layers[0].register_forward_pre_hook(before)]
        for i, layer in enumerate(layers):
            handles.append(layer.register_forward_hook(lambda _module, _inputs, output, i=i: after(i, output)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _counting(self, lengths: Tensor) -> Iterator[None]:
        """A normalisation over time knows each waveform's own frames."""
        norm = getattr(self.model.feature_extractor.conv_layers[0], "layer_norm", None)
        if not isinstance(norm, OwnFramesNorm):
            yield
            return
        norm.counts = (lengths - self.kernels[0]) // self.strides[0] + 1
        try:
            yield
        finally:
            norm.counts = None


class Adapter(nn.Module):
    """Down to a few units and up again, added to the input; at the start it changes nothing.

    Houlsby et al., "Parameter-efficient transfer learning for NLP" (ICML 2019), section 2.1, one a layer.
    """

    def __init__(self, dim: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.down = nn.Linear(dim, bottleneck)
        self.up = nn.Linear(bottleneck, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(self.norm(x))))


class OwnFramesNorm(nn.Module):
    """A group normalisation of one channel a group, `[B, channels, frames]`, over each item's own frames.

    Attributes:
        counts: `[B]`, frames of each item; all, if `None`.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.counts: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        counts = torch.full((len(x),), x.shape[2], device=x.device) if self.counts is None else self.counts
        with torch.autocast(x.device.type, enabled=False):
            wide, mask = x.float(), length_mask(counts, x.shape[2])[:, None]
            mean = (wide * mask).sum(dim=2, keepdim=True) / counts[:, None, None]
            centred = (wide - mean) * mask
            variance = centred.square().sum(dim=2, keepdim=True) / counts[:, None, None]
            scaled = centred / (variance + self.eps).sqrt() * self.weight[:, None] + self.bias[:, None]
        return scaled.to(x.dtype)


def _normalised(waveform: Tensor, inside: Tensor) -> Tensor:
    """Mean 0 and variance 1 over each waveform's own samples; the constant is that of the public models."""
    count = inside.sum(dim=1, keepdim=True).clamp_min(1)
    centred = (waveform - (waveform * inside).sum(dim=1, keepdim=True) / count) * inside
    return centred / (centred.square().sum(dim=1, keepdim=True) / count + 1e-7).sqrt()
