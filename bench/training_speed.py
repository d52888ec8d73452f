"""How fast a run goes, the simulation of its mixtures included: by precision, and with compiled blocks.

    python bench/training_speed.py --root DATA [--manifest speech/train.csv] [--model conf/model/bsrnn.yaml]
        [--batch-size 8] [--seconds 3] [--steps 20] [--workers 4] [--threads N] [--eager]

Each row is `wesep train` in a process of its own, twice `--steps` steps, of which the second half counts: with
`compile` the first steps are spent on compiling. A GPU is taken where there is one, and waited for at the end of each
step. Processor seconds are those of the training process, without its data workers; on a machine that others use they
say more than items a second. Memory is the GPU's peak, on the CPU the resident set's.
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
ROWS = [("32-true", False), ("32-true", True), ("bf16-mixed", False), ("bf16-mixed", True)]
NAMES = {"32-true": "float32", "bf16-mixed": "bfloat16"}


def measure(options: argparse.Namespace, precision: str, is_compiled: bool) -> dict[str, Any]:
    """Train for a while, and say how fast that was."""
    import torch

    from wesep_py.common.config import load_yaml
    from wesep_py.training import train
    from wesep_py.training.step import Stepper

    step, used_s = Stepper.step, []

    def waited_for(self: Stepper, *positional: Any, **named: Any) -> Any:
        result = step(self, *positional, **named)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        used_s.append(time.process_time())
        if len(used_s) == options.steps and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return result

    Stepper.step = waited_for  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(
            {
                "experiment": f"{folder}/exp",
                "model": load_yaml(options.model)["model"],
                "data": {"root": options.root, "train": [options.manifest], "workers": options.workers},
                "simulation": {"duration_s": options.seconds, "enrollment": {"duration_s": [options.seconds] * 2}},
                "train": {
                    "steps": 2 * options.steps, "batch_size": options.batch_size, "precision": precision,
                    "compile": is_compiled, "threads": options.threads,
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
        "items_per_s": options.batch_size / rates["step_s"],
        "audio_s_per_s": rates["audio_s_per_s"],
        "data_wait": rates["data_wait"],
        "memory_gib": memory,
        "cpu_s": (used_s[-1] - used_s[options.steps - 1]) / options.steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--manifest", default="speech/train.csv")
    parser.add_argument("--model", default=str(ROOT / "conf" / "model" / "bsrnn.yaml"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--eager", action="store_true", help="leave out what is compiled")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(measure(options, *ROWS[options.row])))
        return
    from wesep_py.common.half_precision import unsupported
    from wesep_py.training.devices import device_type_of

    first: float | None = None
    problem = unsupported(device_type_of("auto"))
    print(
        "| precision | compiled | items a second | audio s a second | data wait | memory (GiB) | CPU s a step | ratio |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for number, (precision, is_compiled) in enumerate(ROWS):
        if (is_compiled and options.eager) or (precision == "bf16-mixed" and problem):
            continue
        command = [sys.executable, *sys.argv, "--row", str(number)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        # On a GPU the processor only waits, so the time a step takes is what is compared.
        cost = row["cpu_s"] if row["device"] == "CPU" else 1 / row["items_per_s"]
        first = first or cost
        print(
            f"| {NAMES[precision]} | {'yes' if is_compiled else 'no'} | {row['items_per_s']:.3g} "
            f"| {row['audio_s_per_s']:.3g} | {100 * row['data_wait']:.0f} % | {row['memory_gib']:.2f} "
            f"| {row['cpu_s']:.2f} | {cost / first:.2f} |",
            flush=True,
        )
    if problem:
        print(f"bfloat16 is left out: {problem}")


if __name__ == "__main__":
    main()
