"""Speaker networks of WeSpeaker, from their configuration and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wesep_py.checkpoint import register_reader
from wesep_py.common.errors import ConfigError, nearest
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.interop import encoders
from wesep_py.interop import public_checkpoints as files
from wesep_py.interop.public_checkpoints import fill, translating
from wesep_py.network.speaker import SpeakerNetwork, speaker_networks
from wesep_py.network.speaker.speaker_network import PooledNetwork


def load_wespeaker(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> WespeakerAdapter:
    """A speaker network of ours that computes what the public one does, in evaluation mode.

    Args:
        config: `{"model": name, "args": its constructor's arguments}`; `block`, the residual block's class, for a
            `ResNet`.
        state_dict: the public network's weights under their public names, or the content of its file; those of a
            classifier that was trained along are passed over.

    Raises:
        ConfigError: a model or an argument that cannot be translated.
        CheckpointError: weights that are missing, find no place, or are of another size.
    """
    name, args = str(config.get("model")), config.get("args") or {}
    check_numbers({"args": args})
    with translating():
        arguments = encoders.translate(name, args, {**config, "args": args})
        bins = encoders.num_mel_bins(args)
    weights = files.without_classifier(files.unwrap(state_dict))
    network = build_within(lambda: speaker_networks.build(arguments, "encoder", num_mel_bins=bins), weights)
    fill(network, encoders.family(name).rename(weights), name)
    return WespeakerAdapter(network, both=arguments.get("second_layer", False)).eval()


class WespeakerAdapter(nn.Module):
    """A speaker network of ours behind the public networks' signature.

    Args:
        network: ours.
        both: the public network returns two embeddings: that before its second layer, and that after it.

    Attributes:
        network: as given.
    """

    def __init__(self, network: SpeakerNetwork, both: bool = False) -> None:
        super().__init__()
        self.network, self.both = network, both

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Filterbank `[batch, frames, bins]` → embedding `[batch, embedding_dim]`, or both of them."""
        out = self.network(features)
        if self.both and isinstance(self.network, PooledNetwork):
            return self.network.first_embedding(out), out.embedding
        return out.embedding


@register_reader("speaker network")
def read_speaker_network(path: Path, network: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a WeSpeaker file under the names of the speaker network that is configured.

    Args:
        path: `avg_model.pt`, say.
        network: `{name: resnet, …}`, whose name says what the file holds.

    Raises:
        CheckpointError: the file is missing or damaged.
        ConfigError: WeSpeaker has no such network.
    """
    name = str(network["name"])
    if name not in encoders.FAMILIES:
        raise ConfigError(
            f"speaker.checkpoint {path}: WeSpeaker's files fill no {name!r} network; "
            f"{nearest(name, encoders.FAMILIES)}; a checkpoint folder fills any"
        )
    return encoders.FAMILIES[name].rename(files.without_classifier(files.read(path)))
