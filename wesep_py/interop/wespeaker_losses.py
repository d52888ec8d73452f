"""WeSpeaker's classification losses ("projections"): their arguments and weights, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from wesep_py.common.errors import CheckpointError, ConfigError, nearest
from wesep_py.network.speaker.speaker_losses import ClassificationLoss, MarginSoftmax, SphereFace2, speaker_losses

ARGUMENTS = {
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

DEFAULTS: dict[str, dict[str, Any]] = {
    "arc_margin_intertopk_subcenter": {"K": 3, "k_top": 5},
    "sphere": {"margin": 2},
}
"""Public defaults that differ from ours."""

MARGIN_TYPES = {"C": "cosine", "A": "angular"}
PENALTY_MARGIN = 0.2
"""The margin at which the public inter-top-k penalty is whole; at another it is in proportion."""


def translate(model: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """A public loss's name and arguments → `{name: …, …}` without the number of speakers and the embedding's size.

    >>> translate("sphereface2", {"margin_type": "A", "lanbuda": 0.6})["positive_weight"]
    0.6

    Raises:
        ConfigError: a loss or an argument that cannot be translated.
    """
    if model not in ARGUMENTS:
        raise ConfigError(f"model: no loss is called {model!r}; {nearest(model, ARGUMENTS)}")
    name, names = ARGUMENTS[model]
    translated: dict[str, Any] = {"name": name}
    args = {**DEFAULTS.get(model, {}), **args}
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


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """WeSpeaker's weights under our names and in our shapes."""
    return {name: tensor.reshape(()) if name == "bias" else tensor for name, tensor in state_dict.items()}


def load_wespeaker_loss(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> WespeakerLossAdapter:
    """A loss of ours that computes what the public one does.

    Args:
        config: `{"model": "arc_margin", "args": {"scale": 32.0, …}}`.
        state_dict: the public weights under their public names; sizes are read off them.

    Raises:
        ConfigError: a loss or an argument that cannot be translated.
        CheckpointError: weights that are missing, find no place, or are of another size.
    """
    model, args = str(config.get("model")), config.get("args", {})
    translated = translate(model, args)
    if "weight" not in state_dict or state_dict["weight"].dim() != 2:
        raise CheckpointError(f"{model}: the public checkpoint has no tensor 'weight' [speakers, embedding_dim]")
    rows, embedding_dim = state_dict["weight"].shape
    per_speaker = translated.get("num_subcentres", 1)
    if rows % per_speaker:
        raise CheckpointError(f"{model}: {rows} rows of 'weight' are not {per_speaker} sub-centres a speaker")
    loss = speaker_losses.build(translated, "args", embedding_dim=embedding_dim, num_speakers=rows // per_speaker)
    try:
        loss.load_state_dict(rename(state_dict))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{model}: the weights do not fit the arguments ({reason})") from error
    return WespeakerLossAdapter(loss)


class WespeakerLossAdapter(nn.Module):
    """A loss of ours behind the public losses' signature.

    As the public one, it starts without inter-top-k penalty, whatever its margin, until `update` sets both. A-softmax
    stays at the first step of its annealing until `loss.update(step)`. Where a negative is nearer than the penalty, or
    than SphereFace2's angular margin, the public formula turns back and ours goes on.

    Attributes:
        loss: as given, for training here.
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
            grown = margin / PENALTY_MARGIN if margin > 0.001 else 0.0
            self.loss.current_penalty = self.loss.hard_penalty * grown

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits `[batch, num_speakers]` for a cross-entropy; for SphereFace2 logits for the accuracy, and the loss.

        Args:
            embeddings: `[batch, embedding_dim]`.
            labels: `[batch]`.
        """
        labels = self.loss.check_labels(labels)
        cosines = self.loss.cosines(embeddings)
        if not isinstance(self.loss, SphereFace2):
            return self.loss.logits(embeddings, labels, cosines)
        lowered = cosines - self.loss.current_margin * nn.functional.one_hot(labels, cosines.shape[1])
        return self.loss.scale * lowered, self.loss.item_losses(embeddings, labels, cosines).mean()
