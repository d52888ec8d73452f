"""A recording of any length from file to file: read, extracted, joined and written block by block."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.reading import resample_blocks
from wesep_py.common.errors import AudioError, WesepError
from wesep_py.common.files import write_together
from wesep_py.inference.output_files import READ_S, BlockStore, Record, ExtractionTarget, write_voices
from wesep_py.inference.overlap_add import Blocks, BlockGrid, OverlapAddRunner, BlockOutput
from wesep_py.inference.presence import Presence, presence_of_channels
from wesep_py.inference.result import level_gain_from_sums
from wesep_py.inference.speech_activity import audible
from wesep_py.inference.streaming import StreamingRunner, make_runner
from wesep_py.inference.timeline import frame_energies

if TYPE_CHECKING:
    from wesep_py.inference.extractor import Extractor
    from wesep_py.inference.voice_print import Voice


# ----------------------------------------
# What tells one voice, and one recording, from another: hashes.


def voice_hash(voice: Voice) -> str:
    """SHA-256 of what a model keeps of a voice."""
    digest = hashlib.sha256(voice.model_hash.encode())
    for key in sorted(voice.tensors):
        tensor = voice.tensors[key].detach().cpu().float().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def hash_file_ends(path: Path, size: int = 1 << 16) -> str:
    """SHA-256 of the first and the last bytes of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(size))
        file.seek(max(0, path.stat().st_size - size))
        digest.update(file.read(size))
    return digest.hexdigest()


log = logging.getLogger(__name__)
Progress = Callable[[float, float], None]
"""Called with the seconds of the recording that are done, and that this run did itself."""


@dataclass(frozen=True)
class VoiceMeasurement:
    """What is known of a voice when all blocks are done, before anything is written.

    Attributes:
        gain: that brings the estimate to the level in the mixture.
        presence: what the presence head says; `None` without one.
        energies: `[frames]`, mean squares of the estimate at that level.
        mixture_energies: `[frames]` of the mixture.
        frame_s: seconds of such a frame.
        breaks_s: where the voice of a block did not go on in the next, in seconds.
    """

    gain: float
    presence: Presence | None
    energies: NDArray[np.float32]
    mixture_energies: NDArray[np.float32]
    frame_s: float
    breaks_s: tuple[float, ...]


class LongExtraction:
    """One recording, one or more voices, in one pass over the recording; a killed run goes on.

    Args:
        extractor: the model.
        mixture: a file of any length.
        wanted: one or more.
        blocks: lengths.

    Raises:
        AudioError: the file is missing, damaged or no audio.
        InputError: another process is at the same output.

    >>> work = LongExtraction(extractor, "meeting.wav", [Wanted("alice", voice, Path("a.wav"))])    # doctest: +SKIP
    >>> (alice,) = work.run()                                                                       # doctest: +SKIP
    >>> work.write([alice.gain])                                                                    # doctest: +SKIP
    >>> work.forget()                                                                               # doctest: +SKIP
    """

    def __init__(
        self,
        extractor: Extractor,
        mixture: str | Path,
        wanted: Sequence[ExtractionTarget],
        blocks: Blocks | None = None,
    ) -> None:
        self.extractor, self.mixture, self.wanted = extractor, Path(mixture), list(wanted)
        self.blocks = blocks or Blocks()
        self.about = audio.info(self.mixture)
        network = extractor.network
        self.grid = self.blocks.grid(extractor.sample_rate, network.backbone.stride)
        identity = extraction_identity(extractor, self.mixture, self.wanted, self.grid)
        self.partial = BlockStore(self.wanted[0].output, identity)
        if self.partial.discarded:
            log.warning(
                "%s: what was done of it differs in %s; begun anew",
                self.mixture,
                ", ".join(self.partial.discarded),
            )

    def run(self, progress: Progress = lambda done_s, own_s: None) -> list[VoiceMeasurement]:
        """Extract all blocks that are not done yet; what is known of each voice then.

        Raises:
            AudioError: the recording is damaged; nothing is kept of it.
            WesepError: the network returned samples that are not finite, or the disk is full.
        """
        try:
            self._extract(progress)
            return self._measure()
        except AudioError:
            self.partial.restart()
            self.close()
            raise

    def announce(self, timelines: Sequence[Path]) -> None:
        """Note that all files are about to be written: a run that goes on from a killed one may replace them."""
        outputs = [path for one in self.wanted for path in (one.output, one.rest) if path is not None]
        self.partial.announce([*timelines, *outputs])

    def retract(self) -> None:
        """Note that none of them is there: writing failed, and all were taken back."""
        with suppress(WesepError):  # the disk may be full
            self.partial.announce([])

    def write(self, gains: Sequence[float], overwrite: bool = False) -> None:
        """Write every voice times its gain (0 for silence), and its rest.

        The files appear, whole, when all of them are written; then call `forget`.

        Raises:
            OutputExistsError, InputError, WesepError: as `audio.AudioWriter`.
        """
        with write_together():
            write_voices(self.mixture, self.about, self.wanted, self._at_file_rate, gains, overwrite)

    def forget(self) -> None:
        """Remove the blocks: what they are for is written."""
        self.partial.remove()

    def close(self) -> None:
        """Leave the blocks to a later run."""
        self.partial.close()

    def _extract(self, progress: Progress) -> None:
        extractor, about = self.extractor, self.about
        voices = [one.voice for one in self.wanted]
        runner = make_runner(extractor.network, extractor.device, voices, self.grid, about.num_channels)
        if self.partial.count and self.partial.last()["last"][0]:
            return
        rate, done, own = extractor.sample_rate, self._resume(runner), 0
        progress(done / rate, 0.0)

        def keep(pieces: Iterator[BlockOutput]) -> None:
            nonlocal done, own
            for piece in pieces:
                if not np.isfinite(piece.estimates).all():
                    raise WesepError(f"{self.mixture}: {extractor.name} returned samples that are not finite (NaN)")
                self.partial.append(self._record(piece), runner.state())
                done, own = done + piece.mixture.shape[1], own + piece.mixture.shape[1]
                progress(done / rate, own / rate)

        blocks = audio.read_blocks(self.mixture, round(READ_S * about.sample_rate))
        for block in resample_blocks(blocks, about.sample_rate, rate, about.num_channels):
            keep(runner.push(block))
        keep(runner.finish())

    def _resume(self, runner: StreamingRunner | OverlapAddRunner) -> int:
        """Samples at the model's rate that an earlier run did."""
        if not self.partial.count:
            return 0
        last = self.partial.last()
        if isinstance(runner, StreamingRunner):
            state = self.partial.state()
            if state is None:
                self.partial.restart()
                return 0
            runner.resume(self.partial.count - 1, last["tail"], state)
        else:
            runner.resume(self.partial.count - 1, last["tail"])
        log.info("%s: %d blocks are done already", self.mixture, self.partial.count)
        return sum(record["estimates"].shape[-1] for record in self.partial.records())

    def _record(self, piece: BlockOutput) -> Record:
        estimates = piece.estimates.astype(np.float64)
        sums = [[float((one * piece.mixture).sum()), float((one**2).sum())] for one in estimates]
        heard = (audible(one, self.extractor.sample_rate) for one in (piece.mixture, *piece.estimates))
        energies = [frame_energies(one, self.grid.frame) for one in heard]
        record: Record = {
            "estimates": piece.estimates,
            "tail": piece.tail,
            "sums": np.array(sums),
            "energies": np.stack(energies),
            "broken": np.array(piece.broken, dtype=np.uint8),
            "last": np.array([piece.last], dtype=np.uint8),
        }
        return record if piece.logits is None else record | {"logits": piece.logits}

    def _measure(self) -> list[VoiceMeasurement]:
        sums = np.zeros((len(self.wanted), 2))
        energies, logits, breaks, size = [], [], [], 0
        for record in self.partial.records():
            sums += record["sums"]
            energies.append(record["energies"])
            if "logits" in record:
                logits.append(record["logits"])
            at_s = size / self.extractor.sample_rate
            breaks += [(i, at_s) for i, broken in enumerate(record["broken"]) if broken]
            size += record["estimates"].shape[-1]
        frames = np.concatenate(energies, axis=1)
        tracks = np.concatenate(logits, axis=-1) if logits else None
        rate, stride = self.extractor.sample_rate, self.grid.stride
        measured = []
        for i, (product, energy) in enumerate(sums):
            gain = level_gain_from_sums(product, energy, size * self.about.num_channels, self.extractor.network.level)
            presence = None
            if tracks is not None:
                presence = presence_of_channels(list(tracks[i]), stride / rate, self.extractor.calibration)
            measured.append(
                VoiceMeasurement(
                    gain,
                    presence,
                    np.float32(gain**2) * frames[1 + i],
                    frames[0],
                    self.grid.frame / rate,
                    tuple(at_s for voice, at_s in breaks if voice == i),
                )
            )
        return measured

    def _at_file_rate(self, voice: int, gain: float) -> Iterator[NDArray[np.float32]]:
        blocks = (record["estimates"][voice] * np.float32(gain) for record in self.partial.records())
        rate = self.extractor.sample_rate
        yield from resample_blocks(blocks, rate, self.about.sample_rate, self.about.num_channels)


def extraction_identity(
    extractor: Extractor, mixture: Path, wanted: Sequence[ExtractionTarget], grid: BlockGrid
) -> dict[str, Any]:
    """What the blocks of a job depend on: by this a run that was killed is known again."""
    from wesep_py.checkpoint import versions

    stat = mixture.stat()
    found = versions()
    return {
        "recording": {
            "path": str(mixture.resolve()),
            "bytes": stat.st_size,
            "modified_ns": stat.st_mtime_ns,
            "ends": hash_file_ends(mixture),
        },
        "model": extractor.model_hash,
        "voices": [voice_hash(one.voice) for one in wanted],
        "blocks": [grid.step, grid.overlap, grid.fade, grid.stride],
        "versions": {name: found[name] for name in ("wesep-py", "torch", "soxr")},
    }
