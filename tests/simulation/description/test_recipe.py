"""Recipes: JSON round trips without loss, and messages that name the line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wesep_py.common.errors import ConfigError, InputError, OutputExistsError
from wesep_py.data import FileReader, Utterance
from wesep_py.simulation import (
    EnrollmentConfig,
    NoiseConfig,
    Recipe,
    RoomConfig,
    SimulationConfig,
    Simulator,
    read_recipes,
    render,
    write_recipes,
)


@pytest.fixture(scope="module")
def recipes(utterances: list[Utterance], noises: list[Utterance], reader: FileReader) -> list[Recipe]:
    config = SimulationConfig(
        duration_s=1.5,
        num_speakers={1: 1, 2: 1, 3: 1},
        overlap={"full": 1, "longest": 1, "partial": 1},
        noise=NoiseConfig(probability=0.8, kinds={"recording": 1, "coloured": 1, "babble": 1}),
        room=RoomConfig(probability=0.5),
        target="early",
        enrollment=EnrollmentConfig(duration_s=(1.0, 2.0), count=2),
    )
    simulator = Simulator(config, utterances, noises, reader, seed=7)
    return [simulator.draw(epoch, index) for epoch in range(2) for index in range(10)]


def test_json_round_trip_is_exact(recipes: list[Recipe], reader: FileReader) -> None:
    for recipe in recipes:
        again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
        assert again == recipe
    ours, theirs = render(recipes[0], reader), render(Recipe.from_dict(recipes[0].to_dict()), reader)
    assert np.array_equal(ours.mixture, theirs.mixture)


def test_file_round_trip_is_exact(recipes: list[Recipe], tmp_path: Path) -> None:
    path = tmp_path / "recipes.jsonl"
    assert write_recipes(recipes, path) == len(recipes)
    assert list(read_recipes(path)) == recipes
    with pytest.raises(OutputExistsError):
        write_recipes(recipes, path)


def test_mixture_ids_are_distinct(recipes: list[Recipe]) -> None:
    assert len({recipe.mixture_id for recipe in recipes}) == len(recipes)


def test_bad_lines_are_named(recipes: list[Recipe], tmp_path: Path) -> None:
    path = tmp_path / "recipes.jsonl"
    good = json.dumps(recipes[0].to_dict())
    path.write_text(f"{good}\n{{broken\n")
    with pytest.raises(InputError, match=r"recipes\.jsonl:2: is not JSON"):
        list(read_recipes(path))
    path.write_text(good.replace('"offset"', '"ofset"') + "\n")
    with pytest.raises(ConfigError, match=r"recipes\.jsonl:1\.sources\[0\]\.ofset: unknown key; did you mean 'offset'"):
        list(read_recipes(path))
    path.write_text(good.replace('"version": 1', '"version": 99') + "\n")
    with pytest.raises(InputError, match=r":1: has format version 99; this program reads 1"):
        list(read_recipes(path))
    with pytest.raises(InputError, match="no such file"):
        list(read_recipes(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 10**12}, "num_samples: is 1000000000000; its sources say"),
        ({"num_samples": 10**30}, "num_samples: is a number of 31 digits"),
        ({"num_samples": 10}, "offset: .* is placed from sample"),
        ({"sample_rate": 10**9}, "sample_rate: is 1000000000; 1 to"),
        ({"target": 7}, "target: is 7; there are"),
    ],
)
def test_impossible_sizes_are_refused_before_allocation(
    recipes: list[Recipe], tmp_path: Path, change: dict, message: str
) -> None:
    path = tmp_path / "recipes.jsonl"
    recipe = next(recipe for recipe in recipes if recipe.target is not None)
    path.write_text(json.dumps(recipe.to_dict() | change) + "\n")
    with pytest.raises(ConfigError, match=message):
        list(read_recipes(path))


def test_impossible_rooms_are_refused(recipes: list[Recipe], tmp_path: Path) -> None:
    values = next(recipe for recipe in recipes if recipe.room is not None).to_dict()
    for key, value in (("num_reflections", 10**12), ("rt60_s", 1e9)):
        (tmp_path / "r.jsonl").write_text(json.dumps(values | {"room": values["room"] | {key: value}}) + "\n")
        with pytest.raises(ConfigError, match=f"room.{key}: is"):
            list(read_recipes(tmp_path / "r.jsonl"))
