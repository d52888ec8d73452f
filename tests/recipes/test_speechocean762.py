"""recipes/speechocean762 and recipes/speaker, through all of their stages, on a miniature in the real layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipes.miniature import check_results, run_recipe
from tests.recipes.miniature_speechocean762 import SETS, make_noise, make_speechocean762
from wesep_py.data import read_manifest
from wesep_py.training import load_config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    make_speechocean762(folder / "speechocean762")
    make_noise(folder / "noise")
    return folder


def test_all_stages_run_from_the_downloaded_corpus(data: Path, tmp_path: Path):
    work = tmp_path / "work"
    ran = run_recipe("speechocean762", "--data", data, "--work", work, "--exp", tmp_path / "exp", "--smoke", "seed=3")
    assert ran.returncode == 0, ran.stderr
    for name, subset in (("train", "train"), ("dev", "test")):
        utterances = read_manifest(work / f"{name}.csv", root=data / "speechocean762")
        assert {u.speaker_id for u in utterances} == set(SETS[subset]) and len(utterances) == 3 * len(SETS[subset])
        assert {u.gender for u in utterances} == {"m", "f"} and utterances[0].text == "WE CALL IT BEAR"
    for condition in ("clean", "noisy"):
        summary = check_results(tmp_path / "exp", "checkpoints/last2", f"results/{condition}", trials=4)
        assert summary["protocol"]["condition"].startswith(condition)
        assert "gender_pair" in summary["breakdown"]
    config = load_config(tmp_path / "exp/config.yaml")
    assert (config.seed, config.train.steps, config.train.max_minutes) == (3, 4, None)


def test_existing_manifests_and_trials_are_used(tmp_path: Path):
    for name in ("speech/train.csv", "speech/dev.csv", "trials/dev_2mix.csv", "noise/train/a.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ran = run_recipe("speechocean762", "--data", tmp_path, "--stop-stage", 1)
    assert ran.returncode == 0, ran.stderr
    assert not (tmp_path / "speechocean762_lists").exists()


@pytest.mark.parametrize("recipe", ["speechocean762", "speaker"])
def test_missing_input_is_a_one_line_error(recipe: str, tmp_path: Path):
    ran = run_recipe(recipe, "--data", tmp_path)
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("==")]
    assert ran.returncode == 1 and len(lines) == 1 and "https://www.openslr.org/101" in lines[0], ran.stderr


def test_a_speaker_encoder_is_trained_averaged_and_verified(data: Path, tmp_path: Path):
    exp = tmp_path / "exp"
    ran = run_recipe("speaker", "--data", data, "--work", tmp_path, "--exp", exp, "--smoke")
    assert ran.returncode == 0, ran.stderr
    assert (exp / "checkpoints/last2/model.safetensors").is_file()
    summary = json.loads((exp / "results/dev/summary.json").read_text())
    assert summary["counts"]["trials"] == 9 * 8 / 2 and summary["counts"]["target"] == 3 * 3
    assert 0 <= summary["eer"]["mean"] <= 1
