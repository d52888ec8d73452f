"""From the configuration's `data` to a reader of its recordings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from wesep_py.corpus import PackedReader, Reader, Utterance, pack
from wesep_py.corpus.stores import locate, reader_of
from wesep_py.training.config import DataConfig


def make_reader(
    config: DataConfig,
    recordings: list[Utterance],
    sample_rate: int,
    may_pack: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> Reader:
    """A reader of the recordings: of the memory map `data.packed`, made if it is not there, or of the files.

    Args:
        config: the `data` of the configuration.
        recordings: all that will be read.
        sample_rate: of the model, in Hz.
        may_pack: whether this process makes the memory map (one process of a run does, the others wait).
        on_progress: called with the number of recordings packed, and of all.
    """
    if config.packed is None:
        return reader_of([locate(name, config.root) for name in (*config.train, *config.noise)], sample_rate)
    if may_pack:
        Path(config.packed).parent.mkdir(parents=True, exist_ok=True)
        pack(recordings, config.packed, sample_rate, os.cpu_count() or 1, on_progress)
    return PackedReader(config.packed)
