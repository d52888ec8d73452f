"""Measure an exported folder, or the same model in PyTorch: time of a hop, of a recording, of a start, and memory.

The start is that of a fresh process: from its beginning to the first result, which is a first block for a model that
streams, and a second of sound for another. Its memory is measured after it has processed the whole recording.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wesep_py.checkpoint import versions
from wesep_py.common.errors import ConfigError, InputError, WesepError, shorten
from wesep_py.export import graph_runner
from wesep_py.export.graph_runner import GraphRunner, example, stream_all
from wesep_py.export.onnx_files import require_package
from wesep_py.inference import load
from wesep_py.network.streaming_network import StreamingNetwork
from wesep_py.runtime.model_folder import DESCRIPTION, read_description

MIN_HOPS = 1000
"""Fewest hops of which percentiles are computed."""
NUM_RUNS = 3
"""Runs over the whole recording; the fastest counts."""
ENROLLMENT_S = 3
_EAGER = """
import sys
import torch
import wesep_py
from wesep_py.export.benchmark import run_eager
run_eager(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
"""


@dataclass(frozen=True)
class HopTimes:
    """Times of the hops of a stream.

    Attributes:
        num_hops: hops that were timed.
        hop_ms: duration of the sound of a hop, in milliseconds.
        p50_ms, p95_ms, p99_ms: percentiles of the times, in milliseconds.
        rtf: time to compute, relative to the duration of the sound.
        latency_ms: algorithmic latency, in milliseconds.
    """

    num_hops: int
    hop_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    rtf: float
    latency_ms: float | None


@dataclass(frozen=True)
class Benchmark:
    """Results of a benchmark.

    Attributes:
        model: name of the model.
        runs_with: `onnx`, `torchscript` or `pytorch`.
        precision: of the weights.
        threads: of the processor.
        stream: `None` where the model, or the folder, has no stream.
        recording_s: duration of the recording that is extracted as a whole.
        rtf: time to extract it, relative to its duration.
        cold_start_s: from the start of a process to the first result.
        peak_memory_mb: of that process, after a recording; `None` where the system does not say.
        processor: its name.
        versions: of packages.
    """

    model: str
    runs_with: str
    precision: str
    threads: int
    stream: HopTimes | None
    recording_s: float
    rtf: float
    cold_start_s: float
    peak_memory_mb: float | None
    processor: str
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the results as plain values."""
        return asdict(self)


def bench_folder(
    folder: str | PathLike[str], threads: int = 1, seconds: float = 10.0, num_hops: int = MIN_HOPS
) -> Benchmark:
    """Measure an exported folder.

    Args:
        folder: that `wesep export` wrote.
        threads: of the processor.
        seconds: duration of the recording.
        num_hops: hops of the stream.

    Raises:
        InputError: no exported folder, or the package that runs it is missing.
    """
    description = read_description(folder)
    if description["type"] == "onnx":
        require_package("onnxruntime")
    runner, rate = GraphRunner(folder, threads), description["sample_rate"]
    samples = example(round(seconds * rate))
    runner.enroll(samples[: ENROLLMENT_S * rate])
    stream = None
    if runner.streams:
        times = stream_all(runner, _enough(samples, description["first_block"], description["stride"], num_hops))
        stream = _hop_times(times, description["stride"], rate, description["latency"])
    rtf = _fastest(lambda: runner.extract(samples)) / seconds
    started = _cold_start([str(Path(graph_runner.__file__)), str(folder), str(threads), str(seconds)])
    names = ("onnxruntime",) if description["type"] == "onnx" else ()
    return Benchmark(
        description["model"],
        description["type"],
        description["precision"],
        threads,
        stream,
        seconds,
        rtf,
        *started,
        processor_name(),
        versions() | {name: metadata.version(name) for name in names},
    )


def bench_model(
    model: str | PathLike[str] | None, threads: int = 1, seconds: float = 10.0, num_hops: int = MIN_HOPS
) -> Benchmark:
    """Measure a model in PyTorch; the arguments are those of `bench_folder`, with a model as for `wesep_py.load`."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        extractor = load(model, device="cpu")
        network, rate = extractor.network, extractor.sample_rate
        samples = example(round(seconds * rate))
        waveform = torch.from_numpy(samples)[None]
        with torch.inference_mode():
            prepared = network.prepare(waveform[:, : ENROLLMENT_S * rate])
            stream = None
            if (streaming := _streaming(network)) is not None:
                long = _enough(samples, streaming.first_block, streaming.stride, num_hops)
                times = _stream_eager(streaming, torch.from_numpy(long)[None], prepared)
                stream = _hop_times(times, streaming.stride, rate, streaming.network.latency)
            rtf = _fastest(lambda: network.extract(waveform, prepared)) / seconds
    finally:
        torch.set_num_threads(before)
    started = _cold_start(["-c", _EAGER, "" if model is None else str(model), str(threads), str(seconds)])
    return Benchmark(
        extractor.name, "pytorch", "float32", threads, stream, seconds, rtf, *started, processor_name(), versions()
    )


def bench(
    target: str | PathLike[str] | None, threads: int = 1, seconds: float = 10.0, num_hops: int = MIN_HOPS
) -> Benchmark:
    """Measure an exported folder, or a model in PyTorch if `target` is none."""
    if target is not None and (Path(target) / DESCRIPTION).is_file():
        return bench_folder(target, threads, seconds, num_hops)
    return bench_model(target, threads, seconds, num_hops)


def run_eager(model: str, threads: int, seconds: float) -> None:
    """Do in PyTorch what `graph_runner.main` does with graphs."""
    torch.set_num_threads(threads)
    extractor = load(model or None, device="cpu")
    network, rate = extractor.network, extractor.sample_rate
    waveform = torch.from_numpy(example(round(seconds * rate)))[None]
    streaming = _streaming(network)
    with torch.inference_mode():
        prepared = network.prepare(waveform[:, : ENROLLMENT_S * rate])
        if streaming is not None:
            streaming(waveform[:, : streaming.first_block], streaming.initial_state(1), prepared)
        else:
            network.extract(waveform[:, :rate], prepared)
        print("ready", flush=True)
        if streaming is not None:
            _stream_eager(streaming, waveform, prepared)
        else:
            network.extract(waveform, prepared)
    print(graph_runner.peak_memory_mb(), flush=True)


def processor_name() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return shorten(line.partition(":")[2])
    return platform.processor() or platform.machine()


def _streaming(network: Any) -> StreamingNetwork | None:
    try:
        return StreamingNetwork(network).eval()
    except ConfigError:
        return None


def _stream_eager(streaming: StreamingNetwork, samples: torch.Tensor, prepared: Any) -> list[float]:
    state = streaming(samples[:, : streaming.first_block], streaming.initial_state(1), prepared).state
    seconds = []
    for start in range(streaming.first_block, samples.shape[1] - streaming.stride + 1, streaming.stride):
        began = time.perf_counter()
        state = streaming(samples[:, start : start + streaming.stride], state, prepared).state
        seconds.append(time.perf_counter() - began)
    return seconds


def _enough(samples: NDArray[np.float32], first: int, stride: int, num_hops: int) -> NDArray[np.float32]:
    """Repeat samples until they have a first block and `num_hops` hops."""
    needed = first + num_hops * stride
    return np.resize(samples, needed)


def _hop_times(seconds: Sequence[float], stride: int, rate: int, latency: int | None) -> HopTimes:
    p50, p95, p99 = (float(1000 * value) for value in np.percentile(seconds, [50, 95, 99]))
    rtf = float(np.sum(seconds)) / (len(seconds) * stride / rate)
    return HopTimes(
        len(seconds), 1000 * stride / rate, p50, p95, p99, rtf, None if latency is None else 1000 * latency / rate
    )


def _fastest(run: Any) -> float:
    run()
    seconds = []
    for _ in range(NUM_RUNS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _cold_start(arguments: Sequence[str]) -> tuple[float, float | None]:
    """Run a process of Python; return the seconds until it prints its first line, and the memory that it prints last.

    Raises:
        WesepError: the process failed.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        seconds = time.perf_counter() - began
        rest, errors = process.communicate()
    if first.strip() != "ready" or process.returncode:
        raise WesepError(f"the process whose start is measured failed ({shorten(errors[-300:])})")
    memory = rest.strip()
    return seconds, None if memory == "None" else float(memory)


def check_arguments(threads: int, seconds: float, num_hops: int) -> None:
    """Check the numbers that a user gives.

    Raises:
        InputError: one is out of range.
    """
    if threads < 1 or num_hops < 1 or not ENROLLMENT_S <= seconds <= 600:
        raise InputError(
            f"threads {threads}, hops {num_hops}, seconds {seconds:g}: at least 1 thread, 1 hop and "
            f"{ENROLLMENT_S} to 600 seconds are allowed"
        )
