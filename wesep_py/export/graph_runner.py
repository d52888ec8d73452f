"""Run an exported folder with numpy and onnxruntime (or torch, for TorchScript) alone.

The benchmark uses it. It imports nothing of this package, so that `python graph_runner.py FOLDER` shows how long a
program that only needs the graphs takes to start.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE, STRIDE, FIRST_BLOCK = "sample_rate", "stride", "first_block"


class GraphRunner:
    """The graphs of a folder, each opened when it is first used.

    Args:
        folder: that `wesep export` wrote.
        threads: of the processor.

    Attributes:
        description: content of `wesep.json`.
        prepared: tensors of the voice; empty before `enroll`.
    """

    def __init__(self, folder: str | Path, threads: int = 1) -> None:
        self.folder, self.threads = Path(folder), threads
        self.description: dict[str, Any] = json.loads((self.folder / "wesep.json").read_text(encoding="utf-8"))
        self.prepared: dict[str, NDArray[Any]] = {}
        self._opened: dict[str, Any] = {}

    @property
    def streams(self) -> bool:
        """True if there is the graph of a stream."""
        return "stream" in self.description["graphs"]

    def run(self, graph: str, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run a graph once, and return its outputs by name."""
        if graph not in self._opened:
            self._opened[graph] = self._open(self.folder / self.description["graphs"][graph]["file"])
        names = [spec["name"] for spec in self.description["graphs"][graph]["outputs"]]
        if self.description["type"] == "onnx":
            return dict(zip(names, self._opened[graph].run(names, feed), strict=True))
        import torch

        inputs = [spec["name"] for spec in self.description["graphs"][graph]["inputs"]]
        with torch.inference_mode():
            outputs = self._opened[graph](*(torch.from_numpy(feed[name]) for name in inputs))
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}

    def enroll(self, enrollment: NDArray[np.float32]) -> None:
        """Prepare a voice from `[samples]`."""
        self.prepared = self.run("enroll", {"enrollment": enrollment[None]})

    def extract(self, mixture: NDArray[np.float32]) -> NDArray[np.float32]:
        """Extract the voice: `[samples]` → `[samples]`."""
        return self.run("extract", {"mixture": mixture[None], **self.prepared})["estimate"][0]

    def initial_state(self, first_sample: float) -> dict[str, NDArray[Any]]:
        """Return the state before the first sample of a recording."""
        values = {"zeros": 0.0, "ones": 1.0, "first_sample": first_sample}
        state = self.description["graphs"]["stream"]["state"]
        return {spec["input"]: np.full(spec["shape"], values[spec["initial"]], spec["dtype"]) for spec in state}

    def step(
        self, samples: NDArray[np.float32], state: dict[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
        """Extract from the next `[samples]` of a stream, and return finished samples and the next state."""
        outputs = self.run("stream", {"samples": samples[None], **state, **self.prepared})
        specs = self.description["graphs"]["stream"]["state"]
        return outputs["estimate"][0], {spec["input"]: outputs[spec["output"]] for spec in specs}

    def _open(self, path: Path) -> Any:
        if self.description["type"] == "onnx":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
            options.log_severity_level = 4
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        import torch

        torch.set_num_threads(self.threads)
        return torch.jit.load(str(path))


def example(num_samples: int) -> NDArray[np.float32]:
    """Return noise that comes and goes, `[num_samples]`."""
    noise = np.random.default_rng(0).standard_normal(num_samples)
    return (0.05 * noise * (1 + np.sin(np.arange(num_samples) / 900))).astype(np.float32)


def stream_all(runner: GraphRunner, samples: NDArray[np.float32]) -> list[float]:
    """Stream samples hop by hop, and return the seconds of each hop."""
    first, stride = runner.description[FIRST_BLOCK], runner.description[STRIDE]
    state = runner.initial_state(float(samples[0]))
    _, state = runner.step(samples[:first], state)
    seconds = []
    for start in range(first, len(samples) - stride + 1, stride):
        began = time.perf_counter()
        _, state = runner.step(samples[start : start + stride], state)
        seconds.append(time.perf_counter() - began)
    return seconds


def peak_memory_mb() -> float | None:
    """Return the peak of this process's memory in MB; `None` where the system does not say."""
    status = Path("/proc/self/status")  # `getrusage` counts the process that started this one as well
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def main(folder: str, threads: str, seconds: str) -> None:
    """Print "ready" after the first result, and the peak of the memory after a recording of some seconds."""
    runner = GraphRunner(folder, int(threads))
    rate = runner.description[SAMPLE_RATE]
    samples = example(round(float(seconds) * rate))
    runner.enroll(samples[: 3 * rate])
    if runner.streams:
        runner.step(samples[: runner.description[FIRST_BLOCK]], runner.initial_state(float(samples[0])))
    else:
        runner.extract(samples[:rate])
    print("ready", flush=True)
    if runner.streams:
        stream_all(runner, samples)
    else:
        runner.extract(samples)
    print(peak_memory_mb(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
