"""What `wesep extract` costs: start-up, speed by threads, memory by length, and what smaller numbers cost in quality.

    python bench/extract.py --model exp/mine
    python bench/extract.py --config conf/model/bsrnn_tfmap_small.yaml --long-s 10800
    python bench/extract.py --model exp/mine --what memory --lengths-s 10 60 600 --threads 1

Prints Markdown. Every measurement runs in a process of its own. Recordings are noise that comes and goes; what smaller
numbers cost in quality is measured on trials, if --trials names a list (LIST.csv and LIST.map_mixture2enrollment).

startup    seconds of processor time: python, importing, loading the model, and `wesep extract` of 1 s
speed      RTF of `extract` on 60 s: seconds of wall time, and of processor time, for a second of recording
memory     peak memory of `wesep extract` from file to file, and how much of it is not there for 1 s
precision  float32, int8 (dynamic quantisation of linear and recurrent layers) and bf16 (autocast, which keeps float32
           weights): RTF, size of the weights in memory, SI-SDR against the output of float32; with --trials, SI-SDRi on
           them and the largest loss
blocks     with --trials: SI-SDR of recordings extracted by blocks minus that of the whole. Each is made of the list's
           mixtures, with pauses of the target; --recordings of --blocks-s
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WHAT = ("startup", "speed", "memory", "precision", "blocks")


def mixture_of(duration_s: float, sample_rate: int, seed: int = 0) -> np.ndarray:
    """Noise `[samples]` whose level comes and goes as that of speech does, about four times a second."""
    rng = np.random.default_rng(seed)
    num_samples = round(duration_s * sample_rate)
    syllables = np.repeat(rng.uniform(0, 0.2, num_samples // (sample_rate // 4) + 2), sample_rate // 4)[:num_samples]
    return (syllables * rng.standard_normal(num_samples)).astype(np.float32)


def write_mixture(path: Path, duration_s: float, sample_rate: int) -> None:
    """The same as a 16-bit file, however long."""
    from wesep_py.audio import AudioWriter

    with AudioWriter(path, sample_rate, 1, "PCM_16") as writer:
        done, number = 0.0, 0
        while done < duration_s:
            part = min(30.0, duration_s - done)
            writer.write(np.clip(mixture_of(part, sample_rate, number), -1, 1))
            done, number = done + part, number + 1


def processor_s(run: Callable[[], object]) -> float:
    """Seconds of processor time of the processes that `run` starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def child(code: str, *arguments: str) -> str:
    """What a Python process with that code prints."""
    return subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout


def startup(model: str, folder: Path) -> dict[str, float]:
    write_mixture(folder / "1s.wav", 1.0, 16000)
    wesep = [sys.executable, "-m", "wesep_py.cli.main"]
    extract = ["extract", str(folder / "1s.wav"), "--enroll", str(folder / "1s.wav"), "--model", model, "--overwrite"]
    load = "import sys, wesep_py; wesep_py.load(sys.argv[1], 'cpu')"
    steps: dict[str, Callable[[], object]] = {
        "python": lambda: child("pass"),
        "wesep --help": lambda: subprocess.run([*wesep, "--help"], check=True, capture_output=True),
        "import": lambda: child("import wesep_py.inference.streaming"),
        "import and load": lambda: child(load, model),
        "wesep extract of 1 s": lambda: subprocess.run([*wesep, *extract], check=True, capture_output=True),
    }
    return {name: min(processor_s(run) for _ in range(2)) for name, run in steps.items()}


SPEED = """
import json, sys, time
import torch
from bench.extract import mixture_of
import wesep_py
torch.set_num_threads(int(sys.argv[2]))
extractor = wesep_py.load(sys.argv[1], "cpu")
rate, length = extractor.sample_rate, float(sys.argv[3])
voice = extractor.enroll((mixture_of(5.0, rate, 1), rate))
mixture = (mixture_of(length, rate), rate)
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
    return dict(json.loads(child(SPEED, model, str(threads), str(length_s)).splitlines()[-1]))


def memory(model: str, folder: Path, length_s: float, threads: int) -> dict[str, float]:
    path = folder / f"{length_s:g}s.wav"
    write_mixture(path, length_s, 16000)
    if not (folder / "enroll.wav").exists():
        write_mixture(folder / "enroll.wav", 5.0, 16000)
    arguments = ["extract", str(path), "--enroll", str(folder / "enroll.wav"), "-o", str(folder / "out.wav")]
    arguments += ["--model", model, "--threads", str(threads), "--device", "cpu", "--overwrite", "--force"]
    found = dict(json.loads(child(MEMORY, *arguments).rpartition("MEASURED")[2]))
    assert found["status"] == 0, found
    for name in (path, folder / "out.wav"):
        name.unlink()
    return found


def quantised(extractor: Any) -> Any:
    """The extractor with int8 weights in its linear and recurrent layers, activations quantised as they come."""
    import torch
    from torch import nn

    from wesep_py.inference import Extractor

    kinds = {nn.Linear, nn.LSTM, nn.GRU}
    network = torch.ao.quantization.quantize_dynamic(copy.deepcopy(extractor.network), kinds, dtype=torch.qint8)
    return Extractor(network, "cpu", "int8", extractor.model_hash)


def precision(model: str, length_s: float, threads: int, pairs: list[Any]) -> list[dict[str, Any]]:
    """Return cost and quality of each kind of numbers; bf16 is left out where the processor cannot run it.

    Args:
        model: name or folder.
        length_s: of the recording that is timed, in seconds.
        threads: of torch.
        pairs: rendered trials, for the quality.
    """
    import torch

    import wesep_py
    from wesep_py.common.half_precision import unsupported
    from wesep_py.metrics.separation import si_sdr

    torch.set_num_threads(threads)
    extractor = wesep_py.load(model, "cpu")
    rate = extractor.sample_rate
    given = (mixture_of(length_s, rate), rate)
    voice = extractor.enroll((mixture_of(5.0, rate, 1), rate))
    found: list[dict[str, Any]] = []
    reference, reached = None, None
    for name in ("float32", "int8", *(() if unsupported("cpu") else ("bf16",))):
        chosen = quantised(extractor) if name == "int8" else extractor
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):
            chosen.extract((given[0][:rate], rate), voice)
            began, computed = time.perf_counter(), time.process_time()
            estimate = chosen.extract(given, voice).waveform
            wall, computed = time.perf_counter() - began, time.process_time() - computed
            improved = np.array([improvement_db(chosen, audio) for audio in pairs])
        reference = estimate if reference is None else reference
        reached = improved if reached is None else reached
        weights = io.BytesIO()
        torch.save(chosen.network.state_dict(), weights)
        found.append(
            {
                "name": name,
                "rtf": wall / length_s,
                "computed": computed / length_s,
                "bytes": len(weights.getvalue()),
                "to_float32_db": None if name == "float32" else float(si_sdr(estimate, reference)),
                "si_sdri_db": float(improved.mean()) if pairs else None,
                "largest_loss_db": float((reached - improved).max()) if pairs else None,
            }
        )
    return found


def improvement_db(extractor: Any, audio: Any) -> float:
    """SI-SDRi of a rendered trial."""
    from wesep_py.metrics.separation import si_sdr

    rate = extractor.sample_rate
    estimate = extractor.extract((audio.mixture, rate), extractor.enroll((audio.enrollment, rate))).waveform
    return float(si_sdr(estimate, audio.reference) - si_sdr(audio.mixture, audio.reference))


def checkpoint_of(config: Path, folder: Path) -> str:
    """A checkpoint of a configuration, with random weights."""
    import torch

    from wesep_py import checkpoint
    from wesep_py.common.config import load_yaml
    from wesep_py.network.extraction_network import build_network

    torch.manual_seed(0)
    network = build_network(load_yaml(config)["model"])
    return str(checkpoint.save(folder / "model", network.config, network.state_dict()))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def given_trials(arguments: argparse.Namespace, sample_rate: int) -> list[Any]:
    """The trials asked for, rendered."""
    from bench.joined_trials import read_pieces

    if arguments.trials is None:
        return []
    return read_pieces(arguments.trials, arguments.root, arguments.limit, sample_rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--model", help="a checkpoint or experiment folder")
    chosen.add_argument("--config", type=Path, help="a YAML file with a `model`, taken with random weights")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--lengths-s", nargs="+", type=float, default=[10.0, 60.0, 600.0])
    parser.add_argument("--long-s", type=float, help="one more length for the memory: 10800 is three hours")
    parser.add_argument("--speed-s", type=float, default=60.0, help="length for speed and precision")
    parser.add_argument("--trials", type=Path, metavar="LIST", help="for precision: LIST.csv and its map")
    parser.add_argument("--root", type=Path, help="where paths of the list start")
    parser.add_argument("--limit", type=int, default=50, help="trials of the list; 50")
    parser.add_argument("--recordings", type=int, default=4, help="for blocks: how many; 4")
    parser.add_argument("--blocks-s", type=float, default=120.0, help="for blocks: length of a recording; 120")
    arguments = parser.parse_args()
    if arguments.what == ["blocks"] and arguments.trials is None:
        parser.error("--what blocks needs --trials")
    import torch

    import wesep_py

    print(f"`python bench/extract.py {' '.join(sys.argv[1:])}`: {platform.machine()}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or checkpoint_of(arguments.config, folder)
        if "startup" in arguments.what:
            rows = [(step, f"{spent:.2f}") for step, spent in startup(model, folder).items()]
            print(table(("start-up", "processor time (s)"), rows), flush=True)
        if "speed" in arguments.what:
            for threads in arguments.threads:
                found = speed(model, threads, arguments.speed_s)
                row = (str(threads), f"{found['rtf']:.3f}", f"{found['computed']:.3f}")
                print(table(("threads", "RTF", "processor time a second"), [row]), flush=True)
        if "memory" in arguments.what:
            lengths = [1.0, *arguments.lengths_s, *([arguments.long_s] if arguments.long_s else [])]
            rows, least = [], 0
            for length_s in lengths:
                found = memory(model, folder, length_s, arguments.threads[0])
                least = least or int(found["peak_bytes"])
                beyond = (found["peak_bytes"] - least) / 2**20
                spent = found["computed_s"] / length_s
                rows.append((f"{length_s:g} s", f"{found['peak_bytes'] / 2**20:.0f}", f"{beyond:.0f}", f"{spent:.3f}"))
            head = ("recording", "peak (MiB)", "beyond that of 1 s (MiB)", "processor time a second, start-up included")
            print(table(head, rows), flush=True)
        if "precision" in arguments.what:
            from wesep_py.common.half_precision import unsupported

            rate = wesep_py.load(model, "cpu").sample_rate
            pairs = [piece.audio for piece in given_trials(arguments, rate)]
            rows = [
                (
                    one["name"],
                    f"{one['rtf']:.3f}",
                    f"{one['computed']:.3f}",
                    f"{one['bytes'] / 2**20:.2f}",
                    *(
                        "-" if one[key] is None else f"{one[key]:.{digits}f}"
                        for key, digits in (("to_float32_db", 1), ("si_sdri_db", 3), ("largest_loss_db", 3))
                    ),
                )
                for one in precision(model, arguments.speed_s, arguments.threads[0], pairs)
            ]
            head = ("numbers", "RTF", "processor time a second", "weights (MiB)", "SI-SDR to float32 (dB)")
            print(table((*head, f"SI-SDRi of {len(pairs)} trials (dB)", "largest loss (dB)"), rows), flush=True)
            if problem := unsupported("cpu"):
                print(f"bf16 is left out: {problem}", flush=True)
        if "blocks" in arguments.what and arguments.trials:
            from bench.extract_blocks import blocks_row

            extractor = wesep_py.load(model, "cpu")
            pieces = given_trials(arguments, extractor.sample_rate)
            print(table(*blocks_row(extractor, pieces, arguments.recordings, arguments.blocks_s)), flush=True)


if __name__ == "__main__":
    main()
