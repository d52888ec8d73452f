"""`wesep prepare wesep` and `wesep prepare espnet`: data of other projects as lists of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.public_layouts import make_espnet, make_voxceleb, make_wesep
from wesep_py.data import read_librimix_metadata, read_manifest, read_mixtures, read_trials


def test_fixed_mixtures_of_wesep(tmp_path: Path, wesep: Callable):
    data, out = make_wesep(tmp_path / "recipe"), tmp_path / "lists"
    ran = wesep("prepare", "wesep", data / "dev", "-o", out)
    assert ran.status == 0, ran.err
    assert ran.out == (
        f"{out}/mixtures.csv: 2 mixtures, 2 speakers (data.mixtures.lists, --trials)\n"
        f"{out}/map_mixture2enrollment: 4 trials (--enrollment)\n"
    )
    written = read_trials(out / "mixtures.csv", out / "map_mixture2enrollment")
    direct = read_trials(data / "dev", data / "dev")
    for ours, theirs in zip(written, direct, strict=True):
        assert (ours.sources, ours.enrollment, ours.target_index, ours.rendered) == (
            theirs.sources,
            theirs.enrollment,
            theirs.target_index,
            theirs.rendered,
        )


def test_training_set_of_wesep_has_no_trials(tmp_path: Path, wesep: Callable):
    data, out = make_wesep(tmp_path / "recipe"), tmp_path / "lists"
    assert wesep("prepare", "wesep", data / "train-100", "-o", out).status == 0
    assert [path.name for path in out.iterdir()] == ["mixtures.csv"]
    assert "exists" in wesep("prepare", "wesep", data / "train-100", "-o", out).message
    assert wesep("prepare", "wesep", data / "train-100/raw.list", "-o", out, "--overwrite").status == 0
    assert len(read_mixtures(out / "mixtures.csv")) == 4


def test_shards_of_wesep_are_unpacked(tmp_path: Path, wesep: Callable):
    data, out = make_wesep(tmp_path / "recipe"), tmp_path / "unpacked"
    ran = wesep("prepare", "wesep", data / "dev/shard.list", "-o", out, "--json")
    assert ran.status == 0 and json.loads(ran.out)["files"][0]["content"] == "2 mixtures, 2 speakers"
    assert len(read_librimix_metadata(out)) == 4


def test_single_utterances_of_wesep(tmp_path: Path, wesep: Callable):
    folder = make_voxceleb(tmp_path / "recipe")
    for name in ("", "raw_online.list"):
        assert wesep("prepare", "wesep", folder / name, "-o", tmp_path / "out", "--overwrite").status == 0
        assert len({u.speaker_id for u in read_manifest(tmp_path / "out/utterances.jsonl")}) == 3
    ran = wesep("prepare", "wesep", folder / "shard_online.list", "-o", tmp_path / "out2")
    assert ran.status == 2 and "holds single utterances" in ran.message and "data.train" in ran.message


def test_espnet(tmp_path: Path, wesep: Callable):
    data = make_espnet(tmp_path / "recipe")
    ran = wesep("prepare", "espnet", data / "train", "-o", tmp_path / "train")
    assert ran.status == 0, ran.err
    assert [line.rpartition(" (")[2] for line in ran.out.splitlines()] == [
        "data.mixtures.lists, --trials)",
        "data.train)",
    ]
    assert len(read_manifest(tmp_path / "train/enrollments.jsonl")) == 6
    assert wesep("prepare", "espnet", data / "dev", "-o", tmp_path / "dev").status == 0
    trials = read_trials(tmp_path / "dev/mixtures.csv", tmp_path / "dev/map_mixture2enrollment")
    assert [trial.target.speaker_id for trial in trials] == ["777", "888", "888", "777"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "utt2spk").unlink(), "utt2spk"),
        (lambda f: remove_speaker(f / "spk2enroll.json", "888"), "has no recording of speaker '888' of mixture"),
        (lambda f: (f / "wav.scp").write_text("k cat a.wav |\n"), "is a command|names a command"),
    ],
)
def test_wrong_lists_are_one_line(tmp_path: Path, wesep: Callable, damage: Callable, message: str):
    import re

    folder = make_wesep(tmp_path / "recipe") / "dev"
    damage(folder)
    ran = wesep("prepare", "wesep", folder, "-o", tmp_path / "out")
    assert ran.status == 2 and re.search(message, ran.message)
    assert not (tmp_path / "out").exists()


def remove_speaker(path: Path, speaker: str) -> None:
    content = json.loads(path.read_text())
    del content[speaker]
    path.write_text(json.dumps(content))


def test_a_folder_without_data_is_refused(tmp_path: Path, wesep: Callable):
    assert "has no wav.scp" in wesep("prepare", "wesep", tmp_path, "-o", tmp_path / "out").message
