"""Losses of second tasks: presence of the target, and classification of the enrolled speaker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wesep_py.common.errors import ConfigError
from wesep_py.training.losses.loss import Loss, losses

if TYPE_CHECKING:
    from wesep_py.network.extraction_network import NetworkOutput

MakeSpeakerLoss = Callable[[Any], nn.Module]
"""Builds a `CombinedSpeakerLoss` (`network.speaker.speaker_losses`) on the network's embeddings and the training set's
speakers from its configuration."""


@losses.register("presence")
class PresenceLoss(Loss):
    """Binary cross-entropy of the network's `presence_logits`, per frame and for the whole recording.

    The label of a frame is the activity of the target at the middle of the frame. The logit of the recording is the
    mean of its most confident frames, a share `surest` of all; its label is whether the target is there (`present`;
    without it, whether the target is ever active). An item with an absent target has all labels 0. Use it beside a
    waveform loss, with a weight of 0.1 to 0.3.

    Args:
        recording: share of the recording's term in the sum, 0 to 1; the frames have the remaining share.
        surest: share of the frames that decide for the recording, above 0 and at most 1.

    Raises:
        ValueError: a share out of range.

    Source: the frames: Ding et al., "Personal VAD", Odyssey 2020; as a second task of
    extraction: TSEJoint (Zhang et al., 2023).

    >>> from types import SimpleNamespace
    >>> output = SimpleNamespace(presence_logits=torch.zeros(1, 50))
    >>> round(PresenceLoss()(output, torch.zeros(1, 8000), {"activity": torch.ones(1, 100)}).item(), 4)  # ln 2
    0.6931
    """

    def __init__(self, recording: float = 0.5, surest: float = 0.1) -> None:
        super().__init__()
        if not 0 <= recording <= 1:
            raise ValueError(f"recording: is {recording}; 0 to 1 is allowed")
        if not 0 < surest <= 1:
            raise ValueError(f"surest: is {surest}; above 0 and at most 1 is allowed")
        self.recording = recording
        self.surest = surest

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch, see `Loss.forward`.

        `batch` holds `activity` `[batch, frames at any rate]`, and may hold `present` `[batch]`.

        Raises:
            ConfigError: the network has no presence head.
        """
        logits, activity = output.presence_logits, batch["activity"]
        if logits is None:
            raise ConfigError("loss: 'presence' needs a presence head; add model.presence: {}")
        logits = logits.float()
        frame_labels = activity_at_frames(activity.float(), logits.shape[1])
        frame_loss = F.binary_cross_entropy_with_logits(logits, frame_labels)
        recording_label = batch["present"].float() if "present" in batch else activity.float().amax(1)
        num_surest = max(1, round(self.surest * logits.shape[1]))
        recording_logit = logits.topk(num_surest, dim=1).values.mean(1)
        recording_loss = F.binary_cross_entropy_with_logits(recording_logit, recording_label)
        return (1 - self.recording) * frame_loss + self.recording * recording_loss


def activity_at_frames(activity: Tensor, num_frames: int) -> Tensor:
    """Resample activity `[batch, frames]` to another number of frames over the same time.

    Each new frame takes the activity at its middle.

    >>> activity_at_frames(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 2)
    tensor([[0., 1.]])
    """
    middles = (torch.arange(num_frames, device=activity.device) + 0.5) * (activity.shape[1] / num_frames)
    return activity[:, middles.long().clamp(max=activity.shape[1] - 1)]


@losses.register("speaker_cross_entropy")
class SpeakerCrossEntropy(Loss):
    """Cross-entropy of the network's `speaker_logits` for the enrolled speaker's label, mean over the batch.

    With a weight of 0.5 beside the weighted SI-SDR it is the multi-task loss of SpEx+ (Ge et al., Interspeech 2020,
    eq. 7).

    Args:
        label_smoothing: share of the probability spread over all speakers, 0 to below 1.
        num_speakers: of the training set, passed by the training task; `None`: the labels of the first batch give a
            lower bound.

    Raises:
        ValueError: a share out of range.
    """

    def __init__(self, label_smoothing: float = 0.0, num_speakers: int | None = None) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: is {label_smoothing}; 0 to below 1 is allowed")
        self.label_smoothing = label_smoothing
        self.num_speakers = num_speakers
        self._is_checked = False

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch, see `Loss.forward`.

        Raises:
            ConfigError: the network has no speaker logits, or fewer than the training set has speakers.
        """
        logits, labels = output.speaker_logits, batch["speaker"]
        if logits is None:
            raise ConfigError(
                "loss: 'speaker_cross_entropy' needs speaker logits; give the embedding cue num_speakers, the number "
                "of speakers of the training set"
            )
        if not self._is_checked:  # only once: reading a label from a GPU waits for all of its pending work
            self._check(logits.shape[1], labels)
            self._is_checked = True
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    def _check(self, num_logits: int, labels: Tensor) -> None:
        num_needed = int(labels.max()) + 1 if self.num_speakers is None else self.num_speakers
        if num_needed > num_logits:
            count = f"at least {num_needed}" if self.num_speakers is None else f"{num_needed}"
            raise ConfigError(
                f"cues: num_speakers is {num_logits}, and the training set has {count} speakers; give their number"
            )


@losses.register("speaker_margin")
class SpeakerMarginLoss(Loss):
    """A loss of speaker encoders (`aam`, `am`, `sphereface2`, …) on the embedding of the enrollment.

    The embedding is the encoder's output before the cue's `transform`. Its label is the enrolled speaker, present or
    absent. The class vectors belong to the loss: they train with the network and are in the training state, but not in
    the checkpoint, so that a model can be fine-tuned on any number of speakers. Beside a loss in dB, use a weight of
    0.1 to 1.

    Args:
        speaker_loss: builds the loss; passed by the training task.
        loss: one speaker loss `{name: aam, margin: 0.2, …}`, or a list of them, each with a `weight` (default 1).
        utterances: the loss is on the embeddings of the `enrollment`, or on `both`: those of the targets too, where
            they speak. Losses that compare utterances of a speaker (`ge2e`, `prototypical`, `triplet`) need both; the
            encoder then computes twice.

    Raises:
        ConfigError: an unknown loss or argument, or a network without an embedding that learns.

    Sources: those of the losses; as a second task of extraction, with cross-entropy: Ge et al., "SpEx+", Interspeech
        2020, eq. 7; with metric losses: Zhao et al., "Target confusion in end-to-end speaker extraction", Interspeech
        2022 (arXiv 2204.01355).
    """

    needs_embedding = True

    def __init__(
        self,
        speaker_loss: MakeSpeakerLoss,
        loss: list[dict[str, Any]] | dict[str, Any],
        utterances: Literal["enrollment", "both"] = "enrollment",
    ) -> None:
        super().__init__()
        self.loss = speaker_loss(loss)
        self.needs_target_embedding = utterances == "both"

    def update(self, step: int) -> None:
        """Set the margin of a step, see `Loss.update`."""
        self.loss.update(step)

    def forward(self, output: NetworkOutput, target: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of a batch, see `Loss.forward`.

        `batch` holds `embedding` `[batch, embedding_dim]` and `speaker` `[batch]`; with `utterances: both` also
        `target_embedding` and `target_items`.
        """
        embeddings, labels = batch["embedding"], batch["speaker"]
        if self.needs_target_embedding:
            embeddings = torch.cat([embeddings, batch["target_embedding"].to(embeddings.dtype)])
            labels = torch.cat([labels, labels[batch["target_items"]]])
        return self.loss(embeddings, labels).loss
