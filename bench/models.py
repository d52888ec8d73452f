"""Measure the cost of each model of `conf/model`: size, computation, speed and memory; print `bench/models.md`.

    python bench/models.py > bench/models.md
    python bench/models.py --models 'bsrnn*' dpccn --threads 2
    python bench/models.py --device cuda --json

Each measurement runs in its own process (`bench/model_cost.py`) and is appended to `--results`. The same command again
measures only what is missing, or what stopped at a limit that is larger now. All measurements take about two hours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

from wesep_py.common.config import conf_folder, load_yaml

ROOT = Path(__file__).resolve().parents[1]
MEASUREMENTS = ("size_4", "rtf_4", "memory_4", "training_3", "memory_30", "memory_60")
TOO_LARGE, KILLED = 3, -9
"""Exit statuses of a process that needs more memory than allowed, and of one that the system killed."""
COLUMNS = (
    "model",
    "parameters (M)",
    "of the encoder (M)",
    "GMAC/s",
    "enrollment: GMAC/s",
    "RTF",
    "peak at 4 s (GiB)",
    "at 30 s",
    "at 60 s",
    "training step (s)",
    "its peak (GiB)",
)
PAGE = """# Cost of each shipped model

`{command}`: {machine}; {threads}{versions}; {dates}.

{table}

- **Parameters**: number of all parameters, and of those of the speaker encoder.
- **GMAC/s**: multiply-accumulates, in 10⁹, per second of a mixture of 4 s, with an enrollment of 4 s prepared before;
  and per second of that enrollment. Matrix products, convolutions and attention are counted
  (`torch.utils.flop_counter`, halved), and recurrent layers (each weight once per step); Fourier transforms,
  normalisation, activations and sums are not. A listen-first model processes the enrollment with each mixture.
- **RTF**: seconds of computing per second of a mixture of 4 s, with the enrollment prepared before; median of 3.
- **Peak**: largest memory that extracting a mixture of that length takes, beyond the process with the network and the
  prepared enrollment.
- **Training step**: forward, backward and AdamW on one mixture and one enrollment of 3 s each, in float32; median of
  3, after one warm-up step. Batch norms use their running statistics, because one item has no statistics of a batch.
  The peak includes gradients and AdamW's averages, but not the weights.
- **†**: the process waited during more than a tenth of the measured time; the machine was busy.
- **> N GiB**, **> N s**: stopped at this limit; `--memory-gib` and `--limit-s` allow more.
"""


def result_key(path: Path, what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return everything that a result depends on. A result with the same key is not measured again."""
    model = json.dumps(load_yaml(path)["model"], sort_keys=True)
    return {
        "model": path.stem,
        "configuration": hashlib.sha256(model.encode()).hexdigest()[:16],
        "what": what,
        "device": arguments.device,
        "threads": arguments.threads,
        "torch": metadata.version("torch"),
        "machine": machine(),
    }


def measure(path: Path, what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a measurement in its own process.

    Returns:
        The result, or `over_s` or `over_gib`: the limit of time or memory that stopped it.

    Raises:
        SystemExit: the process failed.
    """
    command = [sys.executable, str(ROOT / "bench" / "model_cost.py"), str(path), what, "--device", arguments.device]
    command += ["--threads", str(arguments.threads), "--memory-gib", str(arguments.memory_gib)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    try:
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=arguments.limit_s)
    except subprocess.TimeoutExpired:
        return {"over_s": arguments.limit_s}
    if finished.returncode in (TOO_LARGE, KILLED):  # it gave up, or the system killed it
        return {"over_gib": arguments.memory_gib}
    if finished.returncode:
        raise SystemExit(f"{path.stem}: {what} failed\n{finished.stderr}")
    return json.loads(finished.stdout)


def is_final(result: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Return whether a result is complete, or stopped at a limit that is not larger now."""
    return result.get("over_s", arguments.limit_s) >= arguments.limit_s and (
        result.get("over_gib", arguments.memory_gib) >= arguments.memory_gib
    )


def table(names: list[str], results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Return the results as a Markdown table, one row per model; a dash marks what is not measured yet."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"| {' | '.join('---' for _ in COLUMNS)} |"]
    for name in names:
        size, rtf, at_4, training, at_30, at_60 = (results.get((name, what), {}) for what in MEASUREMENTS)
        cells = [
            name,
            cell(size, "parameters", 1e6, 2),
            cell(size, "encoder_parameters", 1e6, 2),
            cell(size, "macs_per_s", 1e9, 2),
            cell(size, "enrollment_macs_per_s", 1e9, 2),
            cell(rtf, "rtf", 1, 3),
            *(cell(result, "peak_bytes", 2**30, 2) for result in (at_4, at_30, at_60)),
            cell(training, "step_s", 1, 2),
            cell(training, "peak_bytes", 2**30, 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(result: dict[str, Any], field: str, unit: float, digits: int) -> str:
    """Return a number of the table in a unit, or the limit that stopped its measurement."""
    if "over_gib" in result:
        return f"> {result['over_gib']:g} GiB"
    if "over_s" in result:
        return f"> {result['over_s']:g} s"
    if field not in result:
        return "–"
    waited = " †" if field in ("rtf", "step_s") and result["waited"] > 0.1 else ""
    return f"{result[field] / unit:.{digits}f}{waited}"


def machine() -> str:
    """Return the processor, the number of cores and the memory of this machine."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def available_gib() -> float:
    """Return the memory in GiB that is available without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**20


def page(arguments: argparse.Namespace, names: list[str], results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Return the text of `bench/models.md`."""
    days = sorted({result["date"] for result in results.values()}) or ["not measured"]
    on_gpu = [result["gpu"] for result in results.values() if "gpu" in result]
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "wesep-py"))
    path = str(arguments.results)
    options = [word for word in sys.argv[1:] if word not in ("--results", path, f"--results={path}")]
    return PAGE.format(
        command=" ".join(["python", "bench/models.py", *options]),
        machine=on_gpu[0] if on_gpu else machine(),
        threads="" if on_gpu else "1 thread; " if arguments.threads == 1 else f"{arguments.threads} threads; ",
        versions=f"Python {platform.python_version()}, {packages}",
        dates=days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        table=table(names, results),
    )


def main() -> None:
    """Measure what is missing, and print the page or the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["*"], metavar="PATTERN", help="patterns of names of YAML files; by default all"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "exp" / "bench_models.jsonl")
    parser.add_argument(
        "--memory-gib", type=float, help="memory limit of a measurement; by default half of what is free"
    )
    parser.add_argument("--limit-s", type=float, default=1800, help="time limit of a measurement; 1800")
    parser.add_argument("--json", action="store_true", help="print the results instead of the page")
    arguments = parser.parse_args()
    arguments.memory_gib = arguments.memory_gib or round(available_gib() / 2, 1)

    paths = sorted((conf_folder() / "model").glob("*.yaml"))
    paths = [path for path in paths if any(fnmatch(path.stem, pattern) for pattern in arguments.models)]
    incomplete = [path for path in paths if "???" in json.dumps(load_yaml(path)["model"])]
    for path in incomplete:
        print(f"{path.stem}: left out, because its configuration has values to be given (???)", file=sys.stderr)
    paths = [path for path in paths if path not in incomplete]
    if not paths:
        raise SystemExit(f"--models: no YAML file in conf/model matches {' or '.join(arguments.models)}")
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.touch()
    lines = arguments.results.read_text(encoding="utf-8").splitlines()
    known = {json.dumps(entry["key"], sort_keys=True): entry for entry in map(json.loads, lines)}
    results = {}
    for what in MEASUREMENTS:
        for path in paths:
            key = result_key(path, what, arguments)
            entry = known.get(json.dumps(key, sort_keys=True))
            if entry is None or not is_final(entry["result"], arguments):
                print(f"{path.stem}: {what}", file=sys.stderr, flush=True)
                result = measure(path, what, arguments) | {"date": datetime.now(timezone.utc).date().isoformat()}
                entry = {"key": key, "result": result}
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            results[path.stem, what] = entry["result"]
    if arguments.json:
        print(
            json.dumps([{"model": name, "what": what, **result} for (name, what), result in results.items()], indent=2)
        )
    else:
        print(page(arguments, [path.stem for path in paths], results), end="")


if __name__ == "__main__":
    main()
