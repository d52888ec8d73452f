"""Whether the target speaks: frame by frame, and in the recording at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wesep_py.errors import ConfigError
from wesep_py.losses.base import Loss, losses

if TYPE_CHECKING:
    from wesep_py.extractor import NetworkOutput


@losses.register("presence")
class Presence(Loss):
    """Binary cross-entropy of the network's `presence_logits`: of its frames, and of the recording.

    A frame's label is the target's activity at its middle. The recording's logit is the mean of its surest frames,
    `surest` of them all, and its label whether the target is there (`present`; without it, whether it is active). An
    absent target is an item like any other: all its labels are 0. With a weight of 0.1 to 0.3 it goes beside a loss of
    the waveform.

    Args:
        recording: share of the recording's term in the sum, 0 to 1; the frames' is the rest.
        surest: share of the frames that speak for the recording, above 0 and at most 1.

    Raises:
        ValueError: a share out of range.

    Source: the frames: Ding et al., "Personal VAD", Odyssey 2020; as a second task of
        extraction: TSEJoint (Zhang et al., 2023).

    >>> from types import SimpleNamespace
    >>> output = SimpleNamespace(presence_logits=torch.zeros(1, 50))
    >>> round(Presence()(output, torch.zeros(1, 8000), {"activity": torch.ones(1, 100)}).item(), 4)  # ln 2
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
        """As `Loss.forward`; `batch` holds `activity` `[batch, frames at any rate]`, and may hold `present`.

        Raises:
            ConfigError: the network has no presence head.
        """
        logits, activity = output.presence_logits, batch["activity"]
        if logits is None:
            raise ConfigError("loss: 'presence' needs a presence head; add model.presence: {}")
        logits = logits.float()
        labels = at_frames(activity.float(), logits.shape[1])
        frames = F.binary_cross_entropy_with_logits(logits, labels)
        present = batch["present"].float() if "present" in batch else activity.float().amax(1)
        count = max(1, round(self.surest * logits.shape[1]))
        surest = logits.topk(count, dim=1).values.mean(1)
        whole = F.binary_cross_entropy_with_logits(surest, present)
        return (1 - self.recording) * frames + self.recording * whole


def at_frames(activity: Tensor, num_frames: int) -> Tensor:
    """Activity `[batch, frames]` at another number of frames over the same time: that of each frame's middle.

    >>> at_frames(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 2)
    tensor([[0., 1.]])
    """
    middles = (torch.arange(num_frames, device=activity.device) + 0.5) * (activity.shape[1] / num_frames)
    return activity[:, middles.long().clamp(max=activity.shape[1] - 1)]
