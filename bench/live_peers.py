"""Compare live target speaker extraction with other packages, on the same recordings, in three steps.

    python bench/live_peers.py prepare --trials DATA/trials/dev_ls_2mix.csv \\
        --enrollment DATA/trials/dev_ls_2mix.map_mixture2enrollment --root DATA --limit 50 -o PEERS
    python bench/live_peers.py run --system wesep [--model MODEL] PEERS -o OUT
    wesep score --reference PEERS/s --estimate OUT --mixture PEERS/mix --interferers PEERS/other -o RESULTS

`prepare` renders mixtures (mix), targets (s), interferers (other, other2, …) and enrollments (enroll) as wav files, and
writes the chosen lines of the map (trials.map) for `wesep evaluate`. The trials are at equal distances in the list.
`run` streams each mixture block by block through the public class of a package. It needs NumPy, soundfile and that
package, so it runs with the Python of an environment that has nothing else. Results: bench/live_peers.md.

What a package returns may lag behind what it got by a constant number of samples, its shift. `run` measures the shift
that gives the best mean SI-SDR within 50 ms of the documented one, and removes it. So no package scores worse because
its shift is documented wrongly or not at all.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
RATE = 16000
"""Sample rate of all recordings in Hz: the one that all these packages work at."""
SEARCH = RATE // 20
"""How many samples the measured shift may differ from the documented one: 50 ms."""


class System(Protocol):
    """A package that extracts a voice from a live signal of 16 kHz.

    Attributes:
        package: name and version.
        block: number of samples of the blocks that it gets.
        shift: sample n of all that it returns belongs to sample n − shift of the mixture, as far as is documented.
    """

    package: str
    block: int
    shift: int

    def start(self, enrollment: Waveform) -> None:
        """Begin a recording."""

    def process(self, samples: Waveform) -> Waveform:
        """Take the next block, the last of which may be shorter; return what is finished."""

    def finish(self) -> Waveform:
        """End the recording; return the samples that are left."""


class WesepSystem:
    """`Extractor.stream` of this package, in blocks of one hop."""

    shift = 0

    def __init__(self, model: str | None = None) -> None:
        import torch

        import wesep_py

        torch.set_num_threads(1)
        extractor = wesep_py.load(model, "cpu")
        self._use(extractor, extractor.network.backbone.stride, "torch")

    def _use(self, extractor: Any, stride: int, library: str) -> None:
        if extractor.sample_rate != RATE:
            raise SystemExit(f"{extractor.name}: works at {extractor.sample_rate} Hz; {RATE} Hz is needed")
        model = f"model {extractor.model_hash[:12]}, {library}"
        self.package = f"wesep-py {metadata.version('wesep-py')}, {model}"
        self.extractor, self.block = extractor, stride

    def start(self, enrollment: Waveform) -> None:
        self.stream = self.extractor.stream(self.extractor.enroll((enrollment, RATE)))

    def process(self, samples: Waveform) -> Waveform:
        return self.stream.process(samples)

    def finish(self) -> Waveform:
        return self.stream.flush()


class WesepRuntimeSystem(WesepSystem):
    """The same without torch: a model that was exported with `wesep export MODEL --stream`."""

    def __init__(self, model: str | None = None) -> None:
        from wesep_py import runtime

        if model is None:
            raise SystemExit("--model: name the folder that `wesep export MODEL --stream` wrote")
        extractor = runtime.load(model, threads=1)
        self._use(extractor, extractor.folder.stride, "onnxruntime")


class SpeakerBeamSystem:
    """`OnnxSpeakerBeamExtractor` of livekit-plugins-speakerbeamss, which collects chunks of 1 s.

    Its `append` drops samples where a block does not end with a chunk, for the caller to pass them on unprocessed; with
    blocks of 10 ms each chunk ends with a block.
    """

    shift, block = 0, 160

    def __init__(self, model: str | None = None) -> None:
        one_thread()
        from livekit.plugins import speakerbeamss

        self.package = f"livekit-plugins-speakerbeamss {metadata.version('livekit-plugins-speakerbeamss')}"
        self.extractor = speakerbeamss.OnnxSpeakerBeamExtractor()

    def start(self, enrollment: Waveform) -> None:
        self.extractor.lock_enrollment(enrollment)

    def process(self, samples: Waveform) -> Waveform:
        chunks, _ = self.extractor.append(samples)
        return joined(chunks)

    def finish(self) -> Waveform:
        return joined(self.extractor.flush())


class VoiceFilterSystem:
    """`StreamingVoiceFilter` of open-voicefilter-lite, in blocks of one hop.

    It documents no shift. Its newest frame begins `n_fft` samples before the end of the newest block, and it returns
    the first hop of that frame, to which no later frame adds: n_fft − hop_length samples behind.
    """

    def __init__(self, model: str | None = None) -> None:
        one_thread()
        from voicefilter_lite import StreamingVoiceFilter

        self.package = f"open-voicefilter-lite {metadata.version('open-voicefilter-lite')}"
        self.filter = StreamingVoiceFilter()
        self.block = self.filter.hop_length
        self.shift = self.filter.hp.n_fft - self.block

    def start(self, enrollment: Waveform) -> None:
        self.filter.set_enrollment(enrollment)

    def process(self, samples: Waveform) -> Waveform:
        return self.filter.step(np.pad(samples, (0, self.block - samples.size)))

    def finish(self) -> Waveform:
        silence = np.zeros(self.block, np.float32)
        return joined([self.filter.step(silence) for _ in range(-(-(self.shift + SEARCH) // self.block))])


class VoxLockSystem:
    """`VoxLock.stream` of voxlock, in blocks of 40 ms; its weights are downloaded, or `--model` is their folder.

    It takes a sample of the voice of at least 3 s, so shorter enrollments are repeated.
    """

    shift, block = 0, 640

    def __init__(self, model: str | None = None) -> None:
        import voxlock

        self.package = f"voxlock {metadata.version('voxlock')}"
        self.voxlock = voxlock.VoxLock(model, threads=1)

    def start(self, enrollment: Waveform) -> None:
        self.stream = self.voxlock.stream(np.resize(enrollment, max(enrollment.size, 3 * RATE)))

    def process(self, samples: Waveform) -> Waveform:
        return self.stream.push(samples)

    def finish(self) -> Waveform:
        return self.stream.flush()


SYSTEMS: dict[str, Callable[[str | None], System]] = {
    "wesep": WesepSystem,
    "wesep_onnx": WesepRuntimeSystem,
    "speakerbeamss": SpeakerBeamSystem,
    "voicefilter": VoiceFilterSystem,
    "voxlock": VoxLockSystem,
}


def one_thread() -> None:
    """Give every ONNX session that is opened from now on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    onnxruntime.InferenceSession = functools.partial(onnxruntime.InferenceSession, sess_options=options)


def joined(parts: list[Waveform]) -> Waveform:
    """Return waveforms one after the other; none is an empty one."""
    return np.concatenate([np.zeros(0, np.float32), *parts])


class Streamed(NamedTuple):
    """Hold the output of a system for a mixture.

    Attributes:
        output: all samples, `[samples]`; they are `shift` samples late.
        calls: of each block, how many samples had arrived and how many had been returned before it was processed.
        spent_s: processor time of processing the blocks.
        num_returned: number of samples that the blocks returned.
    """

    output: Waveform
    calls: list[tuple[int, int]]
    spent_s: float
    num_returned: int


def stream(system: System, mixture: Waveform) -> Streamed:
    """Stream a mixture through a system that has been started."""
    parts: list[Waveform] = []
    calls, num_out, spent_s = [], 0, 0.0
    for start in range(0, mixture.size, system.block):
        block = mixture[start : start + system.block]
        began = time.process_time()
        part = system.process(block)
        spent_s += time.process_time() - began
        if part.size:
            calls.append((start + block.size, num_out))
        parts.append(part)
        num_out += part.size
    return Streamed(joined([*parts, system.finish()]), calls, spent_s, num_out)


def longest_wait(calls: list[tuple[int, int]], shift: int) -> int:
    """Return the largest number of samples that arrived after a sample until it was returned.

    The first sample that a call returns has waited longest; those before the recording do not count.

    >>> longest_wait([(100, 0), (200, 100)], 0), longest_wait([(100, 0), (200, 100)], 30)
    (99, 129)
    """
    return max(num_in - (num_out - shift) - 1 for num_in, num_out in calls if num_out >= shift)


def si_sdr_by_shift(output: Waveform, reference: Waveform, shifts: range) -> NDArray[np.float64]:
    """Return the SI-SDR in dB of an output from which each shift is removed.

    As Le Roux et al., "SDR – half-baked or well done?" (2019), eq. 3, of signals without their means.

    Args:
        output: `[samples]`; it counts as zero before its start and after its end.
        reference: `[samples]`.
        shifts: in ascending order, in steps of 1; they may be negative.

    >>> rng = np.random.default_rng(0)
    >>> reference = rng.standard_normal(1000)
    >>> shifts = range(-10, 50)
    >>> shifts[int(si_sdr_by_shift(np.pad(reference, (30, 0)), reference, shifts).argmax())]
    30
    """
    # Row i of the sliding windows is the output that starts at shifts[i]:
    #
    #   |-shifts[0] zeros|---------- output ----------|zeros|
    #   |---- window 0 ----|
    #      |---- window 1 ----|
    size = reference.size
    before = max(0, -shifts[0])
    first = before + shifts[0]
    needed = first + len(shifts) - 1 + size
    padded = np.pad(output.astype(np.float64), (before, max(0, needed - before - output.size)))[first:needed]
    centred = reference.astype(np.float64) - reference.mean()
    num_fft = 1 << (padded.size + size).bit_length()
    products = np.fft.irfft(np.fft.rfft(padded, num_fft) * np.fft.rfft(centred, num_fft).conj(), num_fft)
    sums, energies = (np.cumsum(np.pad(values, (1, 0))) for values in (padded, padded**2))
    energy = (energies[size:] - energies[:-size]) - (sums[size:] - sums[:-size]) ** 2 / size
    target = products[: len(shifts)] ** 2 / max(float(centred @ centred), 1e-12)
    return 10 * np.log10(np.maximum(target, 1e-12) / np.maximum(energy - target, 1e-12))


def wav_files(folder: Path) -> Iterator[Path]:
    """Yield the wav files of a folder by name; exit if there are none."""
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise SystemExit(f"{folder}: has no wav files; make them with `python bench/live_peers.py prepare`")
    yield from paths


def run(arguments: argparse.Namespace) -> None:
    """Stream the mixtures of a folder through a system; write the estimates and what was measured."""
    import soundfile

    def read(folder: str, name: str) -> Waveform:
        return soundfile.read(arguments.folder / folder / name, dtype="float32")[0]

    names = [path.name for path in wav_files(arguments.folder / "mix")]
    system = SYSTEMS[arguments.system](arguments.model)
    enroll_samples = None if arguments.enroll_s is None else round(arguments.enroll_s * RATE)
    shifts = range(system.shift - SEARCH, system.shift + SEARCH + 1)
    streamed: dict[str, Streamed] = {}
    by_shift: dict[str, list[NDArray[np.float64]]] = {"s": [], "mix": []}
    for name in names:
        system.start(read("enroll", name)[:enroll_samples])
        streamed[name] = stream(system, np.float32(arguments.gain) * read("mix", name))
        for folder, curves in by_shift.items():
            curves.append(si_sdr_by_shift(streamed[name].output, read(folder, name), shifts))
    mean = {folder: np.mean(curves, axis=0) for folder, curves in by_shift.items()}
    best = int(mean["s"].argmax())
    shift = shifts[best]

    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, result in streamed.items():
        num_samples = soundfile.info(arguments.folder / "mix" / name).frames
        late = np.pad(result.output, (max(0, -shift), 0))[max(0, shift) :][:num_samples]
        estimate = np.pad(late, (0, num_samples - late.size))
        soundfile.write(arguments.out / name, estimate, RATE, subtype="FLOAT")
    returned_s = sum(result.num_returned for result in streamed.values()) / RATE
    measured: dict[str, Any] = {
        "package": system.package,
        "recordings": len(names),
        "seconds": round(returned_s, 1),
        "block_ms": 1000 * system.block / RATE,
        "rtf": round(sum(result.spent_s for result in streamed.values()) / returned_s, 4),
        "delay_ms": 1000 * max(longest_wait(result.calls, shift) for result in streamed.values()) / RATE,
        "shift": shift,
        "documented_shift": system.shift,
        "shift_against_mixture": shifts[int(mean["mix"].argmax())],
        "si_sdr_db_against_mixture": round(float(mean["mix"].max()), 3),
        "si_sdr_db": round(float(mean["s"][best]), 3),
        "si_sdr_db_documented_shift": round(float(mean["s"][SEARCH]), 3),
    }
    (arguments.out / "run.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(measured))


def prepare(arguments: argparse.Namespace) -> None:
    """Render trials of a list as folders of wav files with the same names."""
    from wesep_py import audio
    from wesep_py.common.textfiles import open_lines
    from wesep_py.data import read_trials
    from wesep_py.simulation.trial_audio import render_trial
    from wesep_py.training.task import spread

    lines = [line.strip() for line in open_lines(arguments.enrollment, "a map_mixture2enrollment") if line.strip()]
    present = [line for line in lines if line.split()[1] != "-"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = arguments.out / "trials.map"
    chosen.write_text("".join(f"{line}\n" for line in spread(present, arguments.limit)), encoding="utf-8")
    trials = read_trials(arguments.trials, chosen, arguments.root or arguments.trials.parent)
    for number, trial in enumerate(trials):
        rendered = render_trial(trial, arguments.condition, RATE)
        assert rendered.reference is not None, "trials with an absent target were left out"
        waveforms = {"mix": rendered.mixture, "s": rendered.reference, "enroll": rendered.enrollment}
        for index, interferer in enumerate(rendered.interferers, start=1):
            waveforms["other" if index == 1 else f"other{index}"] = interferer
        for folder, waveform in waveforms.items():
            (arguments.out / folder).mkdir(exist_ok=True)
            audio.write(arguments.out / folder / f"{number:04d}.wav", waveform, RATE, overwrite=arguments.overwrite)
    print(f"{arguments.out}: {len(trials)} trials")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    preparing = commands.add_parser("prepare", help="render trials")
    preparing.set_defaults(command=prepare)
    preparing.add_argument("--trials", type=Path, required=True, help="list of mixtures, as for wesep evaluate")
    preparing.add_argument("--enrollment", type=Path, required=True, help="its map_mixture2enrollment")
    preparing.add_argument("--root", type=Path, help="where paths of the list start; by default its folder")
    preparing.add_argument("--condition", choices=["clean", "noisy"], default="clean")
    preparing.add_argument("--limit", type=int, help="number of trials; by default all")
    preparing.add_argument("--overwrite", action="store_true", help="replace existing files")
    preparing.add_argument("-o", "--out", type=Path, required=True)
    running = commands.add_parser("run", help="stream the mixtures through a package")
    running.set_defaults(command=run)
    running.add_argument("folder", type=Path, help="folder that `prepare` wrote")
    running.add_argument("--system", choices=list(SYSTEMS), required=True)
    running.add_argument("--model", help="of wesep: by default the bundled one; wesep_onnx, voxlock: a folder")
    running.add_argument("--enroll-s", type=float, help="take the first seconds of each enrollment; by default all")
    running.add_argument(
        "--gain", type=float, default=1.0, help="factor of the mixtures, to see whether the level matters"
    )
    running.add_argument("-o", "--out", type=Path, required=True, help="folder of the estimates")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parse_arguments(words)
    arguments.command(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
