"""A recording of any length from file to file: read, extracted, joined and written block by block.

`LongExtraction` runs the network over the recording in one pass, with all voices, and stores each finished block on
disk (module `block_store`). Gain and presence of a voice are known when all blocks are done; only then the
stored blocks are scaled, resampled to the recording's rate and written. A killed run resumes after its last complete
block.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wesep_py import audio
from wesep_py.audio.media import chosen_track
from wesep_py.audio.reading import resample_blocks
from wesep_py.common.errors import AudioError, WesepError
from wesep_py.common.files import write_together
from wesep_py.inference.enrolling.speech_activity import remove_low_frequencies
from wesep_py.inference.inputs_outputs.output_files import READ_S, ExtractionTarget, write_voices
from wesep_py.inference.inputs_outputs.segment_files import SegmentFile
from wesep_py.inference.inputs_outputs.timeline import frame_energies
from wesep_py.inference.long_recordings.block_store import BlockStore, Record
from wesep_py.inference.long_recordings.blocks import BlockGrid, BlockOutput, Blocks
from wesep_py.inference.long_recordings.overlap_add import OverlapAddRunner
from wesep_py.inference.long_recordings.streaming import StreamingRunner, make_runner
from wesep_py.inference.presence_decision.presence import Presence, presence_of_channels
from wesep_py.inference.presence_decision.presence_verifier import VerifiedSignals, WindowCutter, active_windows
from wesep_py.inference.result import level_gain_from_sums

if TYPE_CHECKING:
    from wesep_py.inference.enrolling.voice_print import Voice
    from wesep_py.inference.extractor import Extractor

log = logging.getLogger(__name__)
Progress = Callable[[float, float], None]
"""Called with the seconds of the recording that are done, and those of them that this run computed."""


@dataclass(frozen=True)
class VoiceMeasurement:
    """Figures of a voice over all blocks, known before anything is written.

    Attributes:
        gain: brings the estimate to the level of the voice in the mixture.
        presence: output of the presence head; `None` without one.
        energies: `[frames]`, mean squares of the estimate at that level.
        mixture_energies: `[frames]` of the mixture.
        frame_s: seconds per frame.
        voice_changes_s: times at which a block may hold another voice than the block before, in seconds.
    """

    gain: float
    presence: Presence | None
    energies: NDArray[np.float32]
    mixture_energies: NDArray[np.float32]
    frame_s: float
    voice_changes_s: tuple[float, ...]


class LongExtraction:
    """Extraction of one or more voices from one recording, in one pass; a killed run resumes.

    Args:
        extractor: the model.
        mixture: a file of any length.
        targets: the voices and their files, one or more.
        blocks: lengths.
        shifts: as `Extractor.extract`.

    Raises:
        AudioError: the file is missing, damaged or not audio.
        InputError: another process is writing the same output; the network does not allow that number of shifts.

    >>> work = LongExtraction(                                                              # doctest: +SKIP
    ...     extractor, "meeting.wav", [ExtractionTarget("alice", voice, Path("a.wav"))]
    ... )
    >>> (alice,) = work.run()                                                               # doctest: +SKIP
    >>> work.write([alice.gain])                                                            # doctest: +SKIP
    >>> work.remove_blocks()                                                                # doctest: +SKIP
    """

    def __init__(
        self,
        extractor: Extractor,
        mixture: str | Path,
        targets: Sequence[ExtractionTarget],
        blocks: Blocks | None = None,
        shifts: int | None = None,
    ) -> None:
        self.extractor, self.mixture, self.targets = extractor, Path(mixture), list(targets)
        self.blocks, self.shifts = blocks or Blocks(), extractor.check_shifts(shifts)
        self.about = audio.info(self.mixture)
        self.grid = self.blocks.grid(extractor.sample_rate, extractor.network.backbone.stride)
        identity = extraction_identity(extractor, self.mixture, self.targets, self.grid, self.shifts)
        self.store = BlockStore(self.targets[0].output, identity)
        if self.store.discarded:
            differences = ", ".join(self.store.discarded)
            log.warning("%s: finished blocks of an earlier run differ in %s; started anew", self.mixture, differences)

    def run(self, progress: Progress = lambda done_s, computed_s: None) -> list[VoiceMeasurement]:
        """Extract all blocks that are not done yet, and return the figures of each voice.

        Raises:
            AudioError: the recording is damaged; all blocks are discarded.
            WesepError: the network returned samples that are not finite, or the disk is full.
        """
        try:
            self._extract(progress)
            return self._measure()
        except AudioError:
            self.store.restart()
            self.close()
            raise

    def announce(self, others: Sequence[Path]) -> None:
        """Note that all files are about to be written: a run that resumes a killed one may replace them."""
        outputs = [path for target in self.targets for path in (target.output, target.residual) if path is not None]
        self.store.announce([*others, *outputs])

    def retract(self) -> None:
        """Note that none of them exists: writing failed, and all were removed."""
        with suppress(WesepError):  # the disk may be full
            self.store.announce([])

    def write(
        self, gains: Sequence[float], overwrite: bool = False, segments: Sequence[Sequence[SegmentFile]] = ()
    ) -> None:
        """Write every voice times its gain (0 for silence), its residual, and its segments if there are files for them.

        The files appear, complete, when all of them are written; then call `remove_blocks`.

        Raises:
            OutputExistsError, InputError, WesepError: as `audio.AudioWriter`.
        """
        with write_together():
            write_voices(self.mixture, self.about, self.targets, self._blocks_at_file_rate, gains, overwrite, segments)

    def remove_blocks(self) -> None:
        """Remove the stored blocks, after the outputs have been written."""
        self.store.remove()

    def close(self) -> None:
        """Leave the stored blocks to a later run."""
        self.store.close()

    def _extract(self, progress: Progress) -> None:
        extractor, about = self.extractor, self.about
        voices = [target.voice for target in self.targets]
        runner = make_runner(extractor.network, extractor.device, voices, self.grid, about.num_channels, self.shifts)
        if self.store.count and self.store.last()["last"][0]:
            return
        rate = extractor.sample_rate
        done, computed = self._resume(runner), 0
        progress(done / rate, 0.0)

        def store(outputs: Iterator[BlockOutput]) -> None:
            nonlocal done, computed
            for output in outputs:
                if not np.isfinite(output.estimates).all():
                    raise WesepError(f"{self.mixture}: {extractor.name} returned samples that are not finite (NaN)")
                self.store.append(self._record(output), runner.state())
                done, computed = done + output.mixture.shape[1], computed + output.mixture.shape[1]
                progress(done / rate, computed / rate)

        # A resumed run reads the recording from its beginning too, so that the resampler, and the high-pass of a
        # streaming runner, reach the same state. The runner drops the samples of finished blocks.
        for block in self._mixture_blocks():
            store(runner.push(block))
        store(runner.finish())

    def _resume(self, runner: StreamingRunner | OverlapAddRunner) -> int:
        """Bring the runner behind the stored blocks; return the number of their samples, at the model's rate."""
        if not self.store.count:
            return 0
        last = self.store.last()
        if isinstance(runner, StreamingRunner):
            state = self.store.state()
            if state is None:
                self.store.restart()
                return 0
            runner.resume(self.store.count - 1, last["tail"], state)
        else:
            runner.resume(self.store.count - 1, last["tail"])
        log.info("%s: resumed after %d finished blocks", self.mixture, self.store.count)
        return sum(record["estimates"].shape[-1] for record in self.store.records())

    def _record(self, output: BlockOutput) -> Record:
        """Return what is stored of a block; `sums` and `energies` are those that gain and timeline need."""
        estimates = output.estimates.astype(np.float64)
        sums = [[float((estimate * output.mixture).sum()), float((estimate**2).sum())] for estimate in estimates]
        rate = self.extractor.sample_rate
        energies = [
            frame_energies(remove_low_frequencies(waveform, rate), self.grid.frame)
            for waveform in (output.mixture, *output.estimates)
        ]
        record: Record = {
            "estimates": output.estimates,
            "tail": output.tail,
            "sums": np.array(sums),
            "energies": np.stack(energies),
            "broken": np.array(output.voice_changed, dtype=np.uint8),
            "last": np.array([output.last], dtype=np.uint8),
        }
        return record if output.logits is None else record | {"logits": output.logits}

    def _measure(self) -> list[VoiceMeasurement]:
        rate = self.extractor.sample_rate
        sums = np.zeros((len(self.targets), 2))
        energies, logits, voice_changes, size = [], [], [], 0
        for record in self.store.records():
            sums += record["sums"]
            energies.append(record["energies"])
            if "logits" in record:
                logits.append(record["logits"])
            voice_changes += [(voice, size / rate) for voice, changed in enumerate(record["broken"]) if changed]
            size += record["estimates"].shape[-1]
        mixture_energies, *voice_energies = np.concatenate(energies, axis=1)
        tracks = np.concatenate(logits, axis=-1) if logits else None
        measurements, gains = [], []
        presences: list[Presence | None] = []
        for i, (product, energy) in enumerate(sums):
            num_samples = size * self.about.num_channels
            gain = level_gain_from_sums(product, energy, num_samples, self.extractor.network.level)
            presence = None
            if tracks is not None:
                presence = presence_of_channels(list(tracks[i]), self.grid.stride / rate, self.extractor.calibration)
            gains.append(gain)
            presences.append(presence)
        for i, presence in enumerate(self._verified(presences, gains)):
            gain = gains[i]
            measurements.append(
                VoiceMeasurement(
                    gain,
                    presence,
                    np.float32(gain**2) * voice_energies[i],
                    mixture_energies,
                    self.grid.frame / rate,
                    tuple(at_s for voice, at_s in voice_changes if voice == i),
                )
            )
        return measurements

    def _verified(self, presences: Sequence[Presence | None], gains: Sequence[float]) -> list[Presence | None]:
        """Return the output of the presence head for each voice, completed by the decision of the verifier.

        Only the windows that are verified are held in memory; the recording is read once more for those of the mixture.
        """
        extractor, rate = self.extractor, self.extractor.sample_rate
        verifier, completed = extractor.verifier, list(presences)
        embeddings = [extractor.verifier_embedding(target.voice) for target in self.targets]
        windows = [
            [] if presence is None or embedding is None else active_windows(presence, rate)
            for presence, embedding in zip(presences, embeddings, strict=True)
        ]
        if verifier is None or not any(windows):
            return completed
        channels = [0 if presence is None else presence.channel for presence in presences]
        estimates, mixtures = [WindowCutter(part) for part in windows], [WindowCutter(part) for part in windows]
        for record in self.store.records():
            for i, channel in enumerate(channels):
                estimates[i].push(record["estimates"][i, channel])
        for block in self._mixture_blocks():
            for i, channel in enumerate(channels):
                mixtures[i].push(block[channel])
        for i, (presence, embedding) in enumerate(zip(presences, embeddings, strict=True)):
            if presence is not None and embedding is not None:
                signals = VerifiedSignals(np.float32(gains[i]) * estimates[i].samples(), mixtures[i].samples())
                completed[i] = replace(presence, verification=verifier.verify(presence, embedding, signals))
        return completed

    def _mixture_blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the recording at the model's rate, `[channels, samples]`, from its beginning."""
        about = self.about
        blocks = audio.read_blocks(self.mixture, round(READ_S * about.sample_rate))
        return resample_blocks(blocks, about.sample_rate, self.extractor.sample_rate, about.num_channels)

    def _blocks_at_file_rate(self, voice: int, gain: float) -> Iterator[NDArray[np.float32]]:
        blocks = (record["estimates"][voice] * np.float32(gain) for record in self.store.records())
        rate = self.extractor.sample_rate
        yield from resample_blocks(blocks, rate, self.about.sample_rate, self.about.num_channels)


def extraction_identity(
    extractor: Extractor, mixture: Path, targets: Sequence[ExtractionTarget], grid: BlockGrid, shifts: int
) -> dict[str, Any]:
    """Return what the blocks of an extraction depend on; a run resumes blocks of the same identity only."""
    from wesep_py.checkpoint import versions

    stat = mixture.stat()
    installed = versions()
    return {
        "recording": {
            "path": str(mixture.resolve()),
            "bytes": stat.st_size,
            "modified_ns": stat.st_mtime_ns,
            "ends": hash_file_ends(mixture),
            **({"track": track} if (track := chosen_track()) else {}),
        },
        "model": extractor.model_hash,
        "voices": [hash_voice(target.voice) for target in targets],
        "blocks": [grid.step, grid.overlap, grid.fade, grid.stride],
        "shifts": shifts,
        "mode": extractor.mode,
        "versions": {name: installed[name] for name in ("wesep-py", "torch", "soxr")},
    }


def hash_voice(voice: Voice) -> str:
    """Return the SHA-256 of a voice: of its model's hash and its tensors."""
    digest = hashlib.sha256(voice.model_hash.encode())
    for key in sorted(voice.tensors):
        tensor = voice.tensors[key].detach().cpu().float().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def hash_file_ends(path: Path, size: int = 1 << 16) -> str:
    """Return the SHA-256 of the first and the last `size` bytes of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(size))
        file.seek(max(0, path.stat().st_size - size))
        digest.update(file.read(size))
    return digest.hexdigest()
