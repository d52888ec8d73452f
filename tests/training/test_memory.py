from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from wesep_py.common.errors import ConfigError
from wesep_py.network.extraction_network import build_network
from wesep_py.training.devices import recompute_blocks

MEASURE = """
import resource, sys, torch
from wesep_py.training.devices import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.zeros(12_000_000) + torch.ones(12_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(12_000_000) + torch.ones(12_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for the GNU C library")
def test_tensors_of_a_step_reuse_the_pages_of_the_one_before():
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", MEASURE, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 0.3 * faults("release")


def gradients_of(twice: bool) -> tuple[dict[str, torch.Tensor], int]:
    """The gradients of a small network, and how many numbers were kept for them."""
    torch.manual_seed(0)
    network = build_network(
        {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 3}, "cues": [{"name": "tf_map"}]}
    )
    if twice:
        recompute_blocks(network)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(torch.randn(2, 4000), torch.randn(2, 4000)).waveforms[0].square().mean()
    loss.backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, sum(kept)


def test_blocks_that_are_computed_twice_have_the_same_gradients_and_keep_less():
    (once, all_kept), (twice, kept) = gradients_of(False), gradients_of(True)
    assert kept < 0.7 * all_kept
    assert once.keys() == twice.keys() and len(once) > 10
    for name, gradient in once.items():
        torch.testing.assert_close(twice[name], gradient)


def test_a_network_without_blocks_is_refused():
    with pytest.raises(ConfigError, match="has no blocks to compute again"):
        recompute_blocks(nn.Linear(2, 2))
