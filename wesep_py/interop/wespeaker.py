"""Speaker networks and classification losses of WeSpeaker, from their configuration and their weights.

`load_wespeaker` builds our network for a public one (the tables are in `wespeaker_networks`), and `load_wespeaker_loss`
our loss. Importing this module also registers the reader of the `.pt` files that `speaker: {checkpoint: …}` may name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wesep_py.checkpoint import register_reader
from wesep_py.common.errors import CheckpointError, ConfigError, nearest
from wesep_py.common.safe_building import build_within, check_numbers
from wesep_py.interop.public_checkpoints import (
    fill_network,
    read_public_weights,
    translating,
    unwrap_weights,
    without_classifier,
)
from wesep_py.interop.wespeaker_networks import FAMILIES, family_of, num_mel_bins, translate_network
from wesep_py.network.speaker import SpeakerNetwork, speaker_networks
from wesep_py.network.speaker.speaker_losses import ClassificationLoss, MarginSoftmax, SphereFace2, speaker_losses
from wesep_py.network.speaker.speaker_network import PooledNetwork


def load_wespeaker(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> WespeakerAdapter:
    """Return a speaker network of ours that computes what the public one does, in evaluation mode.

    Args:
        config: `{"model": name, "args": its constructor's arguments}`; `block`, the residual block's class, for a
            `ResNet`.
        state_dict: the public network's weights under their public names, or the content of its file; those of a
            classifier are left out.

    Raises:
        ConfigError: a model or an argument that cannot be translated.
        CheckpointError: weights that are missing, have no counterpart, or are of another size.
    """
    name, args = str(config.get("model")), config.get("args") or {}
    check_numbers({"args": args})
    with translating():
        arguments = translate_network(name, args, config.get("block"))
        bins = num_mel_bins(args)
    weights = without_classifier(unwrap_weights(state_dict))
    network = build_within(lambda: speaker_networks.build(arguments, "encoder", num_mel_bins=bins), weights)
    fill_network(network, family_of(name).rename(weights), name)
    return WespeakerAdapter(network, both=arguments.get("second_layer", False)).eval()


class WespeakerAdapter(nn.Module):
    """A speaker network of ours behind the public networks' call signature.

    Args:
        network: ours.
        both: True if the public network returns two embeddings: that before its second layer, and that after it.

    Attributes:
        network: the same.
    """

    def __init__(self, network: SpeakerNetwork, both: bool = False) -> None:
        super().__init__()
        self.network, self.both = network, both

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the embedding `[batch, embedding_dim]` of a filterbank `[batch, frames, bins]`, or both embeddings."""
        out = self.network(features)
        if self.both and isinstance(self.network, PooledNetwork):
            return self.network.first_embedding(out), out.embedding
        return out.embedding


@register_reader("speaker network")
def read_speaker_network(path: Path, network: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the weights in a WeSpeaker file, under the names of the speaker network that is configured.

    Args:
        path: the file, such as `avg_model.pt`.
        network: `{name: resnet, …}`, whose name says what the file holds.

    Raises:
        CheckpointError: the file is missing or damaged.
        ConfigError: WeSpeaker has no such network.
    """
    name = str(network["name"])
    if name not in FAMILIES:
        raise ConfigError(
            f"speaker.checkpoint {path}: WeSpeaker's files fill no {name!r} network; "
            f"{nearest(name, FAMILIES)}; a checkpoint folder fills any"
        )
    return FAMILIES[name].rename(without_classifier(read_public_weights(path)))


# Classification losses, which WeSpeaker calls projections.

LOSS_ARGUMENTS = {
    "add_margin": ("am", {"scale": "scale", "margin": "margin"}),
    "arc_margin": ("aam", {"scale": "scale", "margin": "margin", "easy_margin": "easy_margin"}),
    "arc_margin_intertopk_subcenter": (
        "aam",
        {
            "scale": "scale",
            "margin": "margin",
            "easy_margin": "easy_margin",
            "K": "num_subcentres",
            "mp": "hard_penalty",
            "k_top": "num_hard",
        },
    ),
    "sphere": ("a_softmax", {"margin": "margin"}),
    "sphereface2": (
        "sphereface2",
        {
            "scale": "scale",
            "margin": "margin",
            "lanbuda": "positive_weight",
            "t": "power",
            "margin_type": "margin_type",
        },
    ),
}
"""Public name → our name, and public argument → ours."""
LOSS_DEFAULTS: dict[str, dict[str, Any]] = {
    "arc_margin_intertopk_subcenter": {"K": 3, "k_top": 5},
    "sphere": {"margin": 2},
}
"""Public defaults that differ from ours."""
MARGIN_TYPES = {"C": "cosine", "A": "angular"}
FULL_PENALTY_MARGIN = 0.2
"""The margin at which the public inter-top-k penalty has its full size; at another it is in proportion."""


def translate_loss(model: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{name: …, …}` of our loss for a public one, without the number of speakers and the embedding's size.

    >>> translate_loss("sphereface2", {"margin_type": "A", "lanbuda": 0.6})["positive_weight"]
    0.6

    Raises:
        ConfigError: a loss or an argument that cannot be translated.
    """
    if model not in LOSS_ARGUMENTS:
        raise ConfigError(f"model: no loss is called {model!r}; {nearest(model, LOSS_ARGUMENTS)}")
    name, names = LOSS_ARGUMENTS[model]
    translated: dict[str, Any] = {"name": name}
    args = {**LOSS_DEFAULTS.get(model, {}), **args}
    fine_tuning = args.pop("do_lm", False) if model == "arc_margin_intertopk_subcenter" else False
    for theirs, value in args.items():
        if theirs not in names:
            raise ConfigError(f"args.{theirs}: cannot be translated; {nearest(theirs, names)}")
        if theirs == "margin_type":
            if value not in MARGIN_TYPES:
                raise ConfigError(f"args.margin_type: is {value!r}; {nearest(str(value), MARGIN_TYPES)}")
            value = MARGIN_TYPES[value]
        translated[names[theirs]] = value
    if fine_tuning:
        translated |= {"hard_penalty": 0.0, "num_hard": 0}
    return translated


def load_wespeaker_loss(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> WespeakerLossAdapter:
    """Return a loss of ours that computes what the public one does.

    Args:
        config: `{"model": "arc_margin", "args": {"scale": 32.0, …}}`.
        state_dict: the public weights under their public names; sizes are taken from them.

    Raises:
        ConfigError: a loss or an argument that cannot be translated.
        CheckpointError: weights that are missing, have no counterpart, or are of another size.
    """
    model, args = str(config.get("model")), config.get("args", {})
    translated = translate_loss(model, args)
    if "weight" not in state_dict or state_dict["weight"].dim() != 2:
        raise CheckpointError(f"{model}: the public checkpoint has no tensor 'weight' [speakers, embedding_dim]")
    rows, embedding_dim = state_dict["weight"].shape
    num_subcentres = translated.get("num_subcentres", 1)
    if rows % num_subcentres:
        raise CheckpointError(f"{model}: 'weight' has {rows} rows, which {num_subcentres} sub-centres do not divide")
    num_speakers = rows // num_subcentres
    loss = speaker_losses.build(translated, "args", embedding_dim=embedding_dim, num_speakers=num_speakers)
    try:
        # SphereFace2's bias is [1, 1] there.
        loss.load_state_dict({k: tensor.reshape(()) if k == "bias" else tensor for k, tensor in state_dict.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{model}: the weights do not fit the arguments ({reason})") from error
    return WespeakerLossAdapter(loss)


class WespeakerLossAdapter(nn.Module):
    """A loss of ours behind the public losses' call signature.

    As the public one, it starts without inter-top-k penalty, whatever its margin, until `update` sets both. A-softmax
    stays at the first step of its annealing until `loss.update(step)`. Where a negative's angle is smaller than the
    penalty, or than SphereFace2's angular margin, the public cosine falls again, and ours keeps rising.

    Args:
        loss: ours.

    Attributes:
        loss: the same, for training here.
    """

    def __init__(self, loss: ClassificationLoss) -> None:
        super().__init__()
        self.loss = loss
        if isinstance(loss, MarginSoftmax):
            loss.current_penalty = 0.0

    def update(self, margin: float) -> None:
        """Set the margin, and the inter-top-k penalty in proportion to it, as the public schedule does.

        Raises:
            ConfigError: the loss has no margin that can be set.
        """
        if not isinstance(self.loss, (MarginSoftmax, SphereFace2)):
            raise ConfigError(f"update: a loss of the kind {type(self.loss).__name__} has no margin that can be set")
        self.loss.current_margin = margin
        if isinstance(self.loss, MarginSoftmax):
            share = margin / FULL_PENALTY_MARGIN if margin > 0.001 else 0.0
            self.loss.current_penalty = self.loss.hard_penalty * share

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits `[batch, num_speakers]` for a cross-entropy; of SphereFace2 logits for accuracy, and the loss.

        Args:
            embeddings: `[batch, embedding_dim]`.
            labels: indices of the speakers, `[batch]`.
        """
        labels = self.loss.check_labels(labels)
        cosines = self.loss.cosines(embeddings)
        if not isinstance(self.loss, SphereFace2):
            return self.loss.logits(embeddings, labels, cosines)
        lowered = cosines - self.loss.current_margin * nn.functional.one_hot(labels, cosines.shape[1])
        return self.loss.scale * lowered, self.loss.item_losses(embeddings, labels, cosines).mean()
