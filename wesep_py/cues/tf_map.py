"""TF-map: the enrollment's spectrum, rearranged in time to resemble the mixture; no parameters, no encoder.

Zhang et al., "Multi-level speaker representation for target speaker extraction" (ICASSP 2025, arXiv 2410.16059).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wesep_py.backbones import Analysis
from wesep_py.cues.base import Cue, Enrollment, Prepared, cues


@cues.register("tf_map")
class TFMapCue(Cue):
    """Feature channels that say, frame by frame, what the target would look like there.

    With X and E the magnitudes of mixture and enrollment, frames brought to unit length (X̄, Ē):
    S = X̄ᵀĒ; A = softmax(τ S) over enrollment frames; M̃_t = Σ_s A_ts Ē_s, brought to unit length;
    M_t = (Σ_f X_tf M̃_tf) M̃_t.

    Args:
        temperatures: τ of each map; one channel a map. The paper's is 1, which is nearly the enrollment's average
            spectrum; around 20 (with `power` 0.5) the matching frames stand out.
        power: exponent on the magnitudes.
        learn_temperatures: whether training may move τ.

    Raises:
        ValueError: no temperature, one that is not above 0, or a power outside 0…1.
    """

    stage = "input"

    def __init__(
        self,
        temperatures: tuple[float, ...] = (1.0,),
        power: float = 1.0,
        learn_temperatures: bool = False,
    ) -> None:
        super().__init__()
        if not temperatures or min(temperatures) <= 0:
            raise ValueError(f"temperatures: is {list(temperatures)}; one or more numbers above 0 are needed")
        if not 0 < power <= 1:
            raise ValueError(f"power: is {power}; above 0 and at most 1 is allowed")
        self.power = power
        self.log_temperatures = nn.Parameter(torch.tensor(temperatures).log(), requires_grad=learn_temperatures)

    def added_channels(self) -> int:
        return len(self.log_temperatures)

    def prepare(self, enrollment: Enrollment) -> Prepared:
        frames = self._magnitude(enrollment.analysis.spectrum) * enrollment.frame_mask[:, None]
        return {"frames": nn.functional.normalize(frames, dim=1), "mask": enrollment.frame_mask}

    def combine(self, prepared: Sequence[Prepared]) -> Prepared:
        return {key: torch.cat([one[key] for one in prepared], dim=-1) for key in prepared[0]}

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: Prepared) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            mixture, frames = self._magnitude(analysis.spectrum), prepared["frames"].float()
            similarity = nn.functional.normalize(mixture, dim=1).transpose(1, 2) @ frames
            padding = ~prepared["mask"].bool()[:, None]
            maps = []
            for temperature in self.log_temperatures.exp():
                # Masked after the product: minus infinity times τ would give τ a gradient that is not a number.
                weights = (temperature * similarity).masked_fill(padding, -torch.inf).softmax(dim=-1)
                matched = nn.functional.normalize(frames @ weights.transpose(1, 2), dim=1)
                maps.append((mixture * matched).sum(dim=1, keepdim=True) * matched)
        return torch.cat([features, torch.stack(maps, dim=1)], dim=1)

    def _magnitude(self, spectrum: Tensor) -> Tensor:
        magnitude = spectrum.abs()
        return magnitude if self.power == 1 else (magnitude + 1e-8) ** self.power
