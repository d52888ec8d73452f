"""By what a run is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wesep_py.training.config.ranges import at_least


@dataclass(frozen=True)
class ValidationConfig:
    """A fixed list of trials, extracted and scored now and then.

    Args:
        trials: metadata CSV, relative to `root`, or as it stands.
        enrollment: the `map_mixture2enrollment` that goes with it, likewise.
        root: the folder that the paths in both are relative to; none: `data.root`.
        embeddings: of the trials' enrollments, found likewise; none: they are in `data.embeddings`, if there are any.
        condition: `clean`, or `noisy` with the trials' noise.
        limit: so many trials, spread evenly over the list; none: all of them.
        every_steps: how often; at the end always.
    """

    trials: str
    enrollment: str
    root: str | None = None
    embeddings: str | None = None
    condition: Literal["clean", "noisy"] = "clean"
    limit: int | None = 50
    every_steps: int = 5000

    def __post_init__(self) -> None:
        at_least(1, {"every_steps": self.every_steps})
        if self.limit is not None:
            at_least(1, {"limit": self.limit})


@dataclass(frozen=True)
class VerificationConfig:
    """Speaker verification as validation: every pair of a manifest's utterances is a trial.

    Args:
        manifest: `.jsonl` or CSV of speech, relative to `root`; of other speakers than those of `data.train`.
        root: the folder its paths are relative to; none: `data.root`.
        limit: so many utterances, spread evenly over the manifest; none: all of them.
        every_steps: how often; at the end always.
    """

    manifest: str
    root: str | None = None
    limit: int | None = 250
    every_steps: int = 1000

    def __post_init__(self) -> None:
        at_least(1, {"every_steps": self.every_steps})
        if self.limit is not None:
            at_least(2, {"limit": self.limit})
