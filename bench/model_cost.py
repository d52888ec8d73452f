"""Measure one cost of one model, and print it as JSON; `bench/models.py` runs each measurement in its own process.

    python bench/model_cost.py conf/model/bsrnn_small.yaml memory_30

size_N      parameters; multiply-accumulates per second of a mixture of N s
rtf_N       seconds of computing per second of a mixture of N s
training_N  seconds and peak memory of a training step on N s
memory_N    peak memory of extracting a mixture of N s

The exit status is 3 if the allowed memory is not enough. For Linux: the script reads the size of the process from /proc
and calls malloc_trim of the GNU C library.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from wesep_py.common.config import load_yaml
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network

ENROLLMENT_S = 4.0
REPEATS = 3
TOO_LARGE = 3


def count_macs(run: Callable[..., object], *inputs: object) -> int:
    """Count the multiply-accumulates of `run(*inputs)`: matrix products, convolutions, attention and recurrent layers.

    A recurrent layer multiplies with each of its weights once per step: it is counted so, and not computed. Fourier
    transforms, normalisation, activations and sums are not counted.

    >>> count_macs(nn.Linear(3, 5), torch.zeros(2, 3))
    30
    """
    # The counter does not know the fused attention of the CPU. As plain matrix products, attention is counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _recurrent_layers_counted() as recurrent:
        with FlopCounterMode(display=False) as counter:
            run(*inputs)
        return counter.get_total_flops() // 2 + sum(recurrent)


@contextmanager
def _recurrent_layers_counted() -> Iterator[list[int]]:
    """Make recurrent layers return zeros of the right shapes, and append their multiply-accumulates to the list."""
    counts: list[int] = []

    def forward(layer: nn.RNNBase, x: Tensor, state: object = None) -> tuple[Tensor, object]:
        weights = sum(parameter.numel() for parameter in layer.parameters() if parameter.dim() == 2)
        counts.append(x.numel() // layer.input_size * weights)
        directions, batch = 1 + layer.bidirectional, x.shape[0 if layer.batch_first else 1]
        size = layer.proj_size or layer.hidden_size
        last = x.new_zeros(layer.num_layers * directions, batch, size)
        cell = x.new_zeros(layer.num_layers * directions, batch, layer.hidden_size)
        out = x.new_zeros(*x.shape[:-1], directions * size)
        return out, (last, cell) if layer.mode == "LSTM" else last

    with (
        mock.patch.object(nn.LSTM, "forward", forward),
        mock.patch.object(nn.GRU, "forward", forward),
        mock.patch.object(nn.RNN, "forward", forward),
    ):
        yield counts


class ModelCost:
    """Measurements of a network with random weights.

    Args:
        network: the network to measure.
        device: `cpu` or `cuda`.
    """

    def __init__(self, network: TargetSpeakerExtractor, device: str = "cpu") -> None:
        self.network, self.device = network.eval().to(device), device

    def size(self, length_s: float) -> dict[str, float]:
        """Count parameters, and multiply-accumulates per second of a mixture of that length and of an enrollment."""
        encoder = self.network.encoder
        enrollment, mixture, prepared = self._noise(ENROLLMENT_S), self._noise(length_s), self._prepared()
        return {
            "parameters": _num_parameters(self.network),
            "encoder_parameters": 0 if encoder is None else _num_parameters(encoder),
            "macs_per_s": count_macs(self.network.extract, mixture, prepared) / length_s,
            "enrollment_macs_per_s": count_macs(self.network.prepare, enrollment) / ENROLLMENT_S,
        }

    def rtf(self, length_s: float) -> dict[str, float]:
        """Measure the real-time factor of extraction, after a warm-up."""
        with torch.inference_mode():
            prepared, mixture = self._prepared(), self._noise(length_s)
            self.network.extract(self._noise(1.0), prepared)
            seconds, waited = self._timed(lambda: self.network.extract(mixture, prepared))
        return {"rtf": seconds / length_s, "waited": waited}

    def memory(self, length_s: float) -> dict[str, float]:
        """Measure the peak memory of extraction in bytes, after a warm-up."""
        with torch.inference_mode():
            prepared, mixture = self._prepared(), self._noise(length_s)
            self.network.extract(self._noise(0.1), prepared)
            return {"peak_bytes": self._peak(lambda: self.network.extract(mixture, prepared))}

    def training(self, length_s: float) -> dict[str, float]:
        """Measure seconds and peak memory of a training step on one mixture and one enrollment."""
        from wesep_py.training.devices import keep_freed_memory

        keep_freed_memory()  # as in training
        network, mixture, enrollment = self.network.train(), self._noise(length_s), self._noise(length_s)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()  # one item has no statistics of a batch
        optimiser = torch.optim.AdamW(network.parameters())
        timing: list[float] = []  # seconds per step, share of waiting

        def step() -> None:
            optimiser.zero_grad()
            (network(mixture, enrollment).waveforms[0] - 0.5 * mixture).square().mean().backward()
            optimiser.step()

        def run() -> None:
            step()
            timing.extend(self._timed(step))

        peak_bytes = self._peak(run)
        return {"step_s": timing[0], "waited": timing[1], "peak_bytes": peak_bytes}

    def _noise(self, duration_s: float) -> Tensor:
        return torch.randn(1, round(duration_s * self.network.sample_rate), device=self.device)

    @torch.no_grad()
    def _prepared(self) -> dict[str, Tensor]:
        return self.network.prepare(self._noise(ENROLLMENT_S))

    def _synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _timed(self, run: Callable[[], object]) -> tuple[float, float]:
        """Return the median seconds of a run, and the share of time in which the process did not compute (GPU: 0)."""
        seconds, computed_before = [], time.process_time()
        for _ in range(REPEATS):
            self._synchronise()
            began = time.perf_counter()
            run()
            self._synchronise()
            seconds.append(time.perf_counter() - began)
        computed = time.process_time() - computed_before
        return statistics.median(seconds), 0.0 if self.device == "cuda" else max(0.0, 1 - computed / sum(seconds))

    def _peak(self, run: Callable[[], object]) -> int:
        """Return the largest number of bytes that the run took beyond those before it."""
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        ctypes.CDLL(None).malloc_trim(0)  # else memory that malloc keeps is reused and not seen
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak; ru_maxrss would be that of the imports
        before = _process_bytes("VmRSS")
        run()
        return max(0, _process_bytes("VmHWM") - before)


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _process_bytes(name: str) -> int:
    """Return a size of this process in bytes, by its name in /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="YAML file with the key `model`")
    parser.add_argument("what", help="size_N, rtf_N, training_N or memory_N, with N in seconds")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-gib", type=float, help="memory that the process may take in addition (CPU only)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    cost = ModelCost(build_network(load_yaml(arguments.model)["model"]), arguments.device)
    if arguments.memory_gib is not None and arguments.device == "cpu":
        allowed = _process_bytes("VmData") + round(arguments.memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    measure, length_s = arguments.what.split("_")
    gpu = {"gpu": torch.cuda.get_device_name()} if arguments.device == "cuda" else {}
    try:
        print(json.dumps(getattr(cost, measure)(float(length_s)) | gpu))
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise SystemExit(TOO_LARGE) from error


if __name__ == "__main__":
    main()
