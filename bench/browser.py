"""Measure a stream in headless Chromium: onnxruntime-web in WebAssembly, one thread.

    make test-browser                                               # installs onnxruntime-web
    python bench/browser.py --config conf/model/default_small.yaml  # random weights
    python bench/browser.py live_onnx live_int8                     # exported folders

Each hop is one call of `process` of `stream.js`. Prints Markdown: milliseconds, and the largest difference from the
samples that onnxruntime gives in Python, relative to the largest sample. Real time is reached while a hop takes less
time than it lasts. The processor and its load are printed, too; other programs on it make the high percentiles higher.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the page is that of the tests

from bench.runtime_start import export_random  # noqa: E402
from tests.export.chromium import NUM_WARM_UP, missing, open_page  # noqa: E402
from wesep_py.export.benchmark import ENROLLMENT_S, processor_name  # noqa: E402
from wesep_py.export.graph_runner import GraphRunner, example  # noqa: E402


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="exported with --stream")
    parser.add_argument("--config", type=Path, help="of a model of random weights, which is exported first")
    parser.add_argument("--hops", type=int, default=1000, help="number of hops that are timed")
    options = parser.parse_args()
    if not options.folders and options.config is None:
        parser.error("give exported folders, or --config")
    if (reason := missing()) is not None:
        parser.error(reason)
    print(f"{processor_name()}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {options.hops} hops\n")
    print("| model | hop | p50 | p95 | p99 | mean | RTF | loading | enroll 3 s | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        served = Path(temporary) / "models"
        served.mkdir()
        folders = list(options.folders)
        if options.config is not None:
            folders.append(Path(temporary) / options.config.stem)
            export_random(options.config, folders[-1])
        for number, folder in enumerate(folders):
            (served / str(number)).symlink_to(folder.resolve())
            # A browser for each, so that none finds code that is compiled already.
            with open_page(served, Path(temporary) / f"profile{number}") as page:
                print(measured(page, str(number), folder, options.hops), flush=True)


def measured(page, name: str, folder: Path, num_hops: int) -> str:
    """Return the row of a folder."""
    runner = GraphRunner(folder)
    about = runner.description
    rate, stride, first = about["sample_rate"], about["stride"], about["first_block"]
    mixture, enrollment = example((num_hops + NUM_WARM_UP) * stride), example(ENROLLMENT_S * rate)[::-1].copy()
    times = page.time_hops(name, mixture, enrollment)
    runner.enroll(enrollment)
    stop = first + (len(mixture) - first) // stride * stride
    expected = runner.step(mixture[:stop], runner.initial_state(float(mixture[0])))[0][about["num_leading"] :]
    difference = np.abs(times.samples - expected).max() / np.abs(expected).max()
    hop_ms, mean = 1000 * stride / rate, times.hops[NUM_WARM_UP:].mean()
    p50, p95, p99 = times.percentiles()
    return (
        f"| {folder.name} | {hop_ms:.1f} ms | {p50:.2f} ms | {p95:.2f} ms | {p99:.2f} ms | {mean:.2f} ms | "
        f"{mean / hop_ms:.3f} | {times.load:.0f} ms | {times.enroll:.0f} ms | {difference:.1e} |"
    )


if __name__ == "__main__":
    main()
