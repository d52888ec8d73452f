"""How a stream of shards is read."""

from __future__ import annotations

from dataclasses import dataclass, fields

from wesep_py.training.config.ranges import at_least


@dataclass(frozen=True)
class StreamConfig:
    """How tar files without an index are read; all of it decides which mixtures are drawn.

    A window is a few whole shards in memory; mixtures are drawn from the utterances of one window. Where `lanes` is a
    multiple of ranks times workers, and `block` is the batch size of a rank, each worker reads shards of its own.

    Args:
        min_speakers: in each window, at least so many; where its own shards have fewer, more are read.
        mixtures_per_window: mixtures that one window serves.
        shards_per_window: at least 1.
        lanes: windows in use at a time over all processes.
        block: neighbouring mixtures that share a window.
        cache_mib: decoded audio that is kept for a window, in MiB.
    """

    min_speakers: int = 20
    mixtures_per_window: int = 1000
    shards_per_window: int = 1
    lanes: int = 8
    block: int = 8
    cache_mib: int = 64

    def __post_init__(self) -> None:
        at_least(1, {field.name: getattr(self, field.name) for field in fields(self)})
