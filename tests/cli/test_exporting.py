"""`wesep export` and `wesep bench` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wesep_py import checkpoint
from wesep_py.network.extraction_network import build_network


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = build_network(
        {"backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1}, "cues": [{"name": "tf_map"}]}
    )
    return checkpoint.save(tmp_path / "model", network.config, network.state_dict())


def test_export_and_measure(model: Path, tmp_path: Path, wesep: Callable):
    folder = tmp_path / "exported"
    done = wesep("export", model, "-o", folder)
    assert done.status == 0 and "extract.onnx" in done.out and not done.err
    assert {path.name for path in folder.iterdir()} == {"enroll.onnx", "extract.onnx", "wesep.json"}
    measured = wesep("bench", folder, "--json", "--seconds", "3")
    assert measured.status == 0 and json.loads(measured.out)["runs_with"] == "onnx"
    again = wesep("export", model, "-o", folder)
    assert again.status == 2 and "exists already" in again.message
    replaced = wesep("export", model, "-o", folder, "--overwrite", "--int8", "--json")
    assert replaced.status == 0 and json.loads(replaced.out)["precision"] == "int8"
    lines = wesep("bench", folder, "--seconds", "3")
    assert lines.status == 0 and "RTF" in lines.out and "cold start" in lines.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no output folder"),
        (("-o", "out", "--int8", "--fp16"), "one of them at most"),
        (("-o", "out", "--stream"), "works on whole recordings only"),
        (("-o", "out", "--format", "onxx"), "onxx"),
        (("-o", "out", "--format", "torchscript", "--fp16"), "for ONNX only"),
    ],
)
def test_mistakes_are_one_line(arguments, message, model: Path, tmp_path: Path, monkeypatch, wesep: Callable):
    monkeypatch.chdir(tmp_path)
    done = wesep("export", model, *arguments)
    assert done.status == 2 and message in done.message and not (tmp_path / "out").exists()


def test_missing_models_are_one_line(tmp_path: Path, wesep: Callable):
    for command in (("export", "-o", tmp_path / "out"), ("bench",)):
        done = wesep(command[0], tmp_path / "nothing", *command[1:])
        assert done.status == 2 and "nothing" in done.message
