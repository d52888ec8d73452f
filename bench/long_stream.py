"""Stream a recording again and again for an hour, and measure whether the time, the memory or the result drifts.

    python bench/long_stream.py mixture.wav --enroll alice.wav --minutes 60
    python bench/long_stream.py mixture.wav --enroll alice.wav --minutes 60 --model live_onnx

The model is one that torch runs, or an exported folder with a stream. Blocks of 20 ms, one thread, as fast as the
machine computes. Prints Markdown, a row for the passes (1, 2, 10, 30, …) of the recording:

- samples in and not yet out: they must stay the same;
- block p50 and p99, and RTF, of that pass;
- memory of the process (resident);
- difference: energy of (output of the pass − output of the fifth pass) over that of the fifth, in dB. Before it, the
  level tracker still settles.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

BLOCK_S = 0.020


def load(model: str) -> Any:
    """Return the extractor of a model, or of an exported folder."""
    if (Path(model) / "wesep.json").is_file():
        from wesep_py import runtime

        return runtime.load(model, threads=1)
    import torch

    import wesep_py

    torch.set_num_threads(1)
    return wesep_py.load(model)


def resident_mb() -> float:
    """Return the resident memory of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mixture", type=Path, help="recording; its first channel")
    parser.add_argument("--enroll", type=Path, required=True, help="enrollment")
    parser.add_argument("--model", default="base", help="name or folder of a model, or exported folder")
    parser.add_argument("--minutes", type=float, default=60, help="length of the stream")
    options = parser.parse_args()
    mixture, sample_rate = soundfile.read(options.mixture, dtype="float32", always_2d=True)
    mixture = mixture[:, 0]
    extractor = load(options.model)
    stream = extractor.stream(extractor.enroll(options.enroll), sample_rate=sample_rate)
    block, num_passes = round(BLOCK_S * sample_rate), round(options.minutes * 60 * sample_rate / len(mixture))
    shown = {1, 2, 6, 10, 20, 30, 40, 50, num_passes} | set(range(60, num_passes, 30))
    num_in = num_out = 0
    reference = np.zeros(0, np.float32)
    print("| minutes | waiting samples | block p50 | p99 | RTF | memory | difference |\n" + "| --- " * 7 + "|")
    for number in range(1, num_passes + 1):
        num_earlier = num_in - num_out  # the first of these outputs belong to the pass before
        finished, seconds = [], []
        for start in range(0, len(mixture), block):
            samples = mixture[start : start + block]
            before = time.perf_counter()
            finished.append(stream.process(samples))
            seconds.append(time.perf_counter() - before)
            num_in, num_out = num_in + len(samples), num_out + len(finished[-1])
        estimate = np.concatenate(finished)[num_earlier:]
        if number == 5:
            reference = estimate
        difference = "–"
        if number > 5:
            length = min(len(estimate), len(reference))
            error = (estimate[:length] - reference[:length]).astype(float)
            ratio = np.sum(error**2) / np.sum(reference[:length].astype(float) ** 2)
            difference = "none" if ratio == 0 else f"{10 * np.log10(ratio):.0f} dB"
        if number in shown:
            p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
            rtf = sum(seconds) / (len(mixture) / sample_rate)
            minutes = num_in / sample_rate / 60
            print(
                f"| {minutes:.1f} | {num_in - num_out} | {p50:.2f} ms | {p99:.2f} ms | {rtf:.3f} "
                f"| {resident_mb():.0f} MB | {difference} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
