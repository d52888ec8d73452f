"""What every model of `conf/model` costs: size, computation, speed and memory, as the page `bench/models.md`.

    python bench/models.py > bench/models.md
    python bench/models.py --models 'bsrnn*' dpccn --threads 2
    python bench/models.py --device cuda --json

Every measurement runs in a process of its own (`bench/model_cost.py`) and is appended to `--results`; the same command
again measures only what is not there yet, or what a larger limit may now allow. All of them take about two hours.
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
WHAT = ("size_4", "rtf_4", "memory_4", "training_3", "memory_30", "memory_60")
TOO_LARGE, KILLED = 3, -9
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
PAGE = """# What every shipped model costs

`{command}`: {machine}; {threads}{versions}; {dates}.

{table}

- **Parameters**: all of them, and of these the speaker encoder's.
- **GMAC/s**: multiply-accumulates, in 10⁹, for a second of a mixture of 4 s, with an enrollment of 4 s prepared before;
  and for a second of that enrollment. Counted are matrix products, convolutions and attention
  (`torch.utils.flop_counter`, halved) and recurrent layers (every weight once a step); not counted are Fourier
  transforms, normalisation, activations and sums. A model that listens first hears the enrollment with every mixture.
- **RTF**: seconds of computing for a second of a mixture of 4 s, the voice prepared before; median of 3.
- **Peak**: memory that extracting a mixture of that length takes at its worst, beyond the process with the network
  and the prepared voice.
- **Training step**: forward, backward and AdamW on one mixture and one enrollment of 3 s each, in float32; median of
  3, after one. Batch norms use their running statistics, as one item has none of its own. The peak holds gradients
  and AdamW's averages too, but not the weights.
- **†**: during more than a tenth of the time measured the process waited, as on a busy machine.
- **> N GiB**, **> N s**: stopped there; `--memory-gib` and `--limit-s` allow more.
"""


def key_of(path: Path, what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a result depends on: one with the same key is not measured again."""
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
    """Run the process of a measurement, and say what came of it."""
    command = [sys.executable, str(ROOT / "bench" / "model_cost.py"), str(path), what, "--device", arguments.device]
    command += ["--threads", str(arguments.threads), "--memory-gib", str(arguments.memory_gib)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    try:
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=arguments.limit_s)
    except subprocess.TimeoutExpired:
        return {"over_s": arguments.limit_s}
    if ran.returncode in (TOO_LARGE, KILLED):  # by itself, or by the system
        return {"over_gib": arguments.memory_gib}
    if ran.returncode:
        raise SystemExit(f"{path.stem}: {what} failed\n{ran.stderr}")
    return json.loads(ran.stdout)


def is_final(result: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Whether a result stands, or was stopped at a limit that is now larger."""
    return result.get("over_s", arguments.limit_s) >= arguments.limit_s and (
        result.get("over_gib", arguments.memory_gib) >= arguments.memory_gib
    )


def table(names: list[str], results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The results as Markdown, a row a model; a dash for what is not measured yet."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"| {' | '.join('---' for _ in COLUMNS)} |"]
    for name in names:
        size, rtf, at_4, training, at_30, at_60 = (results.get((name, what), {}) for what in WHAT)
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
    """A number of the table, or why there is none."""
    if "over_gib" in result:
        return f"> {result['over_gib']:g} GiB"
    if "over_s" in result:
        return f"> {result['over_s']:g} s"
    if field not in result:
        return "–"
    waited = " †" if field in ("rtf", "step_s") and result["waited"] > 0.1 else ""
    return f"{result[field] / unit:.{digits}f}{waited}"


def machine() -> str:
    """Processor, cores and memory."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def available_gib() -> float:
    """Memory that can be had now without pushing out others'."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**20


def page(arguments: argparse.Namespace, names: list[str], results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """`bench/models.md`."""
    days = sorted({result["date"] for result in results.values()}) or ["not measured"]
    on_gpu = [result["gpu"] for result in results.values() if "gpu" in result]
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "wesep-py"))
    where = str(arguments.results)
    given = [word for word in sys.argv[1:] if word not in ("--results", where, f"--results={where}")]
    return PAGE.format(
        command=" ".join(["python", "bench/models.py", *given]),
        machine=on_gpu[0] if on_gpu else machine(),
        threads="" if on_gpu else "1 thread; " if arguments.threads == 1 else f"{arguments.threads} threads; ",
        versions=f"Python {platform.python_version()}, {packages}",
        dates=days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        table=table(names, results),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["*"], metavar="PATTERN", help="names of YAML files; all")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "exp" / "bench_models.jsonl")
    parser.add_argument("--memory-gib", type=float, help="for a measurement; half of what is available")
    parser.add_argument("--limit-s", type=float, default=1800, help="for a measurement; 1800")
    parser.add_argument("--json", action="store_true", help="print the results instead of the page")
    arguments = parser.parse_args()
    arguments.memory_gib = arguments.memory_gib or round(available_gib() / 2, 1)

    paths = sorted((conf_folder() / "model").glob("*.yaml"))
    paths = [path for path in paths if any(fnmatch(path.stem, pattern) for pattern in arguments.models)]
    if not paths:
        raise SystemExit(f"--models: no YAML of conf/model is called {' or '.join(arguments.models)}")
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.touch()
    lines = arguments.results.read_text(encoding="utf-8").splitlines()
    known = {json.dumps(entry["key"], sort_keys=True): entry for entry in map(json.loads, lines)}
    wanted = {}
    for what in WHAT:
        for path in paths:
            key = key_of(path, what, arguments)
            entry = known.get(json.dumps(key, sort_keys=True))
            if entry is None or not is_final(entry["result"], arguments):
                print(f"{path.stem}: {what}", file=sys.stderr, flush=True)
                result = measure(path, what, arguments) | {"date": datetime.now(timezone.utc).date().isoformat()}
                entry = {"key": key, "result": result}
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            wanted[path.stem, what] = entry["result"]
    if arguments.json:
        print(
            json.dumps([{"model": name, "what": what, **result} for (name, what), result in wanted.items()], indent=2)
        )
    else:
        print(page(arguments, [path.stem for path in paths], wanted), end="")


if __name__ == "__main__":
    main()
