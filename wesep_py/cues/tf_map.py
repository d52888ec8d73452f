"""TF-map: the enrollment's spectrum, rearranged in time to resemble the mixture; no parameters.

Zhang et al., "Multi-level speaker representation for target speaker extraction" (ICASSP 2025, arXiv 2410.16059).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wesep_py.backbones import Analysis, Backbone
from wesep_py.cues.attention import frames_at_once
from wesep_py.cues.base import Cue, Enrollment, Prepared, cues
from wesep_py.errors import ConfigError
from wesep_py.speaker import SpeakerEncoder


@cues.register("tf_map")
class TFMapCue(Cue):
    """Feature channels that say, frame by frame, what the target would look like there.

    With X and E the magnitudes of mixture and enrollment, frames brought to unit length (X̄, Ē):
    S = X̄ᵀĒ; A = softmax(τ S) over enrollment frames; M̃_t = Σ_s A_ts Ē_s, brought to unit length;
    M_t = (Σ_f X_tf M̃_tf) M̃_t. With `source: encoder`, S compares what the speaker encoder makes of the two frames,
    each brought to unit length, in place of their magnitudes.

    Args:
        source: what says which frames are alike: the `spectrum`, or the speaker `encoder`, which then has to hear the
            mixture too. It hears all of it at once, so this is nothing for a causal backbone.
        temperatures: τ of each map; one channel a map. The paper's is 1, which is nearly the enrollment's average
            spectrum; around 20 (with `power` 0.5) the matching frames stand out.
        power: exponent on the magnitudes.
        learn_temperatures: whether training may move τ.

    Raises:
        ValueError: no temperature, one that is not above 0, a power outside 0…1, or an encoder on a causal backbone.
        ConfigError: `source: encoder` in a model without one.
    """

    stage = "input"

    def __init__(
        self,
        temperatures: tuple[float, ...] = (1.0,),
        power: float = 1.0,
        learn_temperatures: bool = False,
        source: Literal["spectrum", "encoder"] = "spectrum",
    ) -> None:
        super().__init__()
        if not temperatures or min(temperatures) <= 0:
            raise ValueError(f"temperatures: is {list(temperatures)}; one or more numbers above 0 are needed")
        if not 0 < power <= 1:
            raise ValueError(f"power: is {power}; above 0 and at most 1 is allowed")
        self.power, self.needs_speaker_frames = power, source == "encoder"
        self.log_temperatures = nn.Parameter(torch.tensor(temperatures).log(), requires_grad=learn_temperatures)

    def added_channels(self) -> int:
        return len(self.log_temperatures)

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        if not self.needs_speaker_frames:
            return
        if encoder is None:
            raise ConfigError(
                "cues: 'tf_map' with source 'encoder' needs a speaker encoder; give the model a key 'speaker', "
                "or use source 'spectrum'"
            )
        if backbone.latency is not None:
            raise ValueError(
                "source: is 'encoder', which hears the whole mixture before it says anything; "
                "a causal backbone needs 'spectrum'"
            )

    def prepare(self, enrollment: Enrollment) -> Prepared:
        frames = self.magnitude(enrollment.analysis.spectrum) * enrollment.frame_mask[:, None]
        prepared = {"frames": nn.functional.normalize(frames, dim=1), "mask": enrollment.frame_mask}
        return prepared | ({"speaker_frames": enrollment.speaker_frames} if self.needs_speaker_frames else {})

    def combine(self, prepared: Sequence[Prepared], weights: Sequence[float] | None = None) -> Prepared:
        return {key: torch.cat([one[key] for one in prepared], dim=-1) for key in prepared[0]}

    def steer_features(self, analysis: Analysis, features: Tensor, prepared: Prepared) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            mixture = self.magnitude(analysis.spectrum)
            frames, padding = prepared["frames"].to(mixture.dtype), ~prepared["mask"].bool()[:, None]
            seen, known = nn.functional.normalize(mixture, dim=1), frames
            if self.needs_speaker_frames:
                assert analysis.speaker_frames is not None, "the extractor sees to it: see `needs_speaker_frames`"
                seen, known = analysis.speaker_frames, prepared["speaker_frames"].to(mixture.dtype)
            size = frames_at_once(len(mixture) * frames.shape[2])
            parts = zip(mixture.split(size, dim=2), seen.split(size, dim=2), strict=True)
            maps = torch.cat([self._maps(part, s.mT @ known, frames, padding) for part, s in parts], dim=3)
        return torch.cat([features, maps], dim=1)

    def _maps(self, mixture: Tensor, similarity: Tensor, frames: Tensor, padding: Tensor) -> Tensor:
        """`[batch, bins, frames]` and its similarity `[batch, frames, enrolled]` → `[batch, maps, bins, frames]`."""
        maps = []
        for temperature in self.log_temperatures.exp():
            # Masked after the product: minus infinity times τ would give τ a gradient that is not a number.
            weights = (temperature * similarity).masked_fill(padding, -torch.inf).softmax(dim=-1)
            matched = nn.functional.normalize(frames @ weights.mT, dim=1)
            maps.append((mixture * matched).sum(dim=1, keepdim=True) * matched)
        return torch.stack(maps, dim=1)

    def magnitude(self, spectrum: Tensor) -> Tensor:
        """What frames are compared by: the magnitudes of a spectrum, to the cue's power."""
        magnitude = spectrum.abs()
        return magnitude if self.power == 1 else (magnitude + 1e-8) ** self.power
