"""Measure how long a program without torch takes from its start to the first extracted block of a stream.

    python bench/runtime_start.py --config conf/model/default_small.yaml --runs 5

Exports a model of random weights (or takes an exported folder, --model DIR), makes a voice print once, and starts a
process for each run: import, load with checksums, read the print, first block.
Prints Markdown: seconds, best and median.
The rows add the time until the end of each step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("Python", "import", "load", "voice print", "first block")
PROGRAM = r"""
import sys, time
from pathlib import Path

fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
uptime = float(Path("/proc/uptime").read_text().split()[0])
began = time.time() - (uptime - int(fields[19]) / 100)
times = [time.time() - began]
sys.path.insert(0, sys.argv[1])
import numpy as np
from wesep_py import runtime
times.append(time.time() - began)
extractor = runtime.load(sys.argv[2])
times.append(time.time() - began)
stream = extractor.stream(runtime.Voice.load(sys.argv[3]))
times.append(time.time() - began)
block = 0.1 * np.random.default_rng(0).standard_normal(extractor.sample_rate // 10).astype(np.float32)
assert len(stream.process(block))
times.append(time.time() - began)
assert "torch" not in sys.modules
print(times)
"""


def export_random(config: Path, folder: Path) -> None:
    """Export a model of random weights."""
    from wesep_py.common.config import load_yaml
    from wesep_py.export import export
    from wesep_py.inference import Extractor
    from wesep_py.network.extraction_network import build_network

    export(Extractor(build_network(load_yaml(config)["model"]), name="random"), folder, stream=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "conf/model/default_small.yaml", help="of the model")
    parser.add_argument("--model", type=Path, default=None, help="an exported folder, instead")
    parser.add_argument("--runs", type=int, default=5, help="processes")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as name:
        folder, voice = options.model or Path(name) / "exported", Path(name) / "alice.voice"
        if options.model is None:
            export_random(options.config, folder)
        import numpy as np

        from wesep_py import runtime

        noise = 0.1 * np.random.default_rng(1).standard_normal(5 * 16000).astype(np.float32)
        runtime.load(folder).enroll((noise, 16000)).save(voice)
        size_mb = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        runs = [
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", PROGRAM, str(ROOT), str(folder), str(voice)],
                    capture_output=True, text=True, check=True,
                ).stdout
            )
            for _ in range(options.runs)
        ]  # fmt: skip
    print(f"{options.runs} starts, {size_mb:.1f} MB of graphs\n\n| until | best, s | median, s |\n| --- | --- | --- |")
    for step, times in zip(STEPS, zip(*runs, strict=True), strict=True):
        print(f"| {step} | {min(times):.2f} | {statistics.median(times):.2f} |")


if __name__ == "__main__":
    main()
