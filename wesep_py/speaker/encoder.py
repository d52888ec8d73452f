"""From an enrollment to what is known of its voice: front end, speaker network, and how it trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py import checkpoint
from wesep_py.audio import Resample
from wesep_py.backbones import Backbone
from wesep_py.config import construct
from wesep_py.errors import CheckpointError, ConfigError
from wesep_py.features import KaldiFilterbank, SpecAugment
from wesep_py.speaker.base import SpeakerOutput, length_mask, speaker_networks


@dataclass
class SpeakerConfig:
    """A speaker encoder.

    Attributes:
        network: `{name: ecapa_tdnn, …}`, the arguments of the network.
        front_end: what the network hears: a `filterbank`, or the features that the `backbone` makes of an enrollment
            (at the model's rate; `filterbank` and `sample_rate` are then not used).
        filterbank: arguments of `features.KaldiFilterbank`.
        sample_rate: Hz at which the encoder hears; enrollments of other models are resampled to it.
        mode: `joint` trains with the extractor from the start; `finetune` the same, from a checkpoint;
            `frozen` never changes.
        checkpoint: a checkpoint folder (or its `model.safetensors`) to start from.
        spec_augment: arguments of `features.SpecAugment` (while training), or `null`.
    """

    network: dict[str, Any]
    front_end: Literal["filterbank", "backbone"] = "filterbank"
    filterbank: dict[str, Any] = field(default_factory=dict)
    sample_rate: int = 16000
    mode: Literal["joint", "finetune", "frozen"] = "joint"
    checkpoint: str | None = None
    spec_augment: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.mode != "joint" and self.checkpoint is None:
            raise ValueError(f"mode {self.mode!r} needs a checkpoint to start from; give one, or use mode 'joint'")
        if self.front_end == "backbone" and self.filterbank:
            raise ValueError("filterbank: is not used with front_end 'backbone'; leave it out")


class SpeakerEncoder(nn.Module):
    """Waveform, or a backbone's features of it → frame-level features and embedding.

    Args:
        config: see `SpeakerConfig`.
        sample_rate: Hz of the waveforms that will be passed.
        initialise: read `config.checkpoint`; false where weights are about to be loaded anyway.
        backbone: the model's; asked for the size of its features if they are the front end, and not kept.

    Raises:
        ConfigError: an argument of a part is wrong, or the front end is a backbone and there is none.
        CheckpointError: the checkpoint does not fit.
    """

    def __init__(
        self, config: SpeakerConfig, sample_rate: int, initialise: bool = True, backbone: Backbone | None = None
    ) -> None:
        super().__init__()
        self.mode, self.front_end = config.mode, config.front_end
        if config.front_end == "backbone":
            size = _frame_size(backbone)
        else:
            self.resample = (
                Resample(sample_rate, config.sample_rate) if sample_rate != config.sample_rate else nn.Identity()
            )
            self._rates = sample_rate, config.sample_rate
            self.filterbank = construct(
                KaldiFilterbank, config.filterbank, "speaker.filterbank", sample_rate=config.sample_rate
            )
            size = self.filterbank.num_mel_bins
        self.augment = (
            nn.Identity()
            if config.spec_augment is None
            else construct(SpecAugment, config.spec_augment, "speaker.spec_augment")
        )
        self.network = speaker_networks.build(config.network, "speaker.network", num_mel_bins=size)
        if config.checkpoint is not None and initialise:
            self._load(config.checkpoint)
        if self.mode == "frozen":
            self.requires_grad_(False)
            self.eval()

    @property
    def embedding_dim(self) -> int:
        """Size of the embedding."""
        return self.network.embedding_dim

    @property
    def frame_dim(self) -> int:
        """Size of the frame-level features."""
        return self.network.frame_dim

    def train(self, mode: bool = True) -> SpeakerEncoder:
        """A frozen encoder stays in evaluation mode, so that its batch statistics stay too."""
        return super().train(mode and self.mode != "frozen")

    def forward(self, waveform: Tensor, lengths: Tensor) -> SpeakerOutput:
        """`[batch, samples]` and `[batch]` valid samples → `SpeakerOutput`, through the filterbank."""
        from_rate, to_rate = self._rates
        lengths = -(-lengths * to_rate // from_rate)
        with torch.autocast(waveform.device.type, enabled=False):
            features = self.filterbank(self.resample(waveform.float()), lengths)
        mask = length_mask(self.filterbank.frame_lengths(lengths), features.shape[1])
        return self._embed(features, mask)

    def of_features(self, features: Tensor, mask: Tensor) -> SpeakerOutput:
        """A backbone's features `[batch, channels, bins, frames]`, `[batch, frames]` valid → `SpeakerOutput`."""
        return self._embed(features.flatten(1, 2).transpose(1, 2), mask)

    def _embed(self, features: Tensor, mask: Tensor) -> SpeakerOutput:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.mode != "frozen"):
            return self.network(self.augment(features), mask)

    def _load(self, path: str) -> None:
        weights = checkpoint.load(path).state_dict
        for prefix in ("encoder.network.", "network."):
            if any(key.startswith(prefix) for key in weights):
                weights = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
                break
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"speaker.checkpoint {path}: does not fit the configured network ({reason}); "
                "use the 'speaker.network' that it was trained with"
            ) from error


def build_encoder(
    config: dict[str, Any] | SpeakerConfig | None,
    sample_rate: int,
    initialise: bool = True,
    backbone: Backbone | None = None,
) -> SpeakerEncoder | None:
    """The encoder of a configuration, or `None` where there is none; see `SpeakerEncoder`."""
    if config is None:
        return None
    if not isinstance(config, SpeakerConfig):
        config = construct(SpeakerConfig, config, "speaker")
    if "name" not in config.network:
        raise ConfigError("speaker.network: needs a key 'name', for example 'ecapa_tdnn'")
    return SpeakerEncoder(config, sample_rate, initialise, backbone)


def _frame_size(backbone: Backbone | None) -> int:
    """Numbers in a frame of the backbone's features."""
    if backbone is None:
        raise ConfigError("speaker.front_end: is 'backbone', but there is none here; use 'filterbank'")
    with torch.no_grad():
        features = backbone.analyse(torch.zeros(1, backbone.stride)).features
    return features.shape[1] * features.shape[2]
