"""The live mode of a network: a causal network on the parameters of one that works on whole recordings.

    parameter of the live network     parameter of the whole network
    blocks.0.along_time.rnn.…         blocks.0.along_time.rnn.…           shared as it is: the forward direction
    blocks.0.along_time.linear.…      blocks.0.along_time.live_linear.…   of the forward direction alone
    presence.…                        live_presence.…                     a head of its own

`TargetSpeakerExtractor.live` builds it once and keeps it; docs/architecture.md says why it is a network and no flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones.bsrnn import ResidualRNN

if TYPE_CHECKING:
    from wesep_py.network.extraction_network import TargetSpeakerExtractor


def build_live_network(network: TargetSpeakerExtractor) -> TargetSpeakerExtractor:
    """Build the causal network of the live mode, on the parameters of a network.

    Raises:
        ConfigError: a cue, norm or presence head has no live mode.
    """
    config = {
        **network.config,
        "backbone": {**network.config["backbone"], "causal": True, "live": False},
        "normalise": "none" if network.normalise == "none" else "tracked",
        "presence": network.config["live_presence"],
        "live_presence": None,
    }
    try:
        live = type(network)(config, initialise=False)
    except ConfigError as error:
        raise ConfigError(f"model.backbone.live: the model cannot work live ({error})") from error
    if live.latency is None:
        raise ConfigError("model.backbone.live: a cue looks ahead, so the model cannot work live")
    own = dict(network.named_parameters())
    for name, parameter in list(live.named_parameters()):
        shared = own.get(_name_of_shared(name, own))
        if shared is None or shared.shape != parameter.shape:
            raise ConfigError(
                f"model.backbone.live: {name} has another shape in the live mode; a norm over time cannot be shared"
            )
        module, _, leaf = name.rpartition(".")
        setattr(live.get_submodule(module), leaf, shared)
    live.encoder, live.level, live.is_live = network.encoder, "kept", True
    return live


def begin_live_layers(network: TargetSpeakerExtractor, missing: Sequence[str]) -> list[str]:
    """Set live layers that a checkpoint did not have from the layers that it had.

    Args:
        network: with the weights of the checkpoint.
        missing: names of parameters that have no value from the checkpoint.

    Returns:
        The names of those that have been set.
    """
    begun = []
    for name, module in network.named_modules():
        if isinstance(module, ResidualRNN) and f"{name}.live_linear.weight" in missing:
            module.begin_live()
            begun += [f"{name}.live_linear.weight", f"{name}.live_linear.bias"]
    return begun


def _name_of_shared(name: str, own: Mapping[str, Any]) -> str:
    """Return the name, among a network's own parameters, of a parameter of its live network.

    >>> _name_of_shared("blocks.0.along_time.linear.bias", {"blocks.0.along_time.live_linear.bias": 0})
    'blocks.0.along_time.live_linear.bias'
    """
    if name.startswith("presence."):
        return f"live_{name}"
    module, _, leaf = name.rpartition(".")
    live_name = f"{module.rpartition('.')[0]}.live_{module.rpartition('.')[2]}.{leaf}"
    return live_name if live_name in own else name
