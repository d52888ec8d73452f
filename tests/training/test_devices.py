"""Precision, devices, ranks, memory and recomputed blocks."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from wesep_py import checkpoint
from wesep_py.common import half_precision
from wesep_py.common.config import dump_yaml
from wesep_py.common.errors import ConfigError, InputError
from wesep_py.network.extraction_network import build_network
from wesep_py.training import devices, train
from wesep_py.training.devices import (
    convolve_in_float32,
    describe_precision,
    make_fabric,
    recompute_blocks,
    require_precision,
    resolve_precision,
)
from wesep_py.training.experiment import Experiment
from wesep_py.training.extraction_task import TrainingStep
from wesep_py.training.training_config import TrainLoopConfig, load_config


class Witness(nn.Module):
    """Records the types of its input and of the output of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen: dict[str, torch.dtype] = {}

    def forward(self, mixture: torch.Tensor, enrollment: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        made = self.layer(mixture)
        self.seen = {"mixture": mixture.dtype, "enrollment": enrollment.dtype, "layer": made.dtype}
        return made


class Spy(nn.Module):
    """A criterion that records whether it runs under autocast."""

    def forward(self, output: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.autocast = torch.is_autocast_enabled("cpu")
        self.target = batch["target"].dtype
        return {"loss": (output.float() - batch["target"]).square().mean()}


@pytest.mark.parametrize(("precision", "inside"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_waveforms_and_losses_stay_in_float32(precision: str, inside: torch.dtype):
    """Fabric's own mixed precision would hand the network waveforms of 8 bits."""
    fabric = make_fabric(TrainLoopConfig(device="cpu", precision=precision))
    network, criterion = Witness(), Spy()
    module = fabric.setup(TrainingStep(network, criterion))
    wave = torch.rand(2, 4)
    given = {"mixture": wave, "target": wave, "enrollment": wave, "enrollment_lengths": torch.tensor([4, 4])}
    loss = module(given)["loss"]
    fabric.backward(loss)
    assert network.seen == {"mixture": torch.float32, "enrollment": torch.float32, "layer": inside}
    assert not criterion.autocast and criterion.target == torch.float32 and loss.dtype == torch.float32
    assert network.layer.weight.dtype == network.layer.weight.grad.dtype == torch.float32


@pytest.fixture
def without_bfloat16_lstm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave like a processor without AVX-512."""
    known = half_precision.problem_with
    monkeypatch.setattr(
        half_precision, "problem_with", lambda op, device="cpu": "no primitive" if op == "lstm" else known(op, device)
    )


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave like a processor with AVX-512."""
    monkeypatch.setattr(half_precision, "problem_with", lambda op, device="cpu": None)


LSTM_NEEDED = "train.precision: is bf16-mixed, and this processor cannot run an LSTM in bfloat16; use auto or 32-true"


def test_auto_selects_bfloat16_if_supported(with_bfloat16):
    assert resolve_precision("auto", "cpu") == "bf16-mixed" and resolve_precision("32-true", "cpu") == "32-true"
    assert describe_precision("auto", "cpu") == "bfloat16 with float32 weights"
    require_precision(nn.LSTM(2, 2), "bf16-mixed", "cpu")


def test_auto_selects_float32_otherwise_with_the_reason(without_bfloat16_lstm):
    assert resolve_precision("auto", "cpu") == "32-true"
    assert describe_precision("auto", "cpu") == "float32 (this processor cannot run an LSTM in bfloat16)"
    require_precision(nn.Sequential(nn.LSTM(2, 2)), "auto", "cpu")


def test_bfloat16_is_refused_only_for_networks_that_need_it(without_bfloat16_lstm, settings, tmp_path: Path):
    require_precision(nn.Linear(2, 2), "bf16-mixed", "cpu")
    with pytest.raises(InputError) as refusal:
        train(settings(train__precision="bf16-mixed", data__packed=str(tmp_path / "packed")))
    assert str(refusal.value) == LSTM_NEEDED
    assert not Path(settings()["experiment"]).exists() and not (tmp_path / "packed").exists()


AMX_SHAPES = {
    "12 channels, kernel of 8": (lambda: nn.Conv1d(12, 12, 8, 8), (2, 12, 799)),
    "to a single column": (lambda: nn.Conv2d(32, 32, (3, 3), (1, 2), (1, 0)), (2, 32, 16, 3)),
    "from a single column": (lambda: nn.ConvTranspose2d(32, 32, (3, 3), (1, 2), (1, 0)), (2, 32, 16, 1)),
}
"""Convolutions that were garbage in bfloat16 on processors with AMX, forward or backward."""


@pytest.mark.processor
@pytest.mark.parametrize("name", AMX_SHAPES)
def test_convolutions_of_a_run_in_half_precision_are_right(name: str):
    torch.manual_seed(0)
    make, shape = AMX_SHAPES[name]
    network, x = nn.Sequential(make()), torch.randn(shape)
    convolve_in_float32(network, "auto", "cpu")
    is_half, results = resolve_precision("auto", "cpu") == "bf16-mixed", []
    for half in (False, is_half):
        inputs = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = network(inputs).float()
        network.zero_grad()
        output.backward(torch.linspace(-1, 1, output.numel()).reshape(output.shape))
        results.append([output.detach(), inputs.grad, network[0].weight.grad.clone()])
    for whole, half in zip(*results, strict=True):
        assert (half - whole).norm() < 0.02 * whole.norm()


@pytest.mark.parametrize("amx", [False, True])
def test_with_amx_convolutions_compute_in_float32(monkeypatch: pytest.MonkeyPatch, with_bfloat16, amx: bool):
    monkeypatch.setattr(devices, "has_amx", lambda: amx)
    network = nn.Sequential(nn.Conv1d(16, 16, 3), nn.ReLU(), nn.Conv1d(16, 4, 1))
    names = list(network.state_dict())
    assert convolve_in_float32(network, "32-true", "cpu") == convolve_in_float32(network, "auto", "cuda") == 0
    assert convolve_in_float32(network, "auto", "cpu") == (2 if amx else 0)
    assert list(network.state_dict()) == names
    copied = copy.deepcopy(network)
    with torch.no_grad():
        copied[2].weight.zero_(), copied[2].bias.fill_(2.0)
        with torch.autocast("cpu", torch.bfloat16):
            output = copied(torch.randn(1, 16, 20))
    assert output.dtype == (torch.float32 if amx else torch.bfloat16) and (output == 2).all()


def test_bfloat16_without_matrix_products_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(half_precision, "problem_with", lambda op, device="cpu": "no primitive")
    with pytest.raises(InputError, match="cannot run a matrix product in bfloat16; use auto or 32-true"):
        make_fabric(TrainLoopConfig(device="cpu", precision="bf16-mixed"))


@pytest.mark.parametrize(("before", "after"), [("auto", "bf16-mixed"), ("bf16-mixed", "auto")])
def test_a_run_resumes_under_another_name_of_its_precision(before: str, after: str, with_bfloat16, settings):
    experiment = Experiment(settings()["experiment"])
    experiment.write_config(load_config(settings(train__precision=before)))
    experiment.state.mkdir()
    (experiment.state / "last.pt").touch()
    experiment.check(load_config(settings(train__precision=after)))
    with pytest.raises(ConfigError, match=r"train\.precision"):
        experiment.check(load_config(settings(train__precision="32-true")))


@pytest.mark.processor
def test_the_printed_precision_is_the_one_used(settings, capsys):
    train(settings(train__precision="auto", train__steps=1, log__to=[]))
    expected = "float32 (this" if half_precision.unsupported("cpu") else "bfloat16 with"
    assert expected in capsys.readouterr().err


def test_a_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="finds no CUDA device"):
        make_fabric(TrainLoopConfig(device="cuda"))
    assert make_fabric(TrainLoopConfig(device="auto")).device.type == "cpu"


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        make_fabric(TrainLoopConfig(device="cpu", threads=3))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_two_ranks_by_torchrun_train_as_one(settings, validation, tmp_path: Path):
    """Two processes with batches of 2 take the data of one with batches of 4, and end with nearly its weights.

    Without batch norm, whose statistics are each rank's own, the gradients are the same but for rounding; only
    Adam's division makes more of it.
    """
    common = {
        "train__steps": 2, "simulation__num_speakers": 2, "train__targets_per_mixture": "all",
        "model__speaker": None, "model__cues": [{"name": "tf_map"}], "validation": validation,
    }  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = {"one": (4, ["-m"]), "two": (2, ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"])}
    for name, (batch_size, launcher) in runs.items():
        config = tmp_path / f"{name}.yaml"
        config.write_text(dump_yaml(settings(experiment=str(tmp_path / name), train__batch_size=batch_size, **common)))
        command = [sys.executable, *launcher, "wesep_py.cli.train", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
        assert done.returncode == 0, done.stderr
    single, double = (checkpoint.load(tmp_path / name / "checkpoints" / "last") for name in runs)
    assert single.provenance["mixtures"] == double.provenance["mixtures"] == 8
    for key, value in single.state_dict.items():
        torch.testing.assert_close(double.state_dict[key], value, atol=2e-3, rtol=0)
    count = checkpoint.load(tmp_path / "two" / "checkpoints" / "best").provenance["validation"]["count"]
    assert count == 2


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
def test_a_step_reuses_the_pages_of_the_one_before():
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", MEASURE, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 0.3 * faults("release")


def gradients_of(twice: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Return the gradients of a small network, and how many numbers were stored for them."""
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


def test_recomputed_blocks_have_the_same_gradients_in_less_memory():
    (once, all_kept), (twice, kept) = gradients_of(False), gradients_of(True)
    assert kept < 0.7 * all_kept
    assert once.keys() == twice.keys() and len(once) > 10
    for name, gradient in once.items():
        torch.testing.assert_close(twice[name], gradient)


def test_recomputing_without_blocks_is_refused():
    with pytest.raises(ConfigError, match="has no blocks to compute again"):
        recompute_blocks(nn.Linear(2, 2))
