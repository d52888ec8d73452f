"""Measure the cost of a training step: alone on one CPU core, or in a whole run with simulation.

    python bench/training_step.py [conf/model/bsrnn_small.yaml] [--items 16] [--steps 4]
    python bench/training_step.py [conf/model/bsrnn.yaml] --root DATA [--manifest speech/train.csv] [--items 8]
        [--seconds 3] [--steps 20] [--workers 4] [--threads N] [--eager]

Without `--root`: processor seconds (user and system) and page faults of a step, forward and backward, on noise of 3 s,
by precision, and with and without keeping freed memory.

With `--root`: speed of `wesep train`, the simulation of its mixtures included, by precision, and with compiled blocks.
Each row is a run of twice `--steps` steps, of which the second half counts, because the first steps of a compiled run
are spent on compiling. A GPU is used if there is one, and synchronised at the end of each step. Processor seconds are
those of the training process, without its data workers; on a shared machine they are more reliable than items per
second. Memory is the peak of the GPU's; on the CPU, the peak of the resident set.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WARM_UP_STEPS = 4  # until the heap has grown to its final size
STEP_ROWS = [("32-true", "returned"), ("32-true", "kept"), ("bf16-mixed", "returned"), ("bf16-mixed", "kept")]
RUN_ROWS = [("32-true", "no"), ("32-true", "yes"), ("bf16-mixed", "no"), ("bf16-mixed", "yes")]
PRECISION_NAMES = {"32-true": "float32", "bf16-mixed": "bfloat16"}


def measure_step(options: argparse.Namespace, precision: str, memory: str) -> dict[str, Any]:
    """Measure steps on noise on one core. In a process of its own, because malloc's settings cannot be reset."""
    import torch

    from wesep_py.common.config import load_yaml
    from wesep_py.network.extraction_network import build_network
    from wesep_py.training.devices import keep_freed_memory

    if memory == "kept":
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network(load_yaml(options.model)["model"]).train()
    mixture, enrollment = torch.randn(2, options.items, 3 * network.sample_rate)

    def step() -> None:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            estimate = network(mixture, enrollment).waveforms[0]
        (estimate - mixture).square().mean().backward()

    for _ in range(WARM_UP_STEPS):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(options.steps):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "user_s": (after.ru_utime - before.ru_utime) / options.steps,
        "system_s": (after.ru_stime - before.ru_stime) / options.steps,
        "faults": (after.ru_minflt - before.ru_minflt) // options.steps,
    }


def measure_run(options: argparse.Namespace, precision: str, compiled: str) -> dict[str, Any]:
    """Measure a training run."""
    import torch

    from wesep_py.common.config import load_yaml
    from wesep_py.training import train
    from wesep_py.training.step import Stepper

    original_step, used_s = Stepper.step, []

    def synchronised_step(self: Stepper, *positional: Any, **named: Any) -> Any:
        result = original_step(self, *positional, **named)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        used_s.append(time.process_time())
        if len(used_s) == options.steps and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return result

    Stepper.step = synchronised_step  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(
            {
                "experiment": f"{folder}/exp",
                "model": load_yaml(options.model)["model"],
                "data": {"root": options.root, "train": [options.manifest], "workers": options.workers},
                "simulation": {"duration_s": options.seconds, "enrollment": {"duration_s": [options.seconds] * 2}},
                "train": {
                    "steps": 2 * options.steps, "batch_size": options.items, "precision": precision,
                    "compile": compiled == "yes", "threads": options.threads,
                },
                "checkpoint": {"every_steps": 10**6, "keep": 1, "average": 1},
                "log": {"every_steps": options.steps, "audio_samples": 0, "to": []},
            }
        )  # fmt: skip
        lines = (Path(folder) / "exp" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    rates = [record for record in map(json.loads, lines) if record["kind"] == "train"][1]
    if torch.cuda.is_available():
        memory, device = torch.cuda.max_memory_allocated() / 2**30, torch.cuda.get_device_name()
    else:
        memory, device = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "CPU"
    return {
        "device": device,
        "items_per_s": options.items / rates["step_s"],
        "audio_s_per_s": rates["audio_s_per_s"],
        "data_wait": rates["data_wait"],
        "memory_gib": memory,
        "cpu_s": (used_s[-1] - used_s[options.steps - 1]) / options.steps,
    }


def measure_in_new_process(row: int) -> dict[str, Any]:
    """Measure a row of the table by this script in a process of its own."""
    command = [sys.executable, *sys.argv, "--row", str(row)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return measured


def print_steps(has_bfloat16: bool) -> None:
    """Print the table of single steps."""
    print("| precision | freed memory | user s | system s | page faults |\n| --- | --- | --- | --- | --- |", flush=True)
    for number, (precision, memory) in enumerate(STEP_ROWS):
        if precision == "bf16-mixed" and not has_bfloat16:
            continue
        row = measure_in_new_process(number)
        print(
            f"| {PRECISION_NAMES[precision]} | {memory} | {row['user_s']:.2f} | {row['system_s']:.2f} "
            f"| {row['faults']:,} |",
            flush=True,
        )


def print_runs(has_bfloat16: bool, is_eager: bool) -> None:
    """Print the table of whole runs."""
    print(
        "| precision | compiled | items per second | audio s per second | data wait | memory (GiB) | CPU s per step "
        "| ratio |\n| --- | --- | --- | --- | --- | --- | --- | --- |",
        flush=True,
    )
    first_cost: float | None = None
    for number, (precision, compiled) in enumerate(RUN_ROWS):
        if (compiled == "yes" and is_eager) or (precision == "bf16-mixed" and not has_bfloat16):
            continue
        row = measure_in_new_process(number)
        # On a GPU the processor only waits, so steps are compared by their duration.
        cost = row["cpu_s"] if row["device"] == "CPU" else 1 / row["items_per_s"]
        first_cost = first_cost or cost
        print(
            f"| {PRECISION_NAMES[precision]} | {compiled} | {row['items_per_s']:.3g} "
            f"| {row['audio_s_per_s']:.3g} | {100 * row['data_wait']:.0f} % | {row['memory_gib']:.2f} "
            f"| {row['cpu_s']:.2f} | {cost / first_cost:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="default: bsrnn_small.yaml; with --root bsrnn.yaml")
    parser.add_argument("--items", type=int, help="in a batch; default: 16, with --root 8")
    parser.add_argument("--steps", type=int, help="that are measured; default: 4, with --root 20")
    parser.add_argument("--root", help="data.root: measure whole runs")
    parser.add_argument("--manifest", default="speech/train.csv")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--eager", action="store_true", help="leave out compiled runs")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    is_run = options.root is not None
    options.model = options.model or str(ROOT / "conf" / "model" / ("bsrnn.yaml" if is_run else "bsrnn_small.yaml"))
    options.items = options.items or (8 if is_run else 16)
    options.steps = options.steps or (20 if is_run else 4)
    if options.row is not None:
        measured = (
            measure_run(options, *RUN_ROWS[options.row]) if is_run else measure_step(options, *STEP_ROWS[options.row])
        )
        print(json.dumps(measured))
        return

    from wesep_py.common.half_precision import unsupported
    from wesep_py.training.devices import device_type_of

    problem = unsupported(device_type_of("auto") if is_run else "cpu")
    if is_run:
        print_runs(problem is None, options.eager)
    else:
        print_steps(problem is None)
    if problem:
        print(f"bfloat16 is left out: {problem}")


if __name__ == "__main__":
    main()
