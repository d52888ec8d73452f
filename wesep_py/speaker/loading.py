"""A speaker encoder as a checkpoint, by itself or inside an extractor's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wesep_py import checkpoint
from wesep_py.building import build_within, check_numbers
from wesep_py.config import construct, to_plain
from wesep_py.errors import CheckpointError, ConfigError, shorten
from wesep_py.registry import no_plugins
from wesep_py.speaker.encoder import SpeakerConfig, SpeakerEncoder

HOW_TRAINED = ("mode", "checkpoint")
OF_EXTRACTOR = "encoder."


def encoder_config(config: SpeakerConfig) -> dict[str, Any]:
    """What an encoder's checkpoint says of it: the keys of `SpeakerConfig`, but for how it was trained."""
    return {key: value for key, value in to_plain(config).items() if key not in HOW_TRAINED}


def is_encoder(config: dict[str, Any]) -> bool:
    """Whether the configuration of a checkpoint is that of an encoder alone."""
    return "network" in config and "backbone" not in config


def load_encoder(path: str | Path, sample_rate: int | None = None) -> SpeakerEncoder:
    """The encoder of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: a checkpoint or experiment folder of an encoder, or of an extractor that has one.
        sample_rate: Hz of the waveforms that it will be given; its own, if `None`.

    Raises:
        CheckpointError: the checkpoint is damaged, holds no encoder that hears waveforms, or its weights do not fit its
            configuration.

    >>> load_encoder("exp/ecapa").embedding_dim  # doctest: +SKIP
    192
    """
    saved = checkpoint.load(path)
    config, weights = saved.config, saved.state_dict
    if not is_encoder(config):
        config = config.get("speaker") or {}
        if not isinstance(config, dict):
            raise CheckpointError(
                f"{saved.folder}: is damaged (speaker: is {shorten(config, 40)}; a mapping is needed)"
            )
        weights = {k.removeprefix(OF_EXTRACTOR): v for k, v in weights.items() if k.startswith(OF_EXTRACTOR)}
    if not config or config.get("front_end") == "backbone":
        raise CheckpointError(f"{saved.folder}: holds no speaker encoder that stands by itself; name another model")
    try:
        check_numbers(config)
        with no_plugins():
            own = construct(SpeakerConfig, {key: value for key, value in config.items() if key not in HOW_TRAINED})
            rate = sample_rate or own.sample_rate
            encoder = build_within(lambda: SpeakerEncoder(own, rate, initialise=False), weights)
        if problems := checkpoint.misfit(encoder.state_dict(), weights):
            raise ConfigError(problems[0])
    except ConfigError as error:
        raise CheckpointError(f"{saved.folder}: weights and configuration do not fit ({shorten(error)})") from error
    encoder.load_state_dict(weights)
    return encoder.eval()
