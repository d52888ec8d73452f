"""Mixtures that are learned from as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wesep_py.training.config.ranges import at_least


@dataclass(frozen=True)
class MixturesConfig:
    """Lists of mixtures in LibriMix's form, instead of mixtures drawn as `simulation` says.

    Of `simulation` then only `duration_s` (mixtures are cut to it, anew in every epoch), `enrollment` and `peak` apply.
    A voice is introduced by the recordings of `data.train`, or, where these are none, by what it says in the other
    mixtures; never by what it says in the mixture itself.

    Args:
        lists: rendered trees, or metadata CSVs of what to mix or of what was rendered; relative to `data.root`.
        condition: `clean`, or `noisy` with the mixtures' noise.
        root: the folder that relative paths in CSVs start from, relative to `data.root`; none: each CSV's own.
        noise_root: the same for noise; none: `root`.
    """

    lists: list[str]
    condition: Literal["clean", "noisy"] = "clean"
    root: str | None = None
    noise_root: str | None = None

    def __post_init__(self) -> None:
        at_least(1, {"lists": len(self.lists)}, "name at least one list of mixtures, or leave data.mixtures out")
