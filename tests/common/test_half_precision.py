"""The support of bfloat16 is tested by running operations."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from wesep_py.common.half_precision import OPERATIONS, has_amx, problem_with, unsupported


@pytest.mark.processor
@pytest.mark.parametrize("operation", OPERATIONS)
def test_problem_with_agrees_with_running_the_operation(operation):
    module = {"matmul": nn.Linear(8, 8), "lstm": nn.LSTM(8, 8)}[operation]
    try:
        with torch.autocast("cpu", torch.bfloat16):
            module(torch.randn(3, 2, 8))
        runs = True
    except RuntimeError:
        runs = False
    assert (problem_with(operation, "cpu") is None) == runs


def test_the_trial_keeps_the_random_state():
    problem_with.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    problem_with("lstm", "cpu")
    assert torch.equal(torch.rand(2), expected)


def test_the_trial_works_without_gradients():
    expected = [problem_with(operation, "cpu") for operation in OPERATIONS]
    problem_with.cache_clear()
    with torch.no_grad():
        assert [problem_with(operation, "cpu") for operation in OPERATIONS] == expected


def test_without_avx512_matmul_runs_and_lstm_does_not():
    """oneDNN has no bfloat16 LSTM for AVX2, which every x86 processor of a decade has."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX512", "AVX2"):
        pytest.skip("not an x86 processor with AVX2")
    code = (
        "from wesep_py.common.half_precision import unsupported; print(unsupported(), unsupported('cpu', ('matmul',)))"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "this processor cannot run an LSTM in bfloat16 None"


def test_no_operations_means_no_problem():
    assert unsupported("cpu", ()) is None


@pytest.mark.parametrize("limit, allowed", [("", True), ("ALL", True), ("avx512_core_amx", True), ("AVX2", False)])
@pytest.mark.parametrize("supported", [False, True])
def test_amx_is_used_if_the_processor_has_it_and_it_is_allowed(monkeypatch, limit: str, allowed: bool, supported: bool):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: supported)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert has_amx() == (supported and allowed)
