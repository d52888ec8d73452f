"""WeSpeaker's networks: which are read, and by which module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.common.errors import ConfigError, nearest
from wesep_py.interop import (
    wespeaker_campplus,
    wespeaker_ecapa,
    wespeaker_eres2net,
    wespeaker_gemini,
    wespeaker_redimnet,
    wespeaker_repvgg,
    wespeaker_res2net,
    wespeaker_resnet,
    wespeaker_simam,
    wespeaker_xvector,
)

FAMILIES = {
    "campplus": wespeaker_campplus,
    "ecapa_tdnn": wespeaker_ecapa,
    "eres2net": wespeaker_eres2net,
    "gemini_df_resnet": wespeaker_gemini,
    "redimnet": wespeaker_redimnet,
    "repvgg": wespeaker_repvgg,
    "res2net": wespeaker_res2net,
    "resnet": wespeaker_resnet,
    "simam_resnet": wespeaker_simam,
    "xvector": wespeaker_xvector,
}
"""Our name of a speaker network, and the module that knows its public names, arguments and weights."""


def translate(named: str, arguments: Mapping[str, Any], encoder: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A speaker network as `{name: …, …}` of ours.

    Args:
        named, arguments: its public name and arguments.
        encoder: `{"model": …, "args": …, "block": …}` where another one stands in its place.

    Raises:
        ConfigError: a network or an argument that cannot be translated.
    """
    block = None
    if encoder is not None:
        named, arguments, block = str(encoder.get("model")), encoder.get("args") or {}, encoder.get("block")
    return family(named).translate(named, arguments, block)


def num_mel_bins(arguments: Mapping[str, Any], default: int = 80) -> int:
    """The size of a frame that the network hears."""
    return int(arguments.get("feat_dim", arguments.get("acoustic_dim", default)))


def names() -> list[str]:
    """Every public name of a speaker network that is read."""
    return [name for module in FAMILIES.values() for name in module.MODELS]


def family(named: str) -> Any:
    """The module that translates a network of that public name.

    Raises:
        ConfigError: there is none.
    """
    for module in FAMILIES.values():
        if named in module.MODELS:
            return module
    raise ConfigError(f"encoder: {named!r} cannot be translated; {nearest(named, names())}")


def rename(named: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's weights under our names, with the prefix that they have in an extractor of ours."""
    return {f"encoder.network.{key}": tensor for key, tensor in family(named).rename(state_dict).items()}
