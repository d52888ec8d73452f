"""`wesep train` and `wesep simulate` with unknown keys, wrong types and impossible values."""

from __future__ import annotations

from pathlib import Path

import pytest

GOOD = """
experiment: {folder}/exp
model:
  backbone: {{name: bsrnn, feature_dim: 8, num_blocks: 1}}
  cues: [{{name: tf_map}}]
data:
  root: {folder}
  train: [train.jsonl]
train:
  steps: 1
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(GOOD.format(folder=tmp_path))
    return path


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lrr=0.1", ["optim.lrr", "unknown key", "'lr'"]),
        ("optm.lr=0.1", ["optm", "unknown key", "'optim'"]),
        ("model.backbone.num_block=2", ["num_block", "'num_blocks'"]),
        ("model.backbone.name=bsrn", ["'bsrn'", "'bsrnn'"]),
        ("model.cues=[{name: tfmap}]", ["'tfmap'", "'tf_map'"]),
        ("optim.lr=fast", ["optim.lr", "'fast'", "a number"]),
        ("optim.lr=-1", ["optim", "lr", "-1"]),
        ("train.steps=0", ["steps", "0", "1"]),
        ("train.steps=2.5", ["train.steps", "2.5", "a whole number"]),
        ("train.precision=fp8", ["train.precision", "fp8", "32-true"]),
        ("simulation.sir_db=[5, -5]", ["sir_db"]),
        ("data.train=train.jsonl", ["data.train", "a list"]),
        ("seed=none", ["seed"]),
    ],
)
def test_errors_name_wrong_keys_types_and_values(wesep, config: Path, override: str, parts: list[str]):
    ran = wesep("train", config, override)
    assert ran.status == 2, ran.err
    assert all(part in ran.message for part in parts), ran.message
    assert not (config.parent / "exp").exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("model: [unclosed", "is not valid YAML"),
        ("just a text", "holds no mapping"),
        ("- a list\n- of texts", "holds no mapping"),
        ("", "missing"),
        ("experiment: x\ninclude: [no_such_block.yaml]\n", "no_such_block.yaml"),
    ],
)
@pytest.mark.parametrize("command", ["train", "simulate"])
def test_a_file_that_is_not_a_configuration_is_refused(wesep, tmp_path: Path, command: str, content: str, part: str):
    (tmp_path / "bad.yaml").write_text(content)
    output = ["-o", tmp_path / "out"] if command == "simulate" else []
    ran = wesep(command, tmp_path / "bad.yaml", *output)
    assert ran.status == 2 and part in ran.message, ran.err


@pytest.mark.parametrize("command", ["train", "simulate"])
def test_a_missing_configuration_is_refused(wesep, tmp_path: Path, command: str):
    output = ["-o", tmp_path / "out"] if command == "simulate" else []
    ran = wesep(command, tmp_path / "missing.yaml", *output)
    assert ran.status == 2 and "missing.yaml: no such file" in ran.message
