"""What a training step on one CPU core costs: by precision, and with and without keeping freed memory.

    python bench/training_step.py [conf/model/bsrnn_small.yaml] [--items 16] [--steps 4]

Processor seconds (user and system) and page faults of a step, forward and backward, on noise of 3 s.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 4  # steps until the heap has grown to its size


def measure(model: str, items: int, steps: int, precision: str, memory: str) -> None:
    """Print one row of the table; in a process of its own, for malloc's settings cannot be taken back."""
    import torch

    from wesep_py.common.config import load_yaml
    from wesep_py.network.extraction_network import build_network
    from wesep_py.training.devices import keep_freed_memory

    if memory == "kept":
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network(load_yaml(model)["model"]).train()
    mixture, enrollment = torch.randn(items, 3 * network.sample_rate), torch.randn(items, 3 * network.sample_rate)

    def step() -> None:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            estimate = network(mixture, enrollment).waveforms[0]
        (estimate - mixture).square().mean().backward()

    for _ in range(WARM_UP):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(steps):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    faults = (after.ru_minflt - before.ru_minflt) // steps
    print(f"| {precision} | {memory} | {user / steps:.2f} | {system / steps:.2f} | {faults:,} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(ROOT / "conf" / "model" / "bsrnn_small.yaml"))
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--row", nargs=2, metavar=("PRECISION", "MEMORY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    from wesep_py.common.half_precision import unsupported

    if arguments.row:
        measure(arguments.model, arguments.items, arguments.steps, *arguments.row)
        return
    print("| precision | freed memory | user s | system s | page faults |\n| --- | --- | --- | --- | --- |", flush=True)
    problem = unsupported("cpu")
    for precision in ("float32",) if problem else ("float32", "bf16"):
        for memory in ("returned", "kept"):
            subprocess.run([sys.executable, *sys.argv, "--row", precision, memory], check=True)
    if problem:
        print(f"bf16 is left out: {problem}")


if __name__ == "__main__":
    main()
