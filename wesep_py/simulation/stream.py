"""Mixtures drawn from a stream of shards: each from the speakers of the window that its position belongs to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from wesep_py.corpus import Reader, RoutedReader, Utterance, perturb_speed
from wesep_py.corpus.stream import StreamPool, Window
from wesep_py.errors import InputError
from wesep_py.simulation.broken import Broken
from wesep_py.simulation.config import SimulationConfig
from wesep_py.simulation.draw import Simulator
from wesep_py.simulation.on_device.draw import DryMixture, DrySimulator
from wesep_py.simulation.render import Sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WindowSimulator:
    """Makes a simulator of a window; what of the window cannot be used is named on the log.

    Args:
        config: how mixtures are drawn.
        noises: noise recordings, the same for all windows.
        reader: reads them.
        seed: of the run.
        speeds: every utterance is there at each of them.
        kind: what is made: `Simulator`, or `DrySimulator` for mixtures that a device renders.
        broken: the recordings that could not be read so far, in whatever window.
    """

    config: SimulationConfig
    noises: tuple[Utterance, ...]
    reader: Reader
    seed: int = 0
    speeds: tuple[float, ...] = (1.0,)
    kind: type[Simulator] = Simulator
    broken: Broken = field(default_factory=Broken)

    def __call__(self, window: Window) -> Simulator:
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
        simulator.broken = self.broken
        return simulator


class StreamSimulator:
    """Stands for a `Simulator` where speech is a stream: a mixture is a function of (seed, epoch, index).

    Args:
        shards: paths or URLs of tar files, in any order.
        build: makes the simulator of a window.
        epoch_size: mixtures in an epoch; the stream goes on from epoch to epoch, however many shards there are.
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
        """As `Simulator.sample`; the first of a window reads its shards.

        Raises:
            AudioError: a shard is missing, no tar file, or cut short.
            InputError: too few speakers, or as `Simulator.sample`.
        """
        return self.pool.at(epoch, index).sample(epoch, index)

    def dry(self, epoch: int, index: int) -> DryMixture:
        """As `DrySimulator.dry`, where `build` makes these."""
        simulator = self.pool.at(epoch, index)
        if not isinstance(simulator, DrySimulator):
            raise TypeError(f"windows give {type(simulator).__name__}; dry mixtures need DrySimulator")
        return simulator.dry(epoch, index)
