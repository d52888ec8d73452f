"""`from_pretrained`, `save_pretrained` and `push_to_hub`: the names of the Hugging Face ecosystem."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import wesep_py
from tests.models.hub_server import TOKEN, HubServer
from wesep_py import Extractor, checkpoint
from wesep_py.common.errors import CheckpointError, InputError, OutputExistsError, WesepError
from wesep_py.inference import Calibration
from wesep_py.models import MODELS_FOLDER
from wesep_py.network.extraction_network import load_network

BASE = MODELS_FOLDER / "base"


@pytest.fixture
def published(hub: HubServer, tiny_model: Path) -> HubServer:
    """The stand-in with the tiny model as `alice/tiny`, on the branches `main` and `v2`."""
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    hub.add("alice/tiny", files)
    hub.add("alice/tiny", {**files, "README.md": b"# On a branch"}, branch="v2")
    return hub


def test_a_repository_a_folder_or_a_name(published: HubServer, tiny_model: Path):
    expected = checkpoint.load(tiny_model).hash
    loaded = {name: Extractor.from_pretrained(name, device="cpu") for name in ("alice/tiny", "hf:alice/tiny")}
    assert {extractor.model_hash for extractor in loaded.values()} == {expected}
    assert {extractor.name for extractor in loaded.values()} == {"hf:alice/tiny"}
    assert Extractor.from_pretrained(tiny_model, device="cpu").model_hash == expected
    assert Extractor.from_pretrained("base", device="cpu").name == "base"
    with pytest.raises(CheckpointError, match="bsae: no such model; did you mean 'base'"):
        Extractor.from_pretrained("bsae")
    with pytest.raises(CheckpointError, match="no such model"):
        Extractor.from_pretrained(tiny_model / "gone")
    with pytest.raises(InputError, match="the model is int; ORG/NAME, a folder or a name is needed"):
        Extractor.from_pretrained(3)


def test_a_relative_folder_has_priority(published: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(BASE, tmp_path / "alice" / "tiny")
    assert Extractor.from_pretrained("alice/tiny", device="cpu").model_hash == checkpoint.load(BASE).hash
    assert not published.calls


def test_revisions(published: HubServer, tiny_model: Path, tmp_path: Path):
    branch = Extractor.from_pretrained("alice/tiny", revision="v2", device="cpu")
    assert branch.name == "hf:alice/tiny@v2"
    # The card of the Hub is `README.md`, unless the repository has ours.
    assert (branch.save_pretrained(tmp_path / "saved") / "card.md").read_bytes() == (
        tiny_model / "card.md"
    ).read_bytes()
    with pytest.raises(InputError, match="revision: is v2, but hf:alice/tiny@v1 names another one"):
        Extractor.from_pretrained("hf:alice/tiny@v1", revision="v2")
    with pytest.raises(InputError, match=r"revision: is v2, but .* is not on the Hub; leave it out"):
        Extractor.from_pretrained(tiny_model, revision="v2")


def test_the_options_of_the_ecosystem(published: HubServer, tmp_path: Path):
    published.repositories["alice/tiny"].private = True
    cache = tmp_path / "elsewhere"
    with pytest.raises(WesepError, match="is not in the cache, and only the cache was asked"):
        Extractor.from_pretrained("alice/tiny", cache_dir=cache, local_files_only=True)
    extractor = Extractor.from_pretrained("alice/tiny", cache_dir=cache, token=TOKEN, device="cpu", shifts=2)
    assert extractor.shifts == 2 and cache.is_dir() and not (tmp_path / "cache").exists()
    del published.calls[:]
    Extractor.from_pretrained("alice/tiny", cache_dir=cache, local_files_only=True, device="cpu")
    assert not published.calls
    Extractor.from_pretrained("alice/tiny", cache_dir=cache, token=TOKEN, force_download=True, device="cpu")
    assert any(call.startswith("GET") and "/resolve/" in call for call in published.calls)


@pytest.mark.parametrize("live", [False, True])
def test_a_loaded_model_is_saved_as_it_was(tmp_path: Path, live: bool):
    extractor = wesep_py.load("base", device="cpu", live=live)
    folder = extractor.save_pretrained(tmp_path / "copy")
    for name in ("model.safetensors", "config.yaml", "provenance.json", "card.md"):
        assert (folder / name).read_bytes() == (BASE / name).read_bytes()
    with pytest.raises(OutputExistsError, match="exists already"):
        extractor.save_pretrained(folder)
    assert wesep_py.load(folder, device="cpu").save_pretrained(tmp_path / "copy2").is_dir()
    with pytest.raises(InputError, match="is the checkpoint that was loaded, which is read"):
        wesep_py.load(folder, device="cpu").save_pretrained(folder, overwrite=True)


def test_a_changed_model_is_saved_with_its_own_weights(tmp_path: Path):
    extractor = wesep_py.load("base", device="cpu")
    with torch.no_grad():
        next(extractor.network.parameters()).add_(1.0)
    saved = checkpoint.load(extractor.save_pretrained(tmp_path / "changed"))
    name, parameter = next(iter(extractor.network.named_parameters()))
    assert torch.equal(saved.state_dict[name], parameter)
    assert saved.provenance["changed_from"] == checkpoint.load(BASE).hash != saved.hash
    assert "bundle" not in saved.provenance, "the figures are those of other weights"
    assert wesep_py.load(tmp_path / "changed", device="cpu").calibration == extractor.calibration


def test_a_network_without_a_checkpoint_is_saved(tiny_model: Path, tmp_path: Path):
    calibration = replace(Calibration(), threshold=0.25)
    extractor = Extractor(load_network(tiny_model), calibration=calibration)
    folder = extractor.save_pretrained(tmp_path / "new")
    assert checkpoint.load(folder).hash == checkpoint.load(tiny_model).hash
    assert wesep_py.load(folder, device="cpu").calibration == calibration


def test_push_to_hub(hub: HubServer, tiny_model: Path):
    extractor = wesep_py.load("base", device="cpu", live=True)
    url = extractor.push_to_hub("alice/base", commit_message="From Python", token=TOKEN, branch="v1", private=True)
    repository = hub.repositories["alice/base"]
    assert url == f"{hub.url}/alice/base/commit/{repository.branches['v1']}"
    assert repository.private and repository.messages[-1] == "From Python"
    again = Extractor.from_pretrained("alice/base", revision="v1", token=TOKEN, device="cpu")
    assert again.model_hash == extractor.model_hash
    with pytest.raises(InputError, match="states no licence of the weights; pass one"):
        wesep_py.load(tiny_model, device="cpu").push_to_hub("alice/tiny", token=TOKEN)
    wesep_py.load(tiny_model, device="cpu").push_to_hub("alice/tiny", token=TOKEN, licence="mit")
    assert checkpoint.load("hf:alice/tiny").hash == checkpoint.load(tiny_model).hash
