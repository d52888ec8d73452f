"""`wesep train` at the command line. What a run does is tested in tests/training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wesep_py.audio import info
from wesep_py.common.config import load_yaml
from wesep_py.data import Utterance, write_manifest

CONFIG = """
experiment: {folder}/exp
model:
  backbone: {{name: bsrnn, feature_dim: 8, num_blocks: 1}}
  cues: [{{name: tf_map}}]
data: {{root: {folder}, train: [train.jsonl], workers: 0}}
simulation: {{duration_s: 1, min_source_s: 0.5, enrollment: {{duration_s: [0.5, 1]}}}}
train: {{steps: 2, batch_size: 1, device: cpu}}
"""


@pytest.fixture
def config(tiny_speech: Path, tmp_path: Path) -> Path:
    files = sorted(tiny_speech.rglob("*.wav"))
    write_manifest([Utterance(f.stem, f.parent.name, f, info(f).duration_s) for f in files], tmp_path / "train.jsonl")
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def test_overrides_reach_the_run_and_its_configuration(wesep, config: Path):
    ran = wesep("train", config, "optim.lr=0.005", "train.steps=1", "--threads", "1")
    assert ran.status == 0, ran.err
    assert "exp: 1 steps" in ran.out and "finished: 1 steps" in ran.err
    resolved = load_yaml(config.parent / "exp" / "config.yaml")
    assert resolved["optim"]["lr"] == 0.005 and resolved["train"]["threads"] == 1
    assert resolved["schedule"]["name"] == "cosine" and resolved["schedule"]["warmup_steps"] == 200


def test_json_result_of_a_run_and_of_a_finished_one(wesep, config: Path):
    first = json.loads(wesep("train", config, "--json").out)
    assert first == {
        "experiment": str(config.parent / "exp"), "step": 2, "skipped": 0, "best": None, "measure": "",
        "was_finished": False,
    }  # fmt: skip
    tried = wesep("train", config, "--dry-run")
    assert "is finished, after 2 steps; for more, raise train.steps" in tried.out and "would" not in tried.out
    assert "would resume at step 2" in wesep("train", config, "--dry-run", "train.steps=3").out
    again = wesep("train", config, "--json")
    assert json.loads(again.out) == {**first, "was_finished": True}
    assert "is finished" in again.err


def test_a_trained_model_extracts(wesep, config: Path, tiny_speech: Path, tmp_path: Path):
    assert wesep("train", config).status == 0
    arguments = ["--enroll", tiny_speech / "anna" / "anna-0.wav", "--model", tmp_path / "exp"]
    ran = wesep("extract", tiny_speech / "bert" / "bert-0.wav", *arguments, "-o", tmp_path / "out.wav")
    assert ran.status == 0, ran.err
    assert info(tmp_path / "out.wav").num_samples == info(tiny_speech / "bert" / "bert-0.wav").num_samples


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["no_such.yaml"], "no_such.yaml: no such file"),
        (["{config.parent}"], "is a folder; give the path of a YAML configuration"),
        (["{config}", "optim.lr"], "give it as key=value"),
        (["{config}", "optim.lr=0"], "lr is 0.0; it must be above 0"),
        (["{config}", "data.train=[gone.jsonl]"], "gone.jsonl"),
        (["{config}", "data.noise=[gone]"], "gone is neither a manifest"),
        (["{config}", "validation={{trials: gone.csv, enrollment: gone.map}}"], "gone"),
        (["{config}", "experiment={config}"], "train.yaml"),
    ],
)
def test_wrong_input_is_a_one_line_error(wesep, config: Path, arguments: list[str], part: str):
    ran = wesep("train", *(argument.format(config=config) for argument in arguments))
    assert ran.status == 2 and part in ran.message
    assert not (config.parent / "exp").exists()


def test_a_dry_run_reports_one_step_and_writes_nothing(wesep, config: Path):
    before = set(config.parent.rglob("*"))
    ran = wesep("train", config, "--dry-run")
    assert ran.status == 0, ran.err
    assert "would begin" in ran.out and "si_sdr" in ran.out and "nothing written" in ran.out
    outcome = json.loads(wesep("train", config, "--dry-run", "--json").out)
    assert (
        outcome["step"] == 0 and outcome["speakers"] == 4 and outcome["losses"]["loss"] == outcome["losses"]["si_sdr"]
    )
    assert set(config.parent.rglob("*")) == before
    ran = wesep("train", config, "--dry-run", "loss.name=presence")
    assert ran.status == 2 and "needs a presence head" in ran.message


def test_help_shows_an_example(wesep):
    ran = wesep("train", "--help")
    assert ran.status == 0 and "Example: wesep train" in " ".join(ran.out.split())
