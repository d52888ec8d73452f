"""What is learned from: recordings, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from wesep_py.training.config.ranges import at_least


@dataclass(frozen=True)
class DataConfig:
    """Which recordings are mixed, and how they are read.

    Args:
        root: the folder that the paths of `train` and `noise`, and those inside the manifests, are relative to.
        train: manifests (`.jsonl`) or CSV files of speech.
        noise: manifests, or folders of recordings, of noise; may be empty.
        packed: a folder for one int16 memory map of all recordings, made on the first run (fast reading);
            none reads the files themselves.
        workers: processes that simulate mixtures; 0 simulates between the steps.
        prefetch: batches that each worker keeps ready.
        speeds: every recording of `train` is there at each of these speeds; at another than 1, its speaker is another
            one (`corpus.perturb_speed`).
    """

    root: str
    train: list[str]
    noise: list[str] = field(default_factory=list)
    packed: str | None = None
    workers: int = 1
    prefetch: int = 4
    speeds: list[float] = field(default_factory=lambda: [1.0])

    def __post_init__(self) -> None:
        at_least(1, {"train": len(self.train)}, "name at least one manifest")
        at_least(0, {"workers": self.workers})
        at_least(1, {"prefetch": self.prefetch})
