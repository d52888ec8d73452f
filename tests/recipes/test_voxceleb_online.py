"""recipes/voxceleb_online, through all of its stages, on a miniature of VoxCeleb1 and 2, MUSAN and Libri2Mix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipes.miniature import RECIPES, check_results, run_recipe
from tests.recipes.miniature_voxceleb import DEV, VOX2, make_libri2mix, make_musan, make_voxceleb1, make_voxceleb2
from wesep_py.data import read_manifest
from wesep_py.data.lmdb_store import LMDBStore
from wesep_py.data.shard_store import ShardStore
from wesep_py.simulation.rooms.room_bank import RoomBank
from wesep_py.training import load_config

GIVEN = ("experiment=e", "data.root=d", "data.train=[t]", "simulation.room.bank=rooms", "validation.root=v")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    make_voxceleb1(folder / "voxceleb1")
    make_voxceleb2(folder / "voxceleb2")
    make_musan(folder / "musan")
    make_libri2mix(folder)
    return folder


@pytest.fixture(scope="module")
def experiment(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all stages, and return the folder that they fill."""
    folder = tmp_path_factory.mktemp("exp")
    ran = run_recipe("voxceleb_online", "--data", data, "--exp", folder, "--jobs", 1, "--smoke", "optim.lr=0.0005")
    assert ran.returncode == 0, ran.stderr
    assert [line[:10] for line in ran.stderr.splitlines() if line.startswith("==")] == [
        f"== stage {n}" for n in range(1, 6)
    ]
    return folder


def test_shards_noise_and_rooms(data: Path, experiment: Path):
    work = data / "voxceleb_online"
    vox1, vox2 = (ShardStore(work / "shards" / name).utterances() for name in ("vox1_dev", "vox2_dev"))
    assert {u.speaker_id for u in vox1} == set(DEV) and len(vox1) == 12
    assert {(u.speaker_id, u.gender) for u in vox2} == {(VOX2[0], "f"), (VOX2[1], "m")}
    noises = LMDBStore(work / "musan.lmdb").utterances()
    assert {noise.path.parts[-3] for noise in noises} == {"music", "noise", "speech"}
    assert len(RoomBank(work / "rooms").rooms) == 4


def test_trials_are_of_disjoint_test_speakers(data: Path, experiment: Path):
    work, listed = data / "voxceleb_online", {}
    for name in ("dev", "test"):
        listed[name] = {u.speaker_id for u in read_manifest(work / f"{name}.csv", root=data)}
        recipes = map(json.loads, (work / "trials" / name / "recipes.jsonl").read_text().splitlines())
        drawn = {source["excerpt"]["utterance"]["speaker_id"] for recipe in recipes for source in recipe["sources"]}
        assert drawn <= listed[name]
    assert listed == {"dev": {"id10270", "id10271"}, "test": {"id10290", "id10291"}}


def test_both_corpora_and_overridden_keys_reach_the_training(experiment: Path):
    config = load_config(experiment / "config.yaml")
    assert (config.optim.lr, config.train.steps) == (0.0005, 4)
    assert config.data.train == ["shards/vox1_dev", "shards/vox2_dev"]
    card = (experiment / "checkpoints/average/card.md").read_text()
    assert "5 speakers" in card


@pytest.mark.parametrize(("name", "trials"), [("voxceleb1_clean", 6), ("voxceleb1_noisy", 6), ("libri2mix_clean", 4)])
def test_all_trials_are_scored_and_reported(experiment: Path, name: str, trials: int):
    summary = check_results(experiment, "checkpoints/best2", f"results/{name}", trials)
    assert summary["protocol"]["condition"].startswith(name.split("_")[1])


def test_missing_input_is_a_one_line_error(data: Path, tmp_path: Path):
    (tmp_path / "voxceleb1").mkdir()
    for arguments, message in (
        (["--data", data, "--system", "bsrn"], "--system takes the name of a YAML"),
        (["--daat", data], "unknown option --daat"),
        (["--data", tmp_path], "https://www.openslr.org/17"),
    ):
        ran = run_recipe("voxceleb_online", *arguments)
        lines = [line for line in ran.stderr.splitlines() if not line.startswith("==")]
        assert ran.returncode == 1 and len(lines) == 1 and message in lines[0], ran.stderr


@pytest.mark.parametrize("system", ["bsrnn", "bsrnn_tfmap", "bsrnn_multilevel", "smoke"])
def test_each_system_is_a_valid_configuration(system: str):
    config = load_config(RECIPES / "voxceleb_online" / f"{system}.yaml", GIVEN)
    assert config.simulation.room.bank == "rooms" and config.simulation.target == "early"
    music = config.simulation.noise.groups[1]
    assert (music.folder, tuple(music.snr_db)) == ("musan/music", (5, 15))
