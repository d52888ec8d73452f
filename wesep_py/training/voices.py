"""Learning to hear all voices of a mixture: its speakers, in no order, and how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wesep_py.simulation import Sample
from wesep_py.speaker import SpeakerEncoder
from wesep_py.speaker.losses import PermutationFreeLoss
from wesep_py.speaker.losses.permutation_free import ABSENT
from wesep_py.speaker.voices import count
from wesep_py.training.data import stack_padded
from wesep_py.training.task import Item


def voice_items(sample: Sample, labels: Mapping[str, int]) -> list[Item]:
    """The mixture with its speakers' labels, and each enrollment with its own: `{mixture: …, speakers: [label, …]}`."""
    told = [labels[source.speaker_id] for source in sample.recipe.sources]
    alone = [(waveform, [label]) for waveform, label in zip(sample.enrollments, told, strict=True) if len(waveform)]
    return [{"mixture": waveform, "speakers": own} for waveform, own in [(sample.mixture, told), *alone]]


def collate_voices(mixtures: Sequence[list[Item]]) -> dict[str, Tensor]:
    """`mixture` `[B, longest]`, `lengths` `[B]` in samples, `speakers` `[B, most]`, filled up with −1."""
    items = [item for mixture in mixtures for item in mixture]
    most = max(len(item["speakers"]) for item in items)
    return {
        "mixture": stack_padded([item["mixture"] for item in items]),
        "lengths": torch.tensor([len(item["mixture"]) for item in items]),
        "speakers": torch.tensor([item["speakers"] + [ABSENT] * (most - len(item["speakers"])) for item in items]),
    }


class VoicesStep(nn.Module):
    """An encoder that hears several voices and its loss as one module: what a device computes in a step."""

    def __init__(self, network: SpeakerEncoder, loss: PermutationFreeLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`loss`, its parts, `accuracy` among the training speakers, and `count_accuracy`."""
        most = self.network.max_voices
        labels = nn.functional.pad(batch["speakers"], (0, most - batch["speakers"].shape[1]), value=ABSENT)
        counts = (labels != ABSENT).sum(dim=1)
        voices = self.network.voices(batch["mixture"], batch["lengths"], counts=counts)
        found = self.loss(voices.embeddings, voices.existence_logits, labels)
        counted = (count(voices.existence_logits) == counts).float().mean()
        return {"loss": found.loss, **found.parts, "accuracy": found.accuracy, "count_accuracy": counted}
