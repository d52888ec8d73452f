"""One vector for a voice, fused into the latent."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wesep_py.backbones import Backbone
from wesep_py.cues.base import Cue, Enrollment, Prepared, cues
from wesep_py.cues.fusion import FusionPoints, Points, mean_embedding
from wesep_py.errors import ConfigError
from wesep_py.speaker import SpeakerEncoder


@cues.register("embedding")
class EmbeddingCue(Cue):
    """The speaker encoder's embedding at the backbone's fusion points.

    Args:
        fusion: `concat`, `add`, `multiply` or `film`.
        points: `first`, `all`, or indices of fusion points.
        shared: one layer for all points.

    Raises:
        ConfigError: the model has no speaker encoder.
    """

    stage = "latent"

    def __init__(self, fusion: str = "film", points: Points = "all", shared: bool = False) -> None:
        super().__init__()
        self.operator, self.points, self.shared = fusion, points, shared

    def attach(self, backbone: Backbone, encoder: SpeakerEncoder | None) -> None:
        if encoder is None:
            raise ConfigError("cues: 'embedding' needs a speaker encoder; give the model a key 'speaker'")
        self.fusion = FusionPoints(
            self.operator,
            encoder.embedding_dim,
            backbone.latent_dim,
            backbone.fusion_axis,
            backbone.num_fusion_points,
            self.points,
            self.shared,
        )

    def prepare(self, enrollment: Enrollment) -> Prepared:
        return {"embedding": enrollment.speaker.embedding}

    def combine(self, prepared: Sequence[Prepared]) -> Prepared:
        return {"embedding": mean_embedding([one["embedding"] for one in prepared])}

    def steer_latent(self, point: int, latent: Tensor, prepared: Prepared) -> Tensor:
        return self.fusion(point, latent, prepared["embedding"])
