"""Listen first: the network hears the enrollment, a short silence, then the mixture, and goes on in the same voice.

LExt: the enrollment is a prefix of the recording and the estimate of the prefix is thrown away; no encoder and no
parameters, at the cost of running the network over the enrollment too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wesep_py.network.backbones import Backbone
from wesep_py.network.cues.cue import Cue, Enrollment, PreparedEnrollment, cues
from wesep_py.network.speaker import SpeakerEncoder


@cues.register("listen_first")
class ListenFirstCue(Cue):
    """The enrollment and a silence, put before the mixture.

    A shorter enrollment of a batch begins later, so that the silence between it and the mixture is the same for all;
    what is before it is heard as silence too.
    What is put before the mixture is a whole number of the backbone's strides; the silence is made longer to fit.

    Args:
        silence_ms: shortest silence between enrollment and mixture, in milliseconds.

    Raises:
        ValueError: a silence below 0.
    """

    stage = "waveform"

    def __init__(self, silence_ms: float = 32.0) -> None:
        super().__init__()
        if silence_ms < 0:
            raise ValueError(f"silence_ms: is {silence_ms}; 0 or more is allowed")
        self.silence_ms = silence_ms

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        self.stride = backbone.stride
        self.silence = round(self.silence_ms / 1000 * backbone.sample_rate)

    def prepare(self, enrollment: Enrollment) -> PreparedEnrollment:
        size = max(1, int(enrollment.lengths.max()))
        total = -(-(size + self.silence) // self.stride) * self.stride
        ending_together = _end_together(enrollment.waveform[:, :size], enrollment.lengths)
        return {"prefix": torch.nn.functional.pad(ending_together, (0, total - size))}

    def combine(self, prepared: Sequence[PreparedEnrollment], weights: Sequence[float] | None = None) -> PreparedEnrollment:
        return {"prefix": torch.cat([one["prefix"] for one in prepared], dim=1)}

    def steer_waveform(self, waveform: Tensor, prepared: PreparedEnrollment) -> tuple[Tensor, int]:
        prefix = prepared["prefix"].to(waveform.dtype)
        return torch.cat([prefix, waveform], dim=1), prefix.shape[1]


def _end_together(waveform: Tensor, lengths: Tensor) -> Tensor:
    """`[batch, samples]`, padded behind → the same, padded in front."""
    size = waveform.shape[1]
    source = torch.arange(size, device=waveform.device)[None] - (size - lengths[:, None].to(waveform.device))
    return waveform.gather(1, source.clamp_min(0)).masked_fill(source < 0, 0.0)
