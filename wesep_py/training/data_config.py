"""Configuration of a training's data: what mixtures are made of, and what validates the run.

| key of the YAML | class |
| --- | --- |
| `data` | `DataConfig` |
| `data.mixtures`, `data.stream` | `MixturesConfig`, `StreamConfig` |
| `validation` with `task: extraction` | `ValidationConfig` |
| `validation` with `task: speaker` | `VerificationConfig` |
| `validation` with `task: presence` | `PresenceValidationConfig` |

The other keys are in `wesep_py.training.training_config`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from wesep_py.common.config import at_least
from wesep_py.data.shard_stream import is_stream


@dataclass(frozen=True)
class MixturesConfig:
    """Lists of mixtures in LibriMix's form, used instead of mixtures drawn by `simulation`.

    Of `simulation`, only `duration_s` (mixtures are cut to it, anew in each epoch), `enrollment` and `peak` apply then.
    A speaker is enrolled from the recordings of `data.train`, or, if there are none, from the other mixtures, but never
    from the mixture itself.

    Args:
        lists: rendered trees, or metadata CSVs of what to mix or of what was rendered; data folders of WeSep or ESPnet
            (with `wav.scp`); `raw.list` or `shard.list` of WeSep, or tar files, of fixed mixtures; relative to
            `data.root`.
        condition: `clean`, or `noisy` with the mixtures' noise.
        root: folder that relative paths in CSVs start from, relative to `data.root`; `None`: the folder of each CSV.
        noise_root: the same for noise; `None`: `root`.
    """

    lists: list[str]
    condition: Literal["clean", "noisy"] = "clean"
    root: str | None = None
    noise_root: str | None = None

    def __post_init__(self) -> None:
        at_least(1, {"lists": len(self.lists)}, "name at least one list of mixtures, or leave data.mixtures out")


@dataclass(frozen=True)
class StreamConfig:
    """Reading of tar files without an index. Every key changes which mixtures are drawn.

    A window is a few whole shards in memory; a mixture is drawn from the utterances of one window. If `lanes` is a
    multiple of ranks times workers, and `block` is the batch size of a rank, each worker reads its own shards.

    Args:
        min_speakers: minimum number of speakers in a window; if its own shards have fewer, more shards are read.
        mixtures_per_window: number of mixtures drawn from a window.
        shards_per_window: number of shards in a window, at least 1.
        lanes: number of windows in use at a time over all processes.
        block: number of neighbouring mixtures that share a window.
        cache_mib: decoded audio that is cached for a window, in MiB.
    """

    min_speakers: int = 20
    mixtures_per_window: int = 1000
    shards_per_window: int = 1
    lanes: int = 8
    block: int = 8
    cache_mib: int = 64

    def __post_init__(self) -> None:
        at_least(1, {field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True)
class DataConfig:
    """Recordings that mixtures are made of, and how they are read.

    Args:
        root: folder that the paths of `train` and `noise`, and those inside the manifests, are relative to.
        train: manifests (`.jsonl`) or CSV files of speech, folders of shards, LMDB files; data folders with `wav.scp`
            and `utt2spk`, `raw.list` or `spk2enroll.json` of WeSep; or tar files without an index,
            `shards/{000..127}.tar` or a `shard.list`; with `mixtures`, the recordings that speakers are enrolled from,
            if any.
        noise: manifests, folders of recordings, or LMDB files (WeSep's too), of noise; may be empty.
        packed: folder for an int16 memory map of all recordings, created by the first run (fast reading); `None`: the
            files themselves are read.
        workers: number of processes that simulate mixtures; 0: the training process simulates between the steps.
        prefetch: number of batches that each worker prepares in advance.
        embeddings: precomputed embeddings for a cue `embedding` with an `embedding_dim`: a folder of `.npy`, a Kaldi
            `.scp` or `.ark`, by utterance or by speaker, relative to `root` (`wesep_py.data.embedding_files`).
        speeds: each recording of `train` is used at each of these speeds; at a speed other than 1 its speaker counts as
            another speaker (`wesep_py.data.perturb_speed`).
        mixtures: lists of mixtures to learn from; `None`: mixtures are drawn by `simulation`.
        render: where mixtures are convolved, scaled and added: by the `workers`, one after the other, or in batches on
            the training `device`, while the workers only draw and read. The mixtures are the same, to 1e-5 of their
            peak.
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
        if self.embeddings is not None and any(is_stream(name, self.root) for name in self.train):
            raise ValueError("embeddings: are of utterances that are known, and train names tar files; index these")

    @property
    def sources(self) -> list[str]:
        """Names of all sources of training data."""
        lists = self.mixtures.lists if self.mixtures else []
        return [*self.train, *lists, *([self.embeddings] if self.embeddings else [])]


@dataclass(frozen=True)
class ValidationConfig:
    """A fixed list of trials that is extracted and scored at regular steps.

    Args:
        trials: metadata CSV, relative to `root`, or a path.
        enrollment: its `map_mixture2enrollment`, likewise.
        root: folder that the paths in both are relative to; `None`: `data.root`.
        embeddings: of the trials' enrollments, likewise; `None`: those of `data.embeddings`, if there are any.
        condition: `clean`, or `noisy` with the trials' noise.
        limit: maximum number of trials, evenly spaced over the list; `None`: all.
        every_steps: interval in steps; the end of the run is always validated.
        live: whether the live mode of the network is validated.
    """

    trials: str
    enrollment: str
    root: str | None = None
    embeddings: str | None = None
    condition: Literal["clean", "noisy"] = "clean"
    limit: int | None = 50
    every_steps: int = 5000
    live: bool = False

    def __post_init__(self) -> None:
        at_least(1, {"every_steps": self.every_steps})
        if self.limit is not None:
            at_least(1, {"limit": self.limit})


@dataclass(frozen=True)
class VerificationConfig:
    """Speaker verification as validation: each pair of a manifest's utterances is a trial.

    Args:
        manifest: `.jsonl` or CSV of speech, relative to `root`, of other speakers than those of `data.train`.
        root: folder that its paths are relative to; `None`: `data.root`.
        limit: maximum number of utterances, evenly spaced over the manifest; `None`: all.
        every_steps: interval in steps; the end of the run is always validated.
    """

    manifest: str
    root: str | None = None
    limit: int | None = 250
    every_steps: int = 1000

    def __post_init__(self) -> None:
        at_least(1, {"every_steps": self.every_steps})
        if self.limit is not None:
            at_least(2, {"limit": self.limit})


@dataclass(frozen=True)
class PresenceValidationConfig:
    """Mixtures of other speakers, drawn by the run's simulation (without rooms), as validation of a personal VAD.

    Args:
        speech: manifests of speech, relative to `data.root`, of other speakers than those of `data.train`.
        noise: noise recordings, likewise.
        count: number of mixtures.
        every_steps: interval in steps; the end of the run is always validated.
    """

    speech: list[str]
    noise: list[str] = field(default_factory=list)
    count: int = 40
    every_steps: int = 500

    def __post_init__(self) -> None:
        at_least(1, {"every_steps": self.every_steps, "count": self.count})
