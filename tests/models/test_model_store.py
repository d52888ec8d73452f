"""The model store: where it is, how its models are found by name, and what is removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import wesep_py
from wesep_py import checkpoint, models
from wesep_py.common.errors import CheckpointError, InputError
from wesep_py.models.model_store import (
    check_model_name,
    installed_model,
    installed_models,
    models_folder,
    remove_installed,
    store_folder,
)


@pytest.fixture
def store(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a store with the model `mine`, and things that are no models."""
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "home"))
    shutil.copytree(tiny_model, tmp_path / "home" / "models" / "mine")
    for name in (".mine.wesep-0123456789abcdef.partial", "unfinished"):
        (tmp_path / "home" / "models" / name).mkdir()
    return tmp_path / "home"


def test_the_folder_is_that_of_the_platform_or_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("WESEP_HOME", "~/models")
    assert store_folder() == Path.home() / "models"
    monkeypatch.delenv("WESEP_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    from platformdirs import user_data_dir

    assert store_folder() == Path(user_data_dir("wesep", appauthor=False)) and store_folder().name == "wesep"


def test_installed_models_are_found_by_name(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert list(installed_models()) == ["mine"] and models_folder() == store / "models"
    assert installed_model("mine") == store / "models" / "mine"
    assert installed_model("unfinished") is None and installed_model("../models/mine") is None
    assert models.find_model("mine") == ("mine", store / "models" / "mine")
    assert checkpoint.resolve("mine") == store / "models" / "mine"
    assert checkpoint.load("mine").hash == checkpoint.load(store / "models" / "mine").hash
    assert wesep_py.load("mine", device="cpu").name == "mine"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert models.find_model("mine") == ("mine", Path("mine")), "a path has priority"


def test_no_store_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("WESEP_HOME", str(tmp_path / "nowhere"))
    assert installed_models() == {} and installed_model("mine") is None


def test_a_name_that_is_not_installed_is_explained(store: Path):
    with pytest.raises(CheckpointError, match=r"dvector: is not installed; `wesep models pull dvector` installs it"):
        models.find_model("dvector")
    with pytest.raises(
        CheckpointError, match=r"dvectr: no such model; did you mean 'dvector', which `wesep models pull"
    ):
        checkpoint.load("dvectr")
    with pytest.raises(CheckpointError, match=r"nime: no such model; did you mean 'mine'\?"):
        models.find_model("nime")


def test_a_bundled_model_has_priority(store: Path, tiny_model: Path):
    shutil.copytree(tiny_model, store / "models" / "base")
    assert models.find_model("base")[1] == models.MODELS_FOLDER / "base"


def test_only_what_the_store_wrote_is_removed(store: Path):
    folder = store / "models" / "mine"
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other things than a checkpoint \(notes\.txt\)"):
        remove_installed("mine")
    assert checkpoint.load(folder)
    (folder / "notes.txt").unlink()
    (folder / "provenance.json").rename(store / "kept.json")
    with pytest.raises(InputError, match="was not written by this package"):
        remove_installed("mine")
    (store / "kept.json").rename(folder / "provenance.json")
    assert remove_installed("mine") == folder and not folder.exists() and installed_models() == {}
    with pytest.raises(InputError, match=r"no model called 'mine' is installed; none is"):
        remove_installed("mine")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "a b", "x" * 101, "-rf"])
def test_names_that_are_no_folder_are_refused(name: str):
    with pytest.raises(InputError, match="is no name for a model"):
        check_model_name(name)


def test_a_linked_model_is_not_emptied(store: Path, tmp_path: Path, tiny_model: Path):
    shutil.copytree(tiny_model, tmp_path / "elsewhere")
    (store / "models" / "linked").symlink_to(tmp_path / "elsewhere")
    assert checkpoint.load("linked")
    with pytest.raises(InputError, match="is a link"):
        remove_installed("linked")
    assert checkpoint.load(tmp_path / "elsewhere")
