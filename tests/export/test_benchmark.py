"""Exported folders and models are measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.export.exportable_networks import STREAMING, random_network
from wesep_py import checkpoint
from wesep_py.common.errors import InputError
from wesep_py.export.benchmark import Benchmark, bench, check_arguments, processor_name


def _check(result: Benchmark):
    assert result.stream is not None and result.stream.num_hops == 20 and result.stream.hop_ms == 16
    assert 0 < result.stream.p50_ms <= result.stream.p95_ms <= result.stream.p99_ms
    assert result.stream.rtf > 0 and result.stream.latency_ms == pytest.approx(510 / 16)
    assert result.rtf > 0 and result.cold_start_s > 0.05 and result.recording_s == 3
    assert result.peak_memory_mb is None or result.peak_memory_mb > 20
    assert result.processor == processor_name() and result.versions["torch"]
    assert json.loads(json.dumps(result.as_dict()))["stream"]["num_hops"] == 20


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_exported_folder(format: str, runner_of: Callable):
    result = bench(runner_of("live", format=format).folder, seconds=3, num_hops=20)
    _check(result)
    assert (result.runs_with, result.precision, result.threads) == (format, "float32", 1)
    assert ("onnxruntime" in result.versions) is (format == "onnx")


def test_model_in_pytorch(tmp_path: Path):
    network = random_network(STREAMING["live"])
    checkpoint.save(tmp_path / "live", network.config, network.state_dict())
    result = bench(tmp_path / "live", seconds=3, num_hops=20)
    _check(result)
    assert result.runs_with == "pytorch"


def test_whole_recordings_have_no_stream(runner_of: Callable):
    assert bench(runner_of("bsrnn").folder, seconds=3).stream is None


@pytest.mark.parametrize("arguments", [(0, 10.0, 5), (1, 1.0, 5), (1, 1e6, 5), (1, 10.0, 0)])
def test_numbers_out_of_range(arguments: tuple):
    with pytest.raises(InputError, match="are allowed"):
        check_arguments(*arguments)
