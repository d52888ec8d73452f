"""WeSpeaker's networks as speaker encoders inside public extractors: which are read, and by which module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wesep_py.errors import ConfigError
from wesep_py.interop import wespeaker_ecapa, wespeaker_resnet

FAMILIES = {"ECAPA_TDNN": wespeaker_ecapa, "ResNet": wespeaker_resnet}


def translate(named: str, arguments: Mapping[str, Any], encoder: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A speaker encoder as `{name: …, …}` of ours.

    Args:
        named, arguments: what the extractor's own arguments say.
        encoder: `{"model": …, "args": …, "block": …}` where another one stands in its place.

    Raises:
        ConfigError: a network or an argument that cannot be translated.
    """
    if encoder is not None:
        named, arguments = str(encoder["model"]), encoder["args"]
    if family(named) is wespeaker_resnet:
        return wespeaker_resnet.translate(named, arguments, None if encoder is None else encoder.get("block"))
    return wespeaker_ecapa.translate(named, arguments)


def family(named: str) -> Any:
    """The module that translates a network of that name.

    Raises:
        ConfigError: there is none.
    """
    for start, module in FAMILIES.items():
        if named.startswith(start):
            return module
    raise ConfigError(f"encoder: {named!r} cannot be translated; {' and '.join(FAMILIES)} networks are read")


def rename(named: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's weights under our names, with the prefix that they have in a network of ours."""
    return {f"encoder.network.{key}": tensor for key, tensor in family(named).rename(state_dict).items()}
