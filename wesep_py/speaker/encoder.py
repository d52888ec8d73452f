"""From an enrollment's waveform to what is known of its voice: filterbank, speaker network, and how it trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wesep_py import checkpoint
from wesep_py.audio import Resample
from wesep_py.config import construct
from wesep_py.errors import CheckpointError, ConfigError
from wesep_py.features import KaldiFilterbank, SpecAugment
from wesep_py.speaker.base import SpeakerOutput, length_mask, speaker_networks


@dataclass
class SpeakerConfig:
    """A speaker encoder.

    Attributes:
        network: `{name: ecapa_tdnn, …}`, the arguments of the network.
        filterbank: arguments of `features.KaldiFilterbank`.
        sample_rate: Hz at which the encoder hears; enrollments of other models are resampled to it.
        mode: `joint` trains with the extractor from the start; `finetune` the same, from a checkpoint;
            `frozen` never changes.
        checkpoint: a checkpoint folder (or its `model.safetensors`) to start from.
        spec_augment: arguments of `features.SpecAugment` (while training), or `null`.
    """

    network: dict[str, Any]
    filterbank: dict[str, Any] = field(default_factory=dict)
    sample_rate: int = 16000
    mode: Literal["joint", "finetune", "frozen"] = "joint"
    checkpoint: str | None = None
    spec_augment: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.mode != "joint" and self.checkpoint is None:
            raise ValueError(f"mode {self.mode!r} needs a checkpoint to start from; give one, or use mode 'joint'")


class SpeakerEncoder(nn.Module):
    """Waveform → frame-level features and embedding.

    Args:
        config: see `SpeakerConfig`.
        sample_rate: Hz of the waveforms that will be passed.
        initialise: read `config.checkpoint`; false where weights are about to be loaded anyway.

    Raises:
        ConfigError: an argument of a part is wrong.
        CheckpointError: the checkpoint does not fit.
    """

    def __init__(self, config: SpeakerConfig, sample_rate: int, initialise: bool = True) -> None:
        super().__init__()
        self.mode = config.mode
        self.resample = (
            Resample(sample_rate, config.sample_rate) if sample_rate != config.sample_rate else nn.Identity()
        )
        self._rates = sample_rate, config.sample_rate
        self.filterbank = construct(
            KaldiFilterbank, config.filterbank, "speaker.filterbank", sample_rate=config.sample_rate
        )
        self.augment = (
            nn.Identity()
            if config.spec_augment is None
            else construct(SpecAugment, config.spec_augment, "speaker.spec_augment")
        )
        self.network = speaker_networks.build(
            config.network, "speaker.network", num_mel_bins=self.filterbank.num_mel_bins
        )
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
        """`[batch, samples]` and `[batch]` valid samples → `SpeakerOutput`."""
        from_rate, to_rate = self._rates
        lengths = -(-lengths * to_rate // from_rate)
        with torch.autocast(waveform.device.type, enabled=False):
            features = self.filterbank(self.resample(waveform.float()), lengths)
        mask = length_mask(self.filterbank.frame_lengths(lengths), features.shape[1])
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
    config: dict[str, Any] | SpeakerConfig | None, sample_rate: int, initialise: bool = True
) -> SpeakerEncoder | None:
    """The encoder of a configuration, or `None` where there is none."""
    if config is None:
        return None
    if not isinstance(config, SpeakerConfig):
        config = construct(SpeakerConfig, config, "speaker")
    if "name" not in config.network:
        raise ConfigError("speaker.network: needs a key 'name', for example 'ecapa_tdnn'")
    return SpeakerEncoder(config, sample_rate, initialise)
