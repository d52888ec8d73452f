"""Measure `wesep extract`: start-up, speed, memory, precision, blocks, shifts and level.

    python bench/extract.py --model exp/mine
    python bench/extract.py --config conf/model/bsrnn_tfmap_small.yaml --long-s 10800
    python bench/extract.py --model exp/mine --what memory --lengths-s 10 60 600 --threads 1
    python bench/extract.py --model base --what level --limit 60 --trials DATA/trials/dev_2mix --root DATA

Prints Markdown. `--what` chooses among

startup    seconds of processor time: python, importing, loading the model, and `wesep extract` of 1 s
speed      RTF of `extract` on 60 s: seconds of wall time, and of processor time, per second of recording
memory     peak memory of `wesep extract` from file to file, and how much it exceeds that of 1 s
precision  float32, int8 (dynamic quantisation of linear and recurrent layers) and bf16 (autocast, which keeps float32
           weights): RTF, size of the weights in memory, SI-SDR against the output of float32; with --trials, SI-SDRi on
           them and the largest loss
blocks     with --trials: SI-SDR of recordings extracted by blocks minus that of the whole. Each is made of the list's
           mixtures, with pauses of the target; --recordings of --blocks-s
shifts     with --trials: SI-SDR, SI-SDRi and processor time with --shifts shifted copies averaged
level      with --trials: for the enrollments of LIST the level of the voice in the output re its level in the mixture,
           for those of LIST_absent the level of the output re mixture; means in dB, with the network's own level,
           with `learned` (corrected by 6 dB at most) and with `fitted` (least squares)

Start-up, speed and memory are measured in processes of their own, on noise whose level varies.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.joined_trials import PresentTrial, concatenate_to, mixtures_without, read_present_trials

WHAT = ("startup", "speed", "memory", "precision", "blocks", "shifts", "level")
NEED_TRIALS = {"blocks", "shifts", "level"}


def noise_mixture(duration_s: float, sample_rate: int, seed: int = 0) -> np.ndarray:
    """Return noise `[samples]` whose level changes as that of speech does, about four times a second."""
    rng = np.random.default_rng(seed)
    num_samples = round(duration_s * sample_rate)
    syllables = np.repeat(rng.uniform(0, 0.2, num_samples // (sample_rate // 4) + 2), sample_rate // 4)[:num_samples]
    return (syllables * rng.standard_normal(num_samples)).astype(np.float32)


def write_noise_mixture(path: Path, duration_s: float, sample_rate: int) -> None:
    """Write such noise to a 16-bit file, block by block."""
    from wesep_py.audio import AudioWriter

    with AudioWriter(path, sample_rate, 1, "PCM_16") as writer:
        done, number = 0.0, 0
        while done < duration_s:
            part = min(30.0, duration_s - done)
            writer.write(np.clip(noise_mixture(part, sample_rate, number), -1, 1))
            done, number = done + part, number + 1


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# Start-up, speed and memory: in processes of their own.


def children_cpu_s(run: Callable[[], object]) -> float:
    """Return the seconds of processor time of the processes that `run` starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_python(code: str, *arguments: str) -> str:
    """Run code in a new Python process and return what it prints."""
    return subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout


def startup(model: str, folder: Path) -> dict[str, float]:
    """Return the seconds of processor time of each step of starting up; the better of two runs."""
    write_noise_mixture(folder / "1s.wav", 1.0, 16000)
    wesep = [sys.executable, "-m", "wesep_py.cli.main"]
    extract = ["extract", str(folder / "1s.wav"), "--enroll", str(folder / "1s.wav"), "--model", model, "--overwrite"]
    load = "import sys, wesep_py; wesep_py.load(sys.argv[1], 'cpu')"
    steps: dict[str, Callable[[], object]] = {
        "python": lambda: run_python("pass"),
        "wesep --help": lambda: subprocess.run([*wesep, "--help"], check=True, capture_output=True),
        "import": lambda: run_python("import wesep_py.inference.long_recordings.streaming"),
        "import and load": lambda: run_python(load, model),
        "wesep extract of 1 s": lambda: subprocess.run([*wesep, *extract], check=True, capture_output=True),
    }
    return {name: min(children_cpu_s(run) for _ in range(2)) for name, run in steps.items()}


SPEED = """
import json, sys, time
import torch
from bench.extract import noise_mixture
import wesep_py
torch.set_num_threads(int(sys.argv[2]))
extractor = wesep_py.load(sys.argv[1], "cpu")
rate, length = extractor.sample_rate, float(sys.argv[3])
voice = extractor.enroll((noise_mixture(5.0, rate, 1), rate))
mixture = (noise_mixture(length, rate), rate)
extractor.extract((mixture[0][:rate], rate), voice)
began, computed = time.perf_counter(), time.process_time()
extractor.extract(mixture, voice)
wall, computed = time.perf_counter() - began, time.process_time() - computed
print(json.dumps({"rtf": wall / length, "computed": computed / length}))
"""

MEMORY = """
import json, resource, sys, time
from wesep_py.cli.main import main
began = time.process_time()
status = main(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print("MEASURED" + json.dumps({"status": status, "peak_bytes": peak, "computed_s": time.process_time() - began}))
"""


def speed(model: str, threads: int, length_s: float) -> dict[str, float]:
    """Return RTF and processor time per second of extracting a recording in memory."""
    return dict(json.loads(run_python(SPEED, model, str(threads), str(length_s)).splitlines()[-1]))


def memory(model: str, folder: Path, length_s: float, threads: int) -> dict[str, float]:
    """Return peak memory and processor time of `wesep extract` for a recording of that length."""
    path = folder / f"{length_s:g}s.wav"
    write_noise_mixture(path, length_s, 16000)
    if not (folder / "enroll.wav").exists():
        write_noise_mixture(folder / "enroll.wav", 5.0, 16000)
    arguments = ["extract", str(path), "--enroll", str(folder / "enroll.wav"), "-o", str(folder / "out.wav")]
    arguments += ["--model", model, "--threads", str(threads), "--device", "cpu", "--overwrite", "--force"]
    measured = dict(json.loads(run_python(MEMORY, *arguments).rpartition("MEASURED")[2]))
    assert measured["status"] == 0, measured
    for file in (path, folder / "out.wav"):
        file.unlink()
    return measured


# Precision.


def quantised(extractor: Any) -> Any:
    """Return the extractor with int8 weights in its linear and recurrent layers; activations are quantised at run."""
    import torch
    from torch import nn

    from wesep_py.inference import Extractor

    kinds = {nn.Linear, nn.LSTM, nn.GRU}
    network = torch.ao.quantization.quantize_dynamic(copy.deepcopy(extractor.network), kinds, dtype=torch.qint8)
    return Extractor(network, "cpu", "int8", extractor.model_hash)


def precision(model: str, length_s: float, threads: int, trials: Sequence[Any]) -> list[dict[str, Any]]:
    """Return cost and quality of each number format; bf16 is left out where the processor cannot run it.

    Args:
        model: name or folder.
        length_s: of the recording that is timed, in seconds.
        threads: of torch.
        trials: rendered trials, for the quality.
    """
    import torch

    import wesep_py
    from wesep_py.common.half_precision import unsupported
    from wesep_py.metrics.separation import si_sdr

    torch.set_num_threads(threads)
    extractor = wesep_py.load(model, "cpu")
    rate = extractor.sample_rate
    mixture = noise_mixture(length_s, rate)
    voice = extractor.enroll((noise_mixture(5.0, rate, 1), rate))
    rows: list[dict[str, Any]] = []
    reference, reference_sdri = None, None  # of float32, which is first
    for name in ("float32", "int8", *(() if unsupported("cpu") else ("bf16",))):
        variant = quantised(extractor) if name == "int8" else extractor
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):
            variant.extract((mixture[:rate], rate), voice)
            began, computed = time.perf_counter(), time.process_time()
            estimate = variant.extract((mixture, rate), voice).waveform
            wall, computed = time.perf_counter() - began, time.process_time() - computed
            sdri = np.array([improvement_db(variant, trial) for trial in trials])
        reference = estimate if reference is None else reference
        reference_sdri = sdri if reference_sdri is None else reference_sdri
        weights = io.BytesIO()
        torch.save(variant.network.state_dict(), weights)
        rows.append(
            {
                "name": name,
                "rtf": wall / length_s,
                "computed": computed / length_s,
                "bytes": len(weights.getvalue()),
                "to_float32_db": None if name == "float32" else float(si_sdr(estimate, reference)),
                "si_sdri_db": float(sdri.mean()) if len(trials) else None,
                "largest_loss_db": float((reference_sdri - sdri).max()) if len(trials) else None,
            }
        )
    return rows


def improvement_db(extractor: Any, trial: Any) -> float:
    """Return the SI-SDRi of a rendered trial."""
    from wesep_py.metrics.separation import si_sdr

    rate = extractor.sample_rate
    estimate = extractor.extract((trial.mixture, rate), extractor.enroll((trial.enrollment, rate))).waveform
    return float(si_sdr(estimate, trial.reference) - si_sdr(trial.mixture, trial.reference))


# Blocks.


def turns_of(
    trials: Sequence[PresentTrial], speaker: str, duration_s: float, sample_rate: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return a recording in which a speaker takes turns with pauses while others always speak, and the speaker alone.

    Mixtures with the speaker and without alternate, each with its own other speakers.
    """
    rng = np.random.default_rng(seed)
    with_speaker = [trial.audio for trial in trials if trial.speaker == speaker]
    pauses = mixtures_without(trials, speaker, rng)
    mixtures, alone = [], []
    for i in range(max(len(with_speaker), len(pauses))):
        turn, pause = with_speaker[i % len(with_speaker)], pauses[i % len(pauses)]
        mixtures += [turn.mixture, pause]
        alone += [turn.reference, np.zeros_like(pause)]
    num_samples = round(duration_s * sample_rate)
    return concatenate_to(mixtures, num_samples), concatenate_to(alone, num_samples)


# Length, overlap and cross-fade in seconds.
BLOCK_LENGTHS = {
    "30 s, overlap 4 s": (30.0, 4.0, 2.0),
    "20 s, overlap 4 s": (20.0, 4.0, 2.0),
    "10 s, overlap 2 s": (10.0, 2.0, 1.0),
}


def blocks(
    extractor: Any, trials: Sequence[PresentTrial], recordings: int, duration_s: float
) -> dict[str, list[float]]:
    """Return SI-SDR by blocks minus SI-SDR of the whole, in dB, of each recording, by the lengths of the blocks.

    The voices are those with the most trials in the list; blocks longer than the recording are left out.
    """
    from wesep_py.inference import Blocks
    from wesep_py.metrics.separation import si_sdr

    rate = extractor.sample_rate
    shorter = {name: lengths for name, lengths in BLOCK_LENGTHS.items() if lengths[0] < duration_s}
    differences: dict[str, list[float]] = {name: [] for name in shorter}
    for speaker, _ in Counter(trial.speaker for trial in trials).most_common(recordings):
        mixture, reference = turns_of(trials, speaker, duration_s, rate)
        enrollment = next(trial.audio.enrollment for trial in trials if trial.speaker == speaker)
        voice = extractor.enroll((enrollment, rate))
        whole = extractor.extract((mixture, rate), voice, Blocks(2 * duration_s, 4.0, 2.0)).waveform
        for name, lengths in shorter.items():
            estimate = extractor.extract((mixture, rate), voice, Blocks(*lengths)).waveform
            differences[name].append(float(si_sdr(estimate, reference) - si_sdr(whole, reference)))
    return differences


# Shifts.


def shifted(extractor: Any, trials: Sequence[PresentTrial], numbers: Sequence[int]) -> list[dict[str, float]]:
    """Return quality and cost of each number of shifted copies that are averaged.

    Each trial is extracted with all numbers, one after the other, so that a busy machine slows all of them down.

    Returns:
        For each number the means of SI-SDR and SI-SDRi in dB, and the processor time per second of recording; the
        median of the trials.
    """
    from wesep_py.metrics.separation import si_sdr

    rate = extractor.sample_rate
    values: dict[int, list[tuple[float, float, float]]] = {number: [] for number in numbers}
    for trial in (trial.audio for trial in trials):
        voice, unprocessed = extractor.enroll((trial.enrollment, rate)), si_sdr(trial.mixture, trial.reference)
        for number in numbers:
            began = time.process_time()
            estimate = extractor.extract((trial.mixture, rate), voice, shifts=number).waveform
            computed_s = time.process_time() - began
            quality = si_sdr(estimate, trial.reference)
            values[number].append((quality, quality - unprocessed, computed_s * rate / len(trial.mixture)))
    rows = []
    for number, measured in values.items():
        si_sdr_db, si_sdri_db, computed = np.transpose(measured)
        rows.append(
            {
                "shifts": number,
                "si_sdr_db": float(si_sdr_db.mean()),
                "si_sdri_db": float(si_sdri_db.mean()),
                "computed": float(np.median(computed)),
            }
        )
    return rows


# Level.


def levels(extractor: Any, trial: Any) -> list[float]:
    """Return the level of a rendered trial's output in dB: the network's own, `learned`, and `fitted`.

    Of a voice that is present it is the level of the voice in the output re its level in the mixture; of an absent one
    that of the output re mixture.
    """
    import torch

    from wesep_py.inference.result import level_gain

    mixture = trial.mixture[None]
    with torch.inference_mode():
        prepared = extractor.network.prepare(torch.from_numpy(trial.enrollment)[None])
        estimate = extractor.network.extract(torch.from_numpy(mixture), prepared).waveforms[0].numpy()
    if trial.reference is None or not trial.reference.any():
        network_level = np.sqrt((estimate**2).sum() / (mixture**2).sum())
    else:
        network_level = abs((estimate[0] * trial.reference).sum()) / (trial.reference**2).sum()
    gains = (1.0, level_gain(estimate, mixture, "learned"), level_gain(estimate, mixture))
    return [20 * float(np.log10(abs(gain) * network_level + 1e-12)) for gain in gains]


def level_rows(extractor: Any, trial_list: Path, root: Path | None, limit: int) -> list[tuple[str, ...]]:
    """Return the mean levels with the enrollments of LIST and, if they exist, of LIST_absent, clean and noisy."""
    from wesep_py.data import read_trials
    from wesep_py.simulation import render_trial

    rows = []
    for name in (trial_list.name, f"{trial_list.name}_absent"):
        enrollment_map = trial_list.with_name(f"{name}.map_mixture2enrollment")
        if not enrollment_map.exists():
            continue
        trials = list(read_trials(f"{trial_list}.csv", enrollment_map, root))
        spread = trials[:: max(1, len(trials) // limit)][:limit]
        for condition in ("clean", "noisy"):
            rendered = (render_trial(trial, condition, extractor.sample_rate) for trial in spread)
            means = np.mean([levels(extractor, trial) for trial in rendered], axis=0)
            rows.append((name, condition, *(f"{mean:.1f}" for mean in means)))
    return rows


def random_checkpoint(config: Path, folder: Path) -> str:
    """Save a checkpoint of a configuration with random weights, and return its path."""
    import torch

    from wesep_py import checkpoint
    from wesep_py.common.config import load_yaml
    from wesep_py.network.extraction_network import build_network

    torch.manual_seed(0)
    network = build_network(load_yaml(config)["model"])
    return str(checkpoint.save(folder / "model", network.config, network.state_dict()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="a checkpoint or experiment folder")
    source.add_argument("--config", type=Path, help="a YAML file with a `model`, taken with random weights")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--lengths-s", nargs="+", type=float, default=[10.0, 60.0, 600.0])
    parser.add_argument("--long-s", type=float, help="one more length for the memory: 10800 is three hours")
    parser.add_argument("--speed-s", type=float, default=60.0, help="length for speed and precision")
    parser.add_argument("--trials", type=Path, metavar="LIST", help=f"LIST.csv and its map; for {', '.join(WHAT[3:])}")
    parser.add_argument("--root", type=Path, help="where paths of the list start")
    parser.add_argument("--limit", type=int, default=50, help="trials of the list; 50")
    parser.add_argument("--recordings", type=int, default=4, help="for blocks: number of recordings; 4")
    parser.add_argument("--shifts", nargs="+", type=int, default=[1, 2, 4], help="numbers of shifted copies; 1 2 4")
    parser.add_argument("--blocks-s", type=float, default=120.0, help="for blocks: length of a recording; 120")
    arguments = parser.parse_args()
    if set(arguments.what) <= NEED_TRIALS and arguments.trials is None:
        parser.error(f"--what {' '.join(arguments.what)} needs --trials")
    return arguments


def measure_all(arguments: argparse.Namespace, model: str, folder: Path) -> None:
    """Print a table for each measurement."""
    import torch

    import wesep_py
    from wesep_py.common.half_precision import unsupported

    what = set(arguments.what) - (NEED_TRIALS if arguments.trials is None else set())
    if "startup" in what:
        rows = [(step, f"{spent:.2f}") for step, spent in startup(model, folder).items()]
        print(table(("start-up", "processor time (s)"), rows), flush=True)
    if "speed" in what:
        for threads in arguments.threads:
            measured = speed(model, threads, arguments.speed_s)
            row = (str(threads), f"{measured['rtf']:.3f}", f"{measured['computed']:.3f}")
            print(table(("threads", "RTF", "processor time a second"), [row]), flush=True)
    if "memory" in what:
        lengths = [1.0, *arguments.lengths_s, *([arguments.long_s] if arguments.long_s else [])]
        rows, least = [], 0
        for length_s in lengths:
            measured = memory(model, folder, length_s, arguments.threads[0])
            least = least or int(measured["peak_bytes"])
            beyond = (measured["peak_bytes"] - least) / 2**20
            spent = measured["computed_s"] / length_s
            rows.append((f"{length_s:g} s", f"{measured['peak_bytes'] / 2**20:.0f}", f"{beyond:.0f}", f"{spent:.3f}"))
        head = ("recording", "peak (MiB)", "beyond that of 1 s (MiB)", "processor time a second, start-up included")
        print(table(head, rows), flush=True)
    if not what & {"precision", *NEED_TRIALS}:
        return

    extractor = wesep_py.load(model, "cpu")
    trials: list[PresentTrial] = []
    if arguments.trials is not None and what & {"precision", "blocks", "shifts"}:
        trials = read_present_trials(arguments.trials, arguments.root, arguments.limit, extractor.sample_rate)
    if "precision" in what:
        audio = [trial.audio for trial in trials]
        rows = [
            (
                row["name"],
                f"{row['rtf']:.3f}",
                f"{row['computed']:.3f}",
                f"{row['bytes'] / 2**20:.2f}",
                *(
                    "-" if row[key] is None else f"{row[key]:.{digits}f}"
                    for key, digits in (("to_float32_db", 1), ("si_sdri_db", 3), ("largest_loss_db", 3))
                ),
            )
            for row in precision(model, arguments.speed_s, arguments.threads[0], audio)
        ]
        head = ("numbers", "RTF", "processor time a second", "weights (MiB)", "SI-SDR to float32 (dB)")
        print(table((*head, f"SI-SDRi of {len(trials)} trials (dB)", "largest loss (dB)"), rows), flush=True)
        if problem := unsupported("cpu"):
            print(f"bf16 is left out: {problem}", flush=True)
    if "blocks" in what:
        differences = blocks(extractor, trials, arguments.recordings, arguments.blocks_s)
        count = max((len(values) for values in differences.values()), default=0)
        row = [f"{min(values):+.3f} to {max(values):+.3f} dB" for values in differences.values()]
        head = (f"{count} recordings of {arguments.blocks_s:g} s", *differences)
        print(table(head, [("by blocks minus whole", *row)]), flush=True)
    if "shifts" in what:
        torch.set_num_threads(arguments.threads[0])
        measured_rows = shifted(extractor, trials, arguments.shifts)
        least = measured_rows[0]["computed"]
        rows = [
            (
                f"{row['shifts']:g}",
                f"{row['si_sdr_db']:.2f}",
                f"{row['si_sdri_db']:.2f}",
                f"{row['computed']:.3f}",
                f"{row['computed'] / least:.2f}",
            )
            for row in measured_rows
        ]
        head = ("shifts", f"SI-SDR of {len(trials)} trials (dB)", "SI-SDRi (dB)", "processor time a second", "ratio")
        print(table(head, rows), flush=True)
    if "level" in what:
        torch.set_num_threads(1)
        rows = level_rows(extractor, arguments.trials, arguments.root, arguments.limit)
        print(table(("list", "condition", "the network's own (dB)", "learned (dB)", "fitted (dB)"), rows), flush=True)


def main() -> None:
    import torch

    arguments = parse_arguments()
    print(f"`python bench/extract.py {' '.join(sys.argv[1:])}`: {platform.machine()}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as name:
        model = arguments.model or random_checkpoint(arguments.config, Path(name))
        measure_all(arguments, model, Path(name))


if __name__ == "__main__":
    main()
