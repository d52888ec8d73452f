"""recipes/default: all stages on a miniature in the real layout, and the full-size configurations."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.recipes.miniature import RECIPES, check_results, run_recipe
from tests.recipes.miniature_default import make_data
from wesep_py import checkpoint
from wesep_py.network.extraction_network import build_network
from wesep_py.training import load_config


def test_all_stages_run_and_write_a_bundle(tmp_path: Path):
    counts, exp = make_data(tmp_path / "data"), tmp_path / "exp"
    ran = run_recipe("default", "--data", tmp_path / "data", "--exp", exp, "--smoke", "--hardware", "one toy", "seed=3")
    assert ran.returncode == 0, ran.stderr
    summary = check_results(exp, "checkpoints/whole", "results/dev_2mix/clean", trials=counts["dev_2mix"])
    assert "gender_pair" in summary["breakdown"]
    for name, count in counts.items():
        summary_of_list = json.loads((exp / "results" / name / "clean" / "summary.json").read_text())
        assert summary_of_list["counts"]["trials"] == count
        assert summary_of_list["counts"]["absent" if name.endswith("absent") else "scored"] == count
    first, second = (load_config(folder / "config.yaml") for folder in (tmp_path / "exp_clean", exp))
    assert first.model.presence is None and first.simulation.absent_probability == 0 and first.seed == 3
    assert second.model.presence is not None and second.simulation.absent_probability > 0
    assert second.init.checkpoint == f"{exp}_clean"
    assert "freshly initialised: presence" in ran.stdout + ran.stderr
    bundle = checkpoint.load(exp / "bundle")
    assert bundle.config["presence"]["inputs"] == ["latent", "similarity", "energy", "voice", "mixture"]
    card = (exp / "bundle" / "card.md").read_text()
    assert "| conversations_5/noisy | noisy | 4 |" in card and "| conversations_5/noisy | noisy | 2 |" in card
    lineage = [checkpoint.load(folder).hash for folder in (f"{exp}_clean", exp / "checkpoints/last2")]
    assert [run["hash"] for run in bundle.provenance["went_on_from"]] == lineage
    assert {second.model.level, bundle.config["level"]} == {"learned"} and first.model.level == "fitted"
    mean, whole = (checkpoint.load(exp / "checkpoints" / name).state_dict for name in ("last2", "whole"))
    assert {name.split(".")[0] for name in mean if not torch.equal(mean[name], whole[name])} == {
        "presence",
        "live_presence",
    }
    assert "one toy" in card and "dev_ls_2mix_absent/clean" in card
    present, absent = (exp / "results" / name / "clean" / "summary.json" for name in ("dev_2mix", "dev_2mix_absent"))
    before = present.read_bytes()
    shutil.rmtree(absent.parent)
    stages = ["--stage", "4", "--stop-stage", "5"]
    resumed = run_recipe("default", "--data", tmp_path / "data", "--exp", exp, "--smoke", *stages)
    assert resumed.returncode == 0, resumed.stderr  # only what is missing is evaluated
    assert present.read_bytes() == before and absent.is_file()
    _draw(tmp_path / "data", exp, tmp_path / "drawn")
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"good_1", "good_1.png", "bad_1", "bad_1.png"}
    assert {path.stem for path in (tmp_path / "drawn/bad_1").iterdir()} == {
        "mixture", "enrollment", "estimate", "reference",
    }  # fmt: skip


def _draw(data: Path, exp: Path, output: Path) -> None:
    lists = [
        "--trials", data / "trials/dev_2mix.csv", "--enrollment", data / "trials/dev_2mix.map_mixture2enrollment",
    ]  # fmt: skip
    script, results = RECIPES / "default/draw_trials.py", exp / "results/dev_2mix/clean"
    counts = ["--good", "1", "--typical", "0", "--bad", "1"]
    subprocess.run(
        [sys.executable, script, results, "--model", exp / "bundle", *lists, "--root", data, "-o", output, *counts],
        check=True,
    )


def test_missing_input_is_a_one_line_error(tmp_path: Path):
    ran = run_recipe("default", "--data", tmp_path)
    lines = ran.stderr.splitlines()
    assert ran.returncode == 1 and len(lines) == 1 and "README.md" in lines[0], ran.stderr


@pytest.mark.parametrize(("size", "largest"), [("cpu", 1.0), ("gpu", 8.0)])
def test_the_second_training_uses_all_weights_of_the_first(size: str, largest: float):
    configs = [
        load_config(RECIPES / "default" / f"train_{size}{stage}.yaml", ["data.root=x"]) for stage in ("_clean", "")
    ]
    first, second = (build_network(config.model).state_dict() for config in configs)
    assert {name for name in second if name not in first} == {
        name for name in second if name.startswith(("presence.", "live_presence."))
    }
    assert all(second[name].shape == tensor.shape for name, tensor in first.items())
    assert sum(tensor.numel() for tensor in second.values()) < largest * 1e6
    assert configs[0].experiment != configs[1].experiment
    # Mixture and enrollment have different channels, so that the channel does not reveal the target.
    simulation = configs[1].simulation
    assert simulation.source_effects.equalise and simulation.enrollment.effects.equalise
