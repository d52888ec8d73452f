"""What is learned from: recordings, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wesep_py.corpus.stream_names import is_stream
from wesep_py.training.config.mixtures import MixturesConfig
from wesep_py.training.config.ranges import at_least
from wesep_py.training.config.stream import StreamConfig


@dataclass(frozen=True)
class DataConfig:
    """Which recordings are mixed, and how they are read.

    Args:
        root: the folder that the paths of `train` and `noise`, and those inside the manifests, are relative to.
        train: manifests (`.jsonl`) or CSV files of speech, folders of shards, LMDB files; or tar files that have no
            index, `shards/{000..127}.tar`; with `mixtures` what introduces the voices, if any.
        noise: manifests, or folders of recordings, of noise; may be empty.
        packed: a folder for one int16 memory map of all recordings, made on the first run (fast reading);
            none reads the files themselves.
        workers: processes that simulate mixtures; 0 simulates between the steps.
        prefetch: batches that each worker keeps ready.
        embeddings: of voices, computed before, for a cue `embedding` with an `embedding_dim`: a folder of `.npy`, a
            Kaldi `.scp` or `.ark`, by utterance or by speaker, relative to `root` (`corpus.embeddings`).
        speeds: every recording of `train` is there at each of these speeds; at another than 1, its speaker is another
            one (`corpus.perturb_speed`).
        mixtures: lists of mixtures to learn from as they are; none: mixtures are drawn, as `simulation` says.
        render: where mixtures are convolved, brought to their levels and added: by the `workers`, one after the other,
            or in batch on the `device` that trains, while the workers only draw and read. The mixtures are the same,
            to 1e-5 of their peak.
        stream: how tar files without an index are read.
    """

    root: str
    train: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    packed: str | None = None
    embeddings: str | None = None
    workers: int = 1
    prefetch: int = 4
    speeds: list[float] = field(default_factory=lambda: [1.0])
    mixtures: MixturesConfig | None = None
    render: Literal["workers", "device"] = "workers"
    stream: StreamConfig = field(default_factory=StreamConfig)

    def __post_init__(self) -> None:
        if self.mixtures is None:
            at_least(1, {"train": len(self.train)}, "name at least one manifest")
        at_least(0, {"workers": self.workers})
        at_least(1, {"prefetch": self.prefetch})
        if self.render == "device" and self.mixtures is not None:
            raise ValueError("render: is 'device', which is for mixtures that are drawn; with mixtures use 'workers'")
        if self.embeddings is not None and self.render == "device":
            raise ValueError("embeddings: are read by the workers that render a mixture; with them, render: 'workers'")
        if self.embeddings is not None and any(is_stream(name) for name in self.train):
            raise ValueError("embeddings: are of utterances that are known, and train names tar files; index these")

    @property
    def sources(self) -> list[str]:
        """The names of all that is learned from."""
        lists = self.mixtures.lists if self.mixtures else []
        return [*self.train, *lists, *([self.embeddings] if self.embeddings else [])]
