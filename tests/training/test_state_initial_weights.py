"""Initial weights from another checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.runs import stop_after, weights
from wesep_py import checkpoint
from wesep_py.common.errors import CheckpointError
from wesep_py.training import TrainingInterrupted, train
from wesep_py.training.state import load_initial_weights
from wesep_py.training.training_config import InitConfig

CUE = [{"name": "embedding", "fusion": "film", "num_speakers": 4}]


@pytest.fixture
def base(settings, tmp_path: Path) -> Path:
    train(settings(experiment=str(tmp_path / "base"), train__steps=2, model__cues=CUE))
    return tmp_path / "base"


def test_another_number_of_speakers_is_freshly_initialised(settings, base: Path, tmp_path: Path, capsys):
    more = [{**CUE[0], "num_speakers": 7}]
    train(
        settings(
            model__cues=more,
            model__presence={"hidden": 4},
            train__steps=1,
            optim__lr=1e-12,
            init={"checkpoint": str(base)},
        )
    )
    message = next(line for line in capsys.readouterr().err.splitlines() if "freshly initialised" in line)
    old, new = weights(base, "average"), weights(tmp_path / "exp")
    taken = [key for key in new if key in old and old[key].shape == new[key].shape]
    fresh = [key for key in new if key not in taken]
    assert {key.partition(".")[0] for key in fresh} == {"cues", "presence"}
    assert (
        f"{len(taken)} of {len(new)} tensors" in message
        and all(key in message for key in fresh)
        and "not used" in message
    )
    trained = [key for key in taken if old[key].is_floating_point() and "running" not in key]
    for key in trained:
        torch.testing.assert_close(new[key], old[key], rtol=1e-5, atol=1e-7)


def test_strict_loads_all_or_nothing(settings, base: Path, tmp_path: Path):
    strict = {"checkpoint": str(base), "strict": True}
    with pytest.raises(CheckpointError, match=r"does not fit the network: .*has size \[4.*init\.strict=false"):
        train(settings(model__cues=[{**CUE[0], "num_speakers": 7}], init=strict))
    assert not (tmp_path / "exp").exists()
    assert train(settings(model__cues=CUE, init=strict, train__steps=1)).step == 1


def test_a_resumed_run_continues_from_its_own_weights(settings, base: Path, tmp_path: Path, monkeypatch):
    mapping = settings(model__cues=CUE, init={"checkpoint": str(base)}, train__steps=4)
    unbroken = settings(
        experiment=str(tmp_path / "unbroken"), **{"model__cues": CUE, "train__steps": 4}, init={"checkpoint": str(base)}
    )
    train(unbroken)
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        stop_after(patch, 2)
        train(mapping)
    train(mapping)
    for key, value in weights(tmp_path / "unbroken").items():
        assert torch.equal(value, weights(tmp_path / "exp")[key]), key
    (begun,) = checkpoint.load(tmp_path / "exp").provenance["went_on_from"]
    assert begun["hash"] == checkpoint.load(base).hash and (begun["step"], begun["mixtures"]) == (2, 4)


def test_lineage_lists_all_earlier_runs_the_oldest_first(settings, base: Path, tmp_path: Path):
    assert checkpoint.load(base).provenance["went_on_from"] == []
    before = base
    for name in ("second", "third"):
        train(
            settings(experiment=str(tmp_path / name), model__cues=CUE, train__steps=1, init={"checkpoint": str(before)})
        )
        before = tmp_path / name
    lineage = checkpoint.load(tmp_path / "third").provenance["went_on_from"]
    assert [entry["hash"] for entry in lineage] == [checkpoint.load(path).hash for path in (base, tmp_path / "second")]
    assert all("training" not in entry and entry["mixtures"] > 0 for entry in lineage)


def test_skipped_tensors_are_not_loaded(base: Path):
    from wesep_py.network.extraction_network import load_network

    network = load_network(base)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    initial = load_initial_weights(network, InitConfig(str(base), skip=["encoder.*"]))
    assert all(name.startswith("encoder.") for name in initial.fresh) and initial.fresh
    assert all((p == 0).all() for p in network.encoder.parameters())
    assert any((p != 0).any() for p in network.backbone.parameters())


def test_an_unfit_or_missing_checkpoint_is_an_error(base: Path):
    with pytest.raises(CheckpointError, match=r"nothing of .* fits the network"):
        load_initial_weights(torch.nn.Linear(2, 2), InitConfig(str(base)))
    with pytest.raises(CheckpointError, match="no such model"):
        load_initial_weights(torch.nn.Linear(2, 2), InitConfig("gone"))
