"""From a configuration whose `data.train` names tar files to mixtures that are drawn as these are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wesep_py.corpus import Utterance
from wesep_py.corpus.remote import is_url
from wesep_py.corpus.stores import locate, reader_of
from wesep_py.corpus.stream_names import is_stream, stream_shards
from wesep_py.errors import ConfigError, InputError
from wesep_py.simulation import Simulator
from wesep_py.simulation.on_device.draw import DrySimulator
from wesep_py.simulation.stream import StreamSimulator, WindowSimulator
from wesep_py.training.config import DataConfig, RunConfig

UNKNOWN_SPEAKER = -1


class UnknownSpeakers(dict[str, int]):
    """Labels of the speakers of a stream, who are not known before it is read: -1 for each."""

    def __missing__(self, speaker_id: str) -> int:
        return UNKNOWN_SPEAKER


def shards_of(data: DataConfig) -> list[str]:
    """The tar files that a configuration names as speech; none where it names manifests or stores.

    Raises:
        ConfigError: both are named, or the stream is to be packed or is there for lists of mixtures.
        InputError: a pattern that no file matches, or a tar file that is missing.
    """
    streams = [name for name in data.train if is_stream(name)]
    if not streams:
        return []
    if others := [name for name in data.train if not is_stream(name)]:
        raise ConfigError(f"data.train: names tar files and {others[0]}; name either, or index the tar files")
    if data.packed is not None:
        raise ConfigError("data.packed: is for recordings that are known, and data.train names tar files; remove it")
    if data.mixtures is not None:
        raise ConfigError("data.mixtures: finds voices by their names, and data.train names tar files; index them")
    shards = stream_shards(streams, data.root)
    if missing := next((shard for shard in shards if not is_url(shard) and not Path(shard).is_file()), None):
        raise InputError(f"{missing}: no such file; name the tar files of the stream")
    return shards


def count_no_speakers() -> int:
    """Stands for the count of a stream's speakers.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        "data.train: names tar files, whose speakers are not known before they are read, and something to be trained "
        "needs to know them; `wesep shard --index` makes an index"
    )


def make_stream(
    config: RunConfig, shards: Sequence[str], noises: Sequence[Utterance], sample_rate: int
) -> StreamSimulator:
    """What the mixtures of a run over a stream are drawn by."""
    data = config.data
    reader = reader_of([locate(name, data.root) for name in data.noise], sample_rate)
    kind = DrySimulator if data.render == "device" else Simulator
    build = WindowSimulator(config.simulation, tuple(noises), reader, config.seed, tuple(data.speeds), kind)
    stream = data.stream
    return StreamSimulator(
        shards,
        build,
        config.train.epoch_size,
        min_speakers=stream.min_speakers,
        mixtures_per_window=stream.mixtures_per_window,
        shards_per_window=stream.shards_per_window,
        lanes=stream.lanes,
        block=stream.block,
        cache_mib=stream.cache_mib,
    )
