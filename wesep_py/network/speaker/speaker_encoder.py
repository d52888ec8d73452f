"""The speaker encoder: a front end and a speaker network, as a configuration, as a module and as a checkpoint.

`SpeakerConfig` is the configuration, `build_encoder` makes the `SpeakerEncoder` of it. `load_encoder` reads one from a
checkpoint of its own, or from that of an extractor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py import checkpoint
from wesep_py.audio import SincResample
from wesep_py.common.config import construct, to_plain
from wesep_py.common.errors import CheckpointError, ConfigError, InputError, shorten
from wesep_py.common.registry import is_untrusted, no_plugins
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.common.yamlfiles import read_yaml
from wesep_py.features import KaldiFilterbank, SlaneyMel, SpecAugment, WesepMel
from wesep_py.network.backbones import Backbone
from wesep_py.network.speaker.embedding_windows import WindowConfig
from wesep_py.network.speaker.pooling import RecursiveAttentivePooling
from wesep_py.network.speaker.self_supervised import SelfSupervised, arguments_with_form
from wesep_py.network.speaker.speaker_network import (
    PoolingNetwork,
    SpeakerEmbeddings,
    SpeakerNetwork,
    SpeakerOutput,
    length_mask,
    speaker_networks,
)

FRONT_ENDS = {
    "filterbank": KaldiFilterbank,
    "mel": WesepMel,
    "slaney_mel": SlaneyMel,
    "self_supervised": SelfSupervised,
}
_SILENCE_POWER = 1e-20  # -200 dBFS


@dataclass
class SpeakerConfig:
    """The configuration of a speaker encoder.

    Attributes:
        network: name and arguments of the network, `{name: ecapa_tdnn, …}`. Without it, the network, and all other
            keys that describe the encoder, are those of the encoder in `checkpoint`.
        front_end: the input of the network: a `filterbank` (Kaldi's), WeSep's `mel`, the power in mel bands without a
            logarithm (`slaney_mel`), the layers of a `self_supervised` model, or the features that the `backbone`
            computes of an enrollment (at the model's rate; `filterbank` and `sample_rate` are then not used).
        filterbank: arguments of `features.KaldiFilterbank`; for `mel` of `features.WesepMel`, for `slaney_mel` of
            `features.SlaneyMel`.
        self_supervised: arguments of `speaker.SelfSupervised`, for that front end; the model's configuration is read
            from its folder into them, so that a checkpoint does not need the folder.
        sample_rate: of the encoder's input, in Hz; enrollments are resampled to it.
        min_level_dbfs: RMS level, in dB below full scale, to which a quieter recording is raised; `null` leaves the
            level as it is. An encoder with this key gets enrollments at their own level, also inside an extractor that
            normalises them.
        windows: embed overlapping windows of the features and average the embeddings (`WindowConfig`), or `null`:
            embed the recording as a whole.
        mode: `joint` trains with the extractor from the start; `finetune` the same, from a checkpoint;
            `frozen` never changes.
        checkpoint: a checkpoint folder (or its `model.safetensors`) or the name of an installed model to start from, or
            a `.pt` file of WeSpeaker.
        spec_augment: arguments of `features.SpecAugment` (while training), or `null`.
    """

    network: dict[str, Any] = field(default_factory=dict)
    front_end: Literal["filterbank", "mel", "slaney_mel", "self_supervised", "backbone"] = "filterbank"
    filterbank: dict[str, Any] = field(default_factory=dict)
    self_supervised: dict[str, Any] = field(default_factory=dict)
    sample_rate: int = 16000
    min_level_dbfs: float | None = None
    windows: WindowConfig | None = None
    mode: Literal["joint", "finetune", "frozen"] = "joint"
    checkpoint: str | None = None
    spec_augment: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.mode != "joint" and self.checkpoint is None:
            raise ValueError(f"mode {self.mode!r} needs a checkpoint to start from; give one, or use mode 'joint'")
        if not self.network:
            self._take_from_checkpoint()
        if self.front_end == "backbone":
            for key in ("min_level_dbfs", "windows"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: is not used with front_end 'backbone'; remove it")
        if self.min_level_dbfs is not None and not -100 <= self.min_level_dbfs <= 0:
            raise ValueError(f"min_level_dbfs: is {self.min_level_dbfs:g}; from -100 to 0 dBFS is allowed")
        if self.front_end in ("backbone", "self_supervised") and self.filterbank:
            raise ValueError(f"filterbank: is not used with front_end {self.front_end!r}; remove it")
        if self.front_end != "self_supervised" and self.self_supervised:
            raise ValueError(f"self_supervised: is not used with front_end {self.front_end!r}; remove it")
        self.self_supervised = arguments_with_form(self.self_supervised)

    def _take_from_checkpoint(self) -> None:
        """Set the keys that describe the encoder from the configuration in `checkpoint`.

        Raises:
            ValueError: there is no checkpoint of ours with an encoder, or a key is given that it describes.
        """
        if self.checkpoint is None:
            raise ValueError(
                "network: needs a key 'name', for example 'ecapa_tdnn'; it may be left out only with a checkpoint of "
                "this package, or an installed model"
            )
        if not self.starts_from_own_checkpoint:
            raise ValueError(
                f"network: needs a key 'name', for example 'ecapa_tdnn'; {self.checkpoint} holds weights alone"
            )
        if is_untrusted():
            raise ValueError("network: is missing; no other checkpoint is read for a model from elsewhere")
        folder = checkpoint.resolve(self.checkpoint)
        described = encoder_part(read_yaml(folder / checkpoint.CONFIG), folder)
        known = {f.name: f for f in fields(self) if f.name not in (*TRAINING_KEYS, "spec_augment")}
        for name, key in known.items():
            default = key.default if key.default_factory is MISSING else key.default_factory()
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}: is given without 'network'; without it both are those of the checkpoint, so remove "
                    f"'{name}' or give 'network' too"
                )
        complete = construct(
            SpeakerConfig, {k: v for k, v in described.items() if k in known}, f"{folder / checkpoint.CONFIG}"
        )
        for name in known:
            setattr(self, name, getattr(complete, name))

    @property
    def front_end_arguments(self) -> tuple[str, dict[str, Any]]:
        """Return the key that holds the front end's arguments, and the arguments."""
        key = "self_supervised" if self.front_end == "self_supervised" else "filterbank"
        return key, getattr(self, key)

    @property
    def starts_from_own_checkpoint(self) -> bool:
        """True if the weights come from a checkpoint of ours, which holds those of the front end too."""
        return self.checkpoint is not None and Path(self.checkpoint).suffix not in checkpoint.FOREIGN_SUFFIXES


class SpeakerEncoder(nn.Module):
    """Front end and speaker network: from a waveform, or a backbone's features of it, to an embedding.

    Args:
        config: see `SpeakerConfig`.
        sample_rate: of the waveforms that will be passed, in Hz.
        initialise: read `config.checkpoint`; False if weights are loaded afterwards anyway.
        backbone: the model's, which gives the size of its features if they are the front end; it is not stored.

    Raises:
        ConfigError: an argument of a part is wrong, or the front end is a backbone and there is none.
        CheckpointError: the checkpoint does not fit.
    """

    def __init__(
        self, config: SpeakerConfig, sample_rate: int, initialise: bool = True, backbone: Backbone | None = None
    ) -> None:
        super().__init__()
        self.config, self.mode, self.front_end = config, config.mode, config.front_end
        if config.front_end == "backbone":
            size = _frame_size(backbone)
        else:
            self.resample = (
                SincResample(sample_rate, config.sample_rate) if sample_rate != config.sample_rate else nn.Identity()
            )
            self._rates = sample_rate, config.sample_rate
            key, arguments = config.front_end_arguments
            options: dict[str, Any] = {"sample_rate": config.sample_rate}
            if config.front_end == "self_supervised":
                options["initialise"] = initialise and not config.starts_from_own_checkpoint
            self.filterbank = construct(FRONT_ENDS[config.front_end], arguments, f"speaker.{key}", **options)
            size = self.filterbank.num_mel_bins
        self.augment = (
            nn.Identity()
            if config.spec_augment is None
            else construct(SpecAugment, config.spec_augment, "speaker.spec_augment")
        )
        self.network = speaker_networks.build(config.network, "speaker.network", num_mel_bins=size)
        if config.windows is not None:
            _require_windows(self.network, config.windows, size, str(config.network["name"]))
        if config.checkpoint is not None and initialise:
            self._load(config.checkpoint, config.network)
        if self.mode == "frozen":
            self.requires_grad_(False)
            self.eval()

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms that it takes, in Hz; undefined with the front end `backbone`."""
        return self._rates[0]

    @property
    def embedding_dim(self) -> int:
        """Size of the embedding."""
        return self.network.embedding_dim

    @property
    def frame_dim(self) -> int:
        """Size of the frame-level features."""
        return self.network.frame_dim

    def train(self, mode: bool = True) -> SpeakerEncoder:
        """Set the mode; a frozen encoder stays in evaluation mode, so that its batch statistics do not change."""
        return super().train(mode and self.mode != "frozen")

    @property
    def takes_own_level(self) -> bool:
        """True if a recording has to be passed at its own level, because the embedding depends on it."""
        return self.config.min_level_dbfs is not None

    @property
    def max_voices(self) -> int:
        """Largest number of voices that it finds in a recording: 1, unless its pooling is `recursive`."""
        pool = self.network.pool if isinstance(self.network, PoolingNetwork) else None
        return pool.max_voices if isinstance(pool, RecursiveAttentivePooling) else 1

    def forward(self, waveform: Tensor, lengths: Tensor) -> SpeakerOutput:
        """Return features and embedding of waveforms.

        Args:
            waveform: `[batch, samples]`.
            lengths: `[batch]`, number of valid samples.
        """
        windows = self.config.windows
        if windows is None:
            return self._embed(*self._filterbank(waveform, lengths))
        waveform, lengths = self._at_own_rate(waveform, lengths)
        counts = windows.counts(lengths, self.filterbank)
        missing = max(0, int(counts.samples.max()) - waveform.shape[1])
        waveform = nn.functional.pad(waveform * length_mask(lengths, waveform.shape[1]), (0, missing))
        features = self._features(waveform, counts.samples)
        frames, extended = (self.filterbank.frame_lengths(samples) for samples in (lengths, counts.samples))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.mode != "frozen"):
            return windows.embed(self.network, self.augment(features), frames, extended, counts)

    def of_features(self, features: Tensor, mask: Tensor) -> SpeakerOutput:
        """Return features and embedding of a backbone's features.

        Args:
            features: `[batch, channels, bins, frames]`.
            mask: `[batch, frames]`, True for valid frames.
        """
        return self._embed(_as_frames(features), mask)

    def voices(
        self,
        waveform: Tensor,
        lengths: Tensor,
        max_voices: int | None = None,
        threshold: float = 0.5,
        counts: Tensor | None = None,
    ) -> SpeakerEmbeddings:
        """Return the embeddings of all voices of recordings; see `PoolingNetwork.voices`.

        Args:
            waveform: `[batch, samples]`.
            lengths: `[batch]`, number of valid samples.
            max_voices, threshold, counts: as there.

        Raises:
            InputError: the encoder finds one voice per recording (`max_voices` is 1).
        """
        features, mask = self._filterbank(waveform, lengths)
        return self._voices(features, mask, max_voices, threshold, counts)

    def voices_of_features(
        self, features: Tensor, mask: Tensor, max_voices: int | None = None, threshold: float = 0.5
    ) -> SpeakerEmbeddings:
        """Return the embeddings of all voices in a backbone's features; arguments as for `of_features` and `voices`."""
        return self._voices(_as_frames(features), mask, max_voices, threshold, None)

    def _filterbank(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the front end's features `[batch, frames, bins]` of waveforms, and their mask."""
        waveform, lengths = self._at_own_rate(waveform, lengths)
        features = self._features(waveform, lengths)
        return features, length_mask(self.filterbank.frame_lengths(lengths), features.shape[1])

    def _at_own_rate(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return waveforms at the encoder's sample rate and at least at its level, and their lengths."""
        from_rate, to_rate = self._rates
        lengths = (lengths * to_rate + from_rate - 1) // from_rate  # rounded up, as the resampler does
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = self.resample(waveform.float())
            if self.config.min_level_dbfs is not None:
                waveform = raise_level(waveform, lengths, self.config.min_level_dbfs)
        return waveform, lengths

    def _features(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        device, is_network = waveform.device.type, self.front_end == "self_supervised"
        grads = torch.is_grad_enabled() and not (is_network and self.mode == "frozen")
        mixed = is_network and torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=mixed), torch.set_grad_enabled(grads):
            features: Tensor = self.filterbank(waveform, lengths)
        return features

    def _embed(self, features: Tensor, mask: Tensor) -> SpeakerOutput:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.mode != "frozen"):
            return self.network(self.augment(features), mask)

    def _voices(
        self, features: Tensor, mask: Tensor, max_voices: int | None, threshold: float, counts: Tensor | None
    ) -> SpeakerEmbeddings:
        if not isinstance(self.network, PoolingNetwork):
            raise InputError(
                "this speaker encoder finds one voice per recording; one with the pooling 'recursive' is needed"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.mode != "frozen"):
            frames, mask = self.network.encode(self.augment(features), mask)
            return self.network.voices(frames, mask, max_voices, threshold, counts)

    def _load(self, path: str, network: dict[str, Any]) -> None:
        if Path(path).suffix in checkpoint.FOREIGN_SUFFIXES:
            weights = checkpoint.read_foreign("speaker network", path, network)
        else:
            weights = checkpoint.load(path).state_dict
            if self.front_end == "self_supervised":
                self._load_front_end(path, weights)
            for prefix in ("encoder.network.", "network."):
                if any(key.startswith(prefix) for key in weights):
                    weights = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
                    break
        if differences := checkpoint.weight_mismatches(self.network.state_dict(), weights):
            raise CheckpointError(
                f"speaker.checkpoint {path}: does not fit the configured network {network['name']!r} "
                f"(tensors that differ: {len(differences)}; the first: {differences[0]}); "
                "use the 'speaker.network' that it was trained with"
            )
        self.network.load_state_dict(weights)

    def _load_front_end(self, path: str, weights: Mapping[str, Tensor]) -> None:
        of_encoder = {key.removeprefix("encoder."): value for key, value in weights.items()}
        prefix = "filterbank."
        front_end = {k.removeprefix(prefix): v for k, v in of_encoder.items() if k.startswith(prefix)}
        if differences := checkpoint.weight_mismatches(self.filterbank.state_dict(), front_end):
            raise CheckpointError(
                f"speaker.checkpoint {path}: does not fit the configured front end 'self_supervised' "
                f"(tensors that differ: {len(differences)}; the first: {differences[0]}); "
                "use the 'speaker.self_supervised' that it was trained with"
            )
        self.filterbank.load_state_dict(front_end)


def build_encoder(
    config: dict[str, Any] | SpeakerConfig | None,
    sample_rate: int,
    initialise: bool = True,
    backbone: Backbone | None = None,
) -> SpeakerEncoder | None:
    """Build the encoder of a configuration; return `None` if there is none. Arguments as for `SpeakerEncoder`."""
    if config is None:
        return None
    if not isinstance(config, SpeakerConfig):
        config = construct(SpeakerConfig, config, "speaker")
    if "name" not in config.network:
        raise ConfigError("speaker.network: needs a key 'name', for example 'ecapa_tdnn'")
    return SpeakerEncoder(config, sample_rate, initialise, backbone)


def raise_level(waveform: Tensor, lengths: Tensor, min_level_dbfs: float) -> Tensor:
    """Raise waveforms `[batch, samples]` whose RMS over their own samples is below a level in dBFS to that level.

    Silence stays silence, and so do remains of filters below -200 dBFS, whose gain would overflow.

    >>> raise_level(torch.full((1, 4), 0.001), torch.tensor([4]), -40.0)
    tensor([[0.0100, 0.0100, 0.0100, 0.0100]])
    """
    inside = length_mask(lengths, waveform.shape[1])
    power = (waveform.double().square() * inside).sum(dim=1, keepdim=True) / lengths.clamp_min(1)[:, None]
    gain = (10 ** (min_level_dbfs / 20) / power.sqrt()).clamp_min(1.0)
    return waveform * torch.where(power > _SILENCE_POWER, gain, 1.0).to(waveform.dtype)


def _require_windows(network: SpeakerNetwork, windows: WindowConfig, num_bins: int, name: str) -> None:
    """Refuse windows for a network that finds several voices, or returns fewer frames than it gets.

    Raises:
        ConfigError: it does.
    """
    if isinstance(network, PoolingNetwork) and isinstance(network.pool, RecursiveAttentivePooling):
        raise ConfigError("speaker.windows: are for an encoder of one voice; use another pooling than 'recursive'")
    trained = network.training
    with torch.no_grad():
        weight = next(network.parameters())
        features = torch.zeros(1, windows.num_frames, num_bins, device=weight.device, dtype=weight.dtype)
        count = network.eval()(features).frames.shape[2]
    network.train(trained)
    if count != windows.num_frames:
        raise ConfigError(
            f"speaker.windows: the network {name!r} returns {count} frames for {windows.num_frames}; windows need one "
            "that returns as many as it gets, such as 'dvector' or 'ecapa_tdnn'"
        )


def _as_frames(features: Tensor) -> Tensor:
    """Return a backbone's features `[batch, channels, bins, frames]` as `[batch, frames, channels · bins]`."""
    return features.flatten(1, 2).transpose(1, 2)


def _frame_size(backbone: Backbone | None) -> int:
    """Return the number of values in a frame of the backbone's features."""
    if backbone is None:
        raise ConfigError("speaker.front_end: is 'backbone', but there is no backbone here; use 'filterbank'")
    with torch.no_grad():
        features = backbone.analyse(torch.zeros(1, backbone.stride)).features
    return features.shape[1] * features.shape[2]


TRAINING_KEYS = ("mode", "checkpoint")
"""Keys of `SpeakerConfig` that say how the encoder is trained."""
PREFIX_IN_EXTRACTOR = "encoder."


def encoder_config(config: SpeakerConfig) -> dict[str, Any]:
    """Return the configuration in an encoder's checkpoint: the keys of `SpeakerConfig` without those of training."""
    return {key: value for key, value in to_plain(config).items() if key not in TRAINING_KEYS}


def is_encoder(config: dict[str, Any]) -> bool:
    """Return whether the configuration of a checkpoint is that of an encoder alone."""
    return "network" in config and "backbone" not in config


def encoder_part(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration of the speaker encoder in that of a checkpoint, of an encoder or an extractor.

    Raises:
        CheckpointError: there is none that takes waveforms.
    """
    part = config if is_encoder(config) else config.get("speaker") or {}
    if not isinstance(part, dict):
        raise CheckpointError(f"{folder}: is damaged (speaker: is {shorten(part, 40)}; a mapping is needed)")
    if not part or part.get("front_end") == "backbone":
        raise CheckpointError(f"{folder}: holds no speaker encoder that takes waveforms; name another model")
    return part


def completed_speaker(given: Mapping[str, Any], config: SpeakerConfig) -> dict[str, Any]:
    """Return the section `speaker` of a model, with what was read from other files: a checkpoint needs no other.

    Args:
        given: the section as it was given.
        config: the configuration that was made of it.
    """
    complete = dict(given)
    if not complete.get("network"):
        defaults = to_plain(SpeakerConfig(network={"name": ""}))
        complete |= {key: value for key, value in encoder_config(config).items() if value != defaults[key]}
    if config.self_supervised:
        complete["self_supervised"] = to_plain(config.self_supervised)
    return complete


def load_encoder(path: str | Path, sample_rate: int | None = None) -> SpeakerEncoder:
    """Return the encoder of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: a checkpoint or experiment folder of an encoder, or of an extractor that has one.
        sample_rate: of the waveforms that will be passed, in Hz; `None`: the encoder's own.

    Raises:
        CheckpointError: the checkpoint is damaged, holds no encoder that takes waveforms, or its weights do not fit its
            configuration.

    >>> load_encoder("exp/ecapa").embedding_dim  # doctest: +SKIP
    192
    """
    saved = checkpoint.load(path)
    config, weights = encoder_part(saved.config, saved.folder), saved.state_dict
    if not is_encoder(saved.config):
        weights = {
            k.removeprefix(PREFIX_IN_EXTRACTOR): v for k, v in weights.items() if k.startswith(PREFIX_IN_EXTRACTOR)
        }
    try:
        check_numbers(config)
        with no_plugins():
            speaker = construct(SpeakerConfig, {k: v for k, v in config.items() if k not in TRAINING_KEYS})
            rate = sample_rate or speaker.sample_rate
            encoder = build_within(lambda: SpeakerEncoder(speaker, rate, initialise=False), weights)
        if problems := checkpoint.weight_mismatches(encoder.state_dict(), weights):
            raise ConfigError(problems[0])
    except ConfigError as error:
        raise CheckpointError(f"{saved.folder}: weights and configuration do not fit ({shorten(error)})") from error
    encoder.load_state_dict(weights)
    return encoder.eval()
