"""A front end of a self-supervised model (WavLM, wav2vec 2.0, HuBERT) in place of the filterbank.

`SelfSupervised` returns a learned weighted sum of the model's hidden states. The models are those of the optional
package `transformers`; `arguments_with_form` reads a model's configuration from its folder, `build_model` its weights.
Nothing is ever downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.common.registry import is_untrusted
from wesep_py.network.speaker.speaker_network import length_mask

MODEL_CLASSES = {"wavlm": "WavLM", "wav2vec2": "Wav2Vec2", "hubert": "Hubert"}
"""Kind of model → the beginning of its class names in the package transformers."""
FIXED_SETTINGS = {
    "layerdrop": 0.0,  # the sum needs all layers
    "mask_time_prob": 0.0,  # masking is that of `speaker.spec_augment`, with the run's random numbers
    "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
    "add_adapter": False,  # would halve the frames
}
"""Settings that replace those of the model's configuration."""


def arguments_with_form(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `SelfSupervised`, completed by the configuration in the model's folder.

    With it, a checkpoint does not need the folder.

    Raises:
        ConfigError: the folder or its `config.json` is missing or damaged, or the package transformers is missing.
    """
    path, config = arguments.get("path"), arguments.get("config")
    if not isinstance(path, str) or config is not None:
        return dict(arguments)
    if is_untrusted():
        raise ConfigError(
            "speaker.self_supervised: names a folder in place of the model's configuration; no such folder is read "
            "for a model from elsewhere"
        )
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(
            f"speaker.self_supervised.path: {path}: no such folder; give one with a model's config.json and weights "
            "(nothing is downloaded)"
        )
    known = _known_keys(str(arguments.get("kind")))
    content = {key: value for key, value in _read_json(folder / "config.json").items() if key in known}
    completed = {**arguments, "config": {key: value for key, value in content.items() if not isinstance(value, dict)}}
    preprocessor = folder / "preprocessor_config.json"
    if arguments.get("normalise") is None and preprocessor.is_file():
        completed["normalise"] = _read_json(preprocessor).get("do_normalize")
    return completed


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"speaker.self_supervised.path: {path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"speaker.self_supervised.path: {path}: holds no mapping of keys to values")
    return content


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "speaker.front_end 'self_supervised' needs the package transformers, which is not installed; "
            "pip install 'wesep-py[ssl]', or use 'filterbank'"
        ) from error
    return transformers


def _known_keys(kind: str) -> set[str]:
    """Return the keys of the configuration of a kind of model that describe the model."""
    if kind not in MODEL_CLASSES:
        raise ConfigError(f"speaker.self_supervised.kind: is {kind!r}; {nearest(kind, MODEL_CLASSES)}")
    keys = set(getattr(_transformers(), f"{MODEL_CLASSES[kind]}Config")().to_dict())
    return {key for key in keys if not key.startswith("_")} - {"architectures", "dtype", "transformers_version"}


def build_model(kind: str, config: Mapping[str, Any], path: str | None) -> Any:
    """Build a model with random weights, or with those of a folder.

    Args:
        kind: `wavlm`, `wav2vec2` or `hubert`.
        config: the content of its `config.json`.
        path: folder with the weights; `None`: random weights.

    Raises:
        ConfigError: the configuration has an unknown key or builds no model, or the weights are missing or do not fit.
    """
    where = "speaker.self_supervised.config"
    if unknown := sorted(set(config) - _known_keys(kind)):
        raise ConfigError(f"{where}.{unknown[0]}: unknown key; {nearest(unknown[0], _known_keys(kind))}")
    if (model_type := config.get("model_type", kind)) != kind:
        raise ConfigError(
            f"{where}.model_type: is {model_type!r}, but speaker.self_supervised.kind is {kind!r}; give one"
        )
    transformers = _transformers()
    config_class, model_class = (getattr(transformers, f"{MODEL_CLASSES[kind]}{what}") for what in ("Config", "Model"))
    try:
        model_config = config_class(**{**config, **FIXED_SETTINGS})
        if path is None:
            return model_class(model_config)
    except Exception as error:  # whatever the package raises for a configuration that it cannot build
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{where}: no {MODEL_CLASSES[kind]} can be built from it ({reason})") from error
    verbosity, logs = transformers.logging.get_verbosity(), transformers.logging
    progress = logs.is_progress_bar_enabled()
    try:
        logs.set_verbosity_error()
        logs.disable_progress_bar()
        model, info = model_class.from_pretrained(
            path, config=model_config, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # likewise for weights
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"speaker.self_supervised.path: {path}: weights cannot be read ({reason})") from error
    finally:
        logs.set_verbosity(verbosity)
        if progress:
            logs.enable_progress_bar()
    if missing := sorted(info["missing_keys"]):
        raise ConfigError(
            f"speaker.self_supervised.path: {path}: {len(missing)} tensors are missing (the first: {missing[0]}); "
            f"give the folder of a whole {MODEL_CLASSES[kind]}"
        )
    return model.float()


MODEL_SAMPLE_RATE = 16000


class SelfSupervised(nn.Module):
    """Hidden states of a self-supervised model, summed with learned weights: `[B, T] → [B, frames, bins]`.

    The weights are a softmax of one parameter per hidden state, those being the input of the first transformer layer
    and the output of each, the last with the model's final normalisation (Yang et al., "SUPERB", Interspeech 2021;
    before ECAPA-TDNN: Chen et al., "WavLM", JSTSP 2022). A frame is 20 ms at the published sizes. Padding changes
    nothing, even if the first convolution is normalised over time (`feat_extract_norm: group`): its statistics are
    those of each waveform's own frames.

    Models: Chen et al., JSTSP 2022 (WavLM); Baevski et al., NeurIPS 2020 (wav2vec 2.0); Hsu et al., TASLP 2021
    (HuBERT), as the optional package `transformers` builds them. Nothing is ever downloaded.

    Args:
        kind: `wavlm`, `wav2vec2` or `hubert`.
        path: folder with the model's `config.json` and its weights (`model.safetensors` or `pytorch_model.bin`).
        config: the content of `config.json`; without a path, the model has random weights.
        training: `frozen`: the model is not trained; `adapters`: it is not, but an adapter after each layer is; `full`:
            the model is trained.
        adapter_dim: number of units of the adapters.
        layers: all hidden states (`weighted_sum`), or only the `last`; or two weighted sums side by side (`two_sums`),
            the keys and values of the network `mhfa`.
        normalise: scale each waveform to mean 0 and variance 1 first. `None`: as `do_normalize` in the folder's
            `preprocessor_config.json` says, else if `feat_extract_norm` is `layer`, as these models were trained.
        mean_norm: subtract each feature's mean over the frames of its utterance.
        sample_rate: in Hz (given by the encoder's configuration); these models need 16000.
        initialise: read the weights; False if others are loaded afterwards.

    Raises:
        ValueError: there is neither path nor configuration, another sample rate, or a size is below 1.
        ConfigError: the package or the folder is missing; the configuration is of another kind, or builds no model; the
            folder's weights are missing, damaged, or do not fit.
    """

    def __init__(
        self,
        kind: Literal["wavlm", "wav2vec2", "hubert"],
        path: str | None = None,
        config: dict[str, Any] | None = None,
        training: Literal["frozen", "adapters", "full"] = "frozen",
        adapter_dim: int = 64,
        layers: Literal["weighted_sum", "last", "two_sums"] = "weighted_sum",
        normalise: bool | None = None,
        mean_norm: bool = True,
        sample_rate: int = MODEL_SAMPLE_RATE,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        if sample_rate != MODEL_SAMPLE_RATE:
            raise ValueError(f"sample_rate: is {sample_rate}; self-supervised models take {MODEL_SAMPLE_RATE} Hz")
        if adapter_dim < 1:
            raise ValueError(f"adapter_dim: is {adapter_dim}; 1 or more is needed")
        completed = arguments_with_form({"kind": kind, "path": path, "config": config, "normalise": normalise})
        if completed["config"] is None:
            raise ValueError("path: is missing; give the folder of a model, or its configuration as 'config'")
        self.model = build_model(kind, completed["config"], path if initialise else None)
        model_config = self.model.config
        if model_config.feat_extract_norm == "group":
            first = self.model.feature_extractor.conv_layers[0]
            first.layer_norm = OwnFramesNorm(first.layer_norm)
        hidden_size, num_sums = int(model_config.hidden_size), 2 if layers == "two_sums" else 1
        self.sample_rate, self.num_mel_bins = sample_rate, num_sums * hidden_size
        self.kernels, self.strides = tuple(model_config.conv_kernel), tuple(model_config.conv_stride)
        # Receptive field and hop of the stacked convolutions, in samples.
        self.window_length, self.hop_length = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            self.window_length += (kernel - 1) * self.hop_length
            self.hop_length *= stride
        self.trained, self.mean_norm = training, mean_norm
        self.normalise = completed["normalise"]
        if self.normalise is None:
            self.normalise = model_config.feat_extract_norm == "layer"
        count = len(self.model.encoder.layers)
        shape = (2, count + 1) if layers == "two_sums" else (count + 1,)
        self.layer_weights = None if layers == "last" else nn.Parameter(torch.zeros(shape))
        self.adapters = nn.ModuleList(
            Adapter(hidden_size, adapter_dim) for _ in range(count if training == "adapters" else 0)
        )
        self.model.requires_grad_(training == "full")
        self.train()

    def train(self, mode: bool = True) -> SelfSupervised:
        """Set the mode; a model that is not trained stays in evaluation mode, without dropout."""
        super().train(mode)
        self.model.train(mode and self.trained == "full")
        return self

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames, `[B]`, each at least 1, of waveforms of `lengths` samples."""
        lengths = lengths.clamp(min=self.window_length)
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features; a waveform shorter than a frame's window is extended with zeros.

        Args:
            waveform: `[B, T]`, T ≥ 1, at 16 kHz.
            lengths: samples of each waveform before it was padded to T, integers `[B]`; `None` if all are T.

        Returns:
            float32 `[B, frames, num_mel_bins]`, zero after each waveform's own frames.
        """
        if lengths is None:
            lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        waveform = F.pad(waveform.float(), (0, max(0, self.window_length - waveform.shape[1])))
        inside = length_mask(lengths, waveform.shape[1])
        if self.normalise:
            waveform = _normalised(waveform, inside)
        states = self._states(waveform * inside, lengths.clamp(min=self.window_length))
        features = self._summed(states)
        mask = length_mask(self.frame_lengths(lengths), features.shape[1])[:, :, None]
        if self.mean_norm:
            features = features - (features * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
        return features * mask

    def levels(self, waveform: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the output of each convolution, and the features of whole waveforms `[B, T]`, without `mean_norm`.

        Returns:
            `[B, channels, frames]` for each convolution, and float32 `[B, frames, num_mel_bins]`.
        """
        waveform = F.pad(waveform.float(), (0, max(0, self.window_length - waveform.shape[1])))
        lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        if self.normalise:
            waveform = _normalised(waveform, length_mask(lengths, waveform.shape[1]))
        outputs: list[Tensor] = []
        convolutions = self.model.feature_extractor.conv_layers
        handles = [layer.register_forward_hook(lambda _m, _i, output: outputs.append(output)) for layer in convolutions]
        try:
            states = self._states(waveform, lengths)
        finally:
            for handle in handles:
                handle.remove()
        return outputs, self._summed(states)

    def _summed(self, states: list[Tensor]) -> Tensor:
        """Return the last hidden state, or the weighted sum of all, or two of them side by side, in float32."""
        if self.layer_weights is None:
            return states[-1].float()
        sums = [
            sum(weight * state.float() for weight, state in zip(weights, states, strict=True))
            for weights in self.layer_weights.softmax(dim=-1).view(-1, len(states))
        ]
        return torch.cat(sums, dim=-1)

    def _states(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the first layer's input, then the output of each layer, the last one as the model returns it."""
        states: list[Tensor] = []
        with_gradient = torch.is_grad_enabled() and self.trained != "frozen"
        with torch.set_grad_enabled(with_gradient), self._collecting(states), self._with_frame_counts(lengths):
            mask = length_mask(lengths, waveform.shape[1]).long()
            # In place of the last layer's output: it has the final normalisation.
            states[-1:] = [self.model(waveform, attention_mask=mask).last_hidden_state]
        return states

    @contextmanager
    def _collecting(self, states: list[Tensor]) -> Iterator[None]:
        """Append the hidden states to the list while the model runs, and apply the adapters to them."""

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
    def _with_frame_counts(self, lengths: Tensor) -> Iterator[None]:
        """Tell a normalisation over time how many frames each waveform has."""
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
    """Bottleneck of two linear layers, added to its input; at the start it changes nothing.

    Houlsby et al., "Parameter-efficient transfer learning for NLP" (ICML 2019), section 2.1; one per layer here.
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
    """Group normalisation with one channel per group, `[B, channels, frames]`, over the valid frames of each item.

    Attributes:
        counts: `[B]`, number of valid frames of each item; `None`: all are.
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
    """Return waveforms of mean 0 and variance 1 over their own samples; the constant is that of the public models."""
    count = inside.sum(dim=1, keepdim=True).clamp_min(1)
    centred = (waveform - (waveform * inside).sum(dim=1, keepdim=True) / count) * inside
    return centred / (centred.square().sum(dim=1, keepdim=True) / count + 1e-7).sqrt()
