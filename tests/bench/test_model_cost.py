"""`bench/model_cost.py` on layers whose cost is known, and the page of `bench/models.py`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import models
from bench.model_cost import ModelCost, count_macs
from wesep_py.network.extraction_network import build_network

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def network():
    backbone = {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}
    return build_network({"backbone": backbone, "cues": [{"name": "tf_map"}], "highpass_hz": 0})


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Linear(7, 11), (2, 5, 7), 2 * 5 * 7 * 11),
        (nn.Conv1d(6, 10, 3), (2, 6, 20), 2 * 18 * 10 * 6 * 3),
        (nn.Conv1d(6, 12, 3, dilation=2, groups=6, padding=2), (2, 6, 20), 2 * 20 * 12 * 3),
        (nn.ConvTranspose1d(6, 10, 4, stride=2), (2, 6, 20), 2 * 20 * 6 * 10 * 4),
        (nn.Conv2d(3, 5, (3, 2), stride=(1, 2)), (1, 3, 10, 8), 8 * 4 * 5 * 3 * 3 * 2),
        (nn.LSTM(7, 9, batch_first=True), (2, 5, 7), 2 * 5 * 4 * 9 * (7 + 9)),
        (nn.LSTM(7, 9, bidirectional=True), (5, 2, 7), 2 * 5 * 2 * 4 * 9 * (7 + 9)),
        (nn.GRU(7, 9, num_layers=2), (5, 2, 7), 2 * 5 * 3 * 9 * ((7 + 9) + (9 + 9))),
    ],
)
def test_layers_are_counted_as_by_hand(layer, shape, macs):
    assert count_macs(layer, torch.randn(shape)) == macs


def test_both_matrix_products_of_attention_are_counted():
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    attention = nn.functional.scaled_dot_product_attention
    assert count_macs(attention, query, key, value) == 2 * 3 * 5 * 7 * (8 + 8)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_counted_recurrent_layers_return_the_right_shapes(layer, batch_first):
    recurrent = layer(4, 6, num_layers=2, bidirectional=True, batch_first=batch_first)
    shapes = []

    def run(x):
        out, state = recurrent(x)
        shapes.append([tuple(tensor.shape) for tensor in (out, *(state if isinstance(state, tuple) else (state,)))])

    run(torch.randn(3, 5, 4))
    count_macs(run, torch.randn(3, 5, 4))
    assert shapes[0] == shapes[1]


def test_layers_compute_as_before_after_counting():
    recurrent, x = nn.LSTM(4, 6), torch.randn(3, 2, 4)
    before = recurrent(x)[0]
    count_macs(recurrent, x)
    assert torch.equal(recurrent(x)[0], before) and before.any()


def test_the_count_of_a_network_is_the_sum_over_its_layers(network):
    """By hand for five frames: each weight of a band counts once per frame, of a layer once per band and frame."""
    frames, bands = 5, network.backbone.num_bands
    matrices = {key: p for key, p in network.backbone.named_parameters() if p.dim() > 1 and "norm" not in key}
    by_band = [p for key, p in matrices.items() if key.endswith(".weight") and not key.startswith("blocks")]
    of_bands = sum(p.numel() for p in by_band if p.shape[1] > 1)  # [bands, 1, features] belongs to a normalisation
    shared = sum(p.numel() for key, p in matrices.items() if key.startswith("blocks"))
    length_s = 4 * 128 / 16000  # five frames: the first and the last are half outside
    size = ModelCost(network).size(length_s)
    prepared = network.prepare(torch.randn(1, 64000))
    tf_map = 2 * frames * prepared["0.frames"][0].numel()
    assert round(size["macs_per_s"] * length_s) == frames * of_bands + frames * bands * shared + tf_map
    assert size["parameters"] == sum(p.numel() for p in network.parameters()) and size["encoder_parameters"] == 0


def test_the_peak_counts_only_memory_of_the_run():
    cost = ModelCost.__new__(ModelCost)
    cost.device = "cpu"
    torch.ones(30 * 2**20 // 4)  # allocated and freed before the run: does not count

    def run():
        torch.ones(60 * 2**20 // 4)

    assert 55 < cost._peak(run) / 2**20 < 70


def test_a_measurement_stops_at_the_memory_limit(tmp_path):
    model = tmp_path / "model.yaml"
    model.write_text("model: {backbone: {name: bsrnn, feature_dim: 8, num_blocks: 1}, cues: [{name: tf_map}]}\n")
    command = [sys.executable, str(ROOT / "bench" / "model_cost.py"), str(model), "memory_200", "--memory-gib", "0.05"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == models.TOO_LARGE, finished.stderr


RESULTS = {
    "size_4": {
        "parameters": 2_500_000,
        "encoder_parameters": 0,
        "macs_per_s": 1.234e9,
        "enrollment_macs_per_s": 5e8,
    },
    "rtf_4": {"rtf": 0.25, "waited": 0.2},
    "memory_4": {"peak_bytes": 2**29},
    "memory_30": {"peak_bytes": 2**31},
    "memory_60": {"over_gib": 8.0},
    "training_3": {"step_s": 1.5, "waited": 0.0, "peak_bytes": 2**30},
}


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """Return a function that runs `bench/models.py` with `RESULTS`; it returns the output and the measurements."""

    def run(*arguments: str):
        measured = []

        def measure(path: Path, what: str, _: argparse.Namespace):
            measured.append((path.stem, what))
            return dict(RESULTS[what])

        monkeypatch.setattr(models, "measure", measure)
        monkeypatch.setattr(sys, "argv", ["bench/models.py", *arguments, "--results", str(tmp_path / "results.jsonl")])
        models.main()
        return capsys.readouterr().out, measured

    return run


def test_the_page_shows_numbers_limits_and_a_busy_machine(bench):
    page, _ = bench("--models", "dpccn")
    row = next(line for line in page.splitlines() if line.startswith("| dpccn |"))
    cells = row.strip("| ").split(" | ")
    assert cells == ["dpccn", "2.50", "0.00", "1.23", "0.50", "0.250 †", "0.50", "2.00", "> 8 GiB", "1.50", "1.00"]
    assert len(cells) == len(models.COLUMNS)
    assert (
        "`python bench/models.py --models dpccn`: " in page and f"torch {torch.__version__.partition('+')[0]}" in page
    )


def test_measured_models_are_not_measured_again(bench):
    assert len(bench("--models", "dpccn", "--memory-gib", "8")[1]) == len(models.MEASUREMENTS)
    assert bench("--models", "dpccn", "--memory-gib", "8")[1] == []
    assert bench("--models", "dpccn", "--memory-gib", "9")[1] == [("dpccn", "memory_60")]
    assert len(bench("--models", "dpccn", "--memory-gib", "8", "--threads", "2")[1]) == len(models.MEASUREMENTS)
    printed = json.loads(bench("--models", "dpccn", "--memory-gib", "8", "--json")[0])
    assert {entry["what"]: entry["model"] for entry in printed} == dict.fromkeys(models.MEASUREMENTS, "dpccn")


def test_a_pattern_that_matches_no_model_is_refused(bench):
    with pytest.raises(SystemExit, match="no YAML file in conf/model matches nothing"):
        bench("--models", "nothing")
