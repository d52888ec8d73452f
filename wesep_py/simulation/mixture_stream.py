"""Mixtures drawn from a stream of shards: each from the speakers of one window of shards.

The window of a mixture is a function of the seed and the position of the mixture in the run (`data.shard_stream`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from wesep_py.common.errors import InputError
from wesep_py.data import Reader, RoutedReader, Utterance, perturb_speed
from wesep_py.data.shard_stream import StreamPool, StreamWindow
from wesep_py.simulation.description.simulation_config import SimulationConfig
from wesep_py.simulation.dry_batch import DryMixture, DrySimulator
from wesep_py.simulation.rendering import Sample
from wesep_py.simulation.simulator import Simulator, UnreadableFiles

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WindowSimulator:
    """Makes the simulator of a window; utterances of the window that cannot be used are named in the log.

    Args:
        config: ranges and weights of the mixtures.
        noises: noise recordings, the same for all windows.
        reader: reads the noise recordings.
        seed: seed of the run.
        speeds: every utterance is used at each of these speeds.
        kind: class of the simulators: `Simulator`, or `DrySimulator` for mixtures that a device renders.
        unreadable_files: the recordings that could not be read until now, in all windows.
    """

    config: SimulationConfig
    noises: tuple[Utterance, ...]
    reader: Reader
    seed: int = 0
    speeds: tuple[float, ...] = (1.0,)
    kind: type[Simulator] = Simulator
    unreadable_files: UnreadableFiles = field(default_factory=UnreadableFiles)

    def __call__(self, window: StreamWindow) -> Simulator:
        if window.left_out:
            logger.warning(
                "%s and what follows: %d utterances are left out, the first: %s",
                window.shards[0],
                len(window.left_out),
                window.left_out[0],
            )
        speech = perturb_speed(window.utterances, self.speeds)
        reader = RoutedReader([window.reader], self.reader)
        try:
            simulator = self.kind(self.config, speech, self.noises, reader, self.seed)
        except InputError as error:
            raise InputError(
                f"{window.shards[0]} and what follows: {error}; or raise the stream's min_speakers or shards_per_window"
            ) from error
        simulator.unreadable_files = self.unreadable_files
        return simulator


class StreamSimulator:
    """Replaces a `Simulator` if speech is a stream: a mixture is a function of (seed, epoch, index).

    Args:
        shards: paths or URLs of tar files, in any order.
        build: makes the simulator of a window.
        epoch_size: mixtures in an epoch; the stream continues from epoch to epoch, whatever the number of shards.
        windows: further arguments of `StreamPool`.

    Raises:
        InputError: as `StreamPool`.

    >>> build = WindowSimulator(SimulationConfig(), (), FileReader(16000))         # doctest: +SKIP
    >>> StreamSimulator(["a.tar", "b.tar"], build, epoch_size=1000).sample(0, 5)   # doctest: +SKIP
    """

    def __init__(self, shards: Sequence[str], build: WindowSimulator, epoch_size: int, **windows: int) -> None:
        self.sample_rate = build.reader.sample_rate
        self.pool = StreamPool(shards, build, self.sample_rate, epoch_size, build.seed, **windows)

    def sample(self, epoch: int, index: int) -> Sample:
        """Draw and render a mixture, as `Simulator.sample`; the first mixture of a window reads its shards.

        Raises:
            AudioError: a shard is missing, no tar file, or cut short.
            InputError: too few speakers, or as `Simulator.sample`.
        """
        return self.pool.at(epoch, index).sample(epoch, index)

    def dry(self, epoch: int, index: int) -> DryMixture:
        """Draw and read a mixture, as `DrySimulator.dry`; `build` must make `DrySimulator`s."""
        simulator = self.pool.at(epoch, index)
        if not isinstance(simulator, DrySimulator):
            raise TypeError(f"windows give {type(simulator).__name__}; dry mixtures need DrySimulator")
        return simulator.dry(epoch, index)
