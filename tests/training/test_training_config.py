"""The configuration of a training: accepted and refused values; every key is read."""

from __future__ import annotations

import ast
import dataclasses
import sys
import typing
from pathlib import Path

import pytest

import wesep_py
from wesep_py.common import config as config_module
from wesep_py.common.config import load_yaml
from wesep_py.common.errors import ConfigError
from wesep_py.data import read_speech, write_shards
from wesep_py.training import data_config, train, training_config
from wesep_py.training.training_config import TrainConfig, load_config

PACKAGE = Path(wesep_py.__file__).parent


def dataclasses_below(kind: type) -> dict[type, str]:
    """Return each dataclass of the tree with its key."""
    found: dict[type, str] = {kind: ""}
    for name, hint in typing.get_type_hints(kind).items():
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part):
                found |= {inner: f"{name}.{key}".rstrip(".") for inner, key in dataclasses_below(part).items()}
    return found


def is_of_training(kind: type) -> bool:
    """True if the class is one of the training's, not of the model or the simulation."""
    return kind.__module__ in (training_config.__name__, data_config.__name__)


def attributes_read(files: list[Path], without: type) -> set[str]:
    """Return the names read as `x.name` outside of the class's own definition."""
    names: set[str] = set()
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        definitions = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == without.__name__]
        inside = {id(inner) for definition in definitions for inner in ast.walk(definition)}
        names |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in inside
        }
    return names


def goes_through_its_fields(file: Path, kind: type) -> bool:
    """Return whether a method of the class reads all fields: `getattr(self, field.name) for field in fields(self)`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    definition = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    called = [ast.unparse(node) for node in ast.walk(definition) if isinstance(node, ast.Call)]
    return "fields(self)" in called and any(call.startswith("getattr(self, ") for call in called)


TREE = dataclasses_below(TrainConfig)


def test_the_tree_contains_all_parts():
    assert {kind.__name__ for kind in TREE} >= {
        "TrainConfig", "DataConfig", "OptimConfig", "ScheduleConfig", "TrainLoopConfig", "CheckpointConfig",
        "ValidationConfig", "LogConfig", "SimulationConfig", "ModelConfig",
    }  # fmt: skip


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_each_key_is_read_by_the_code(kind: type):
    """Each field is read, as an attribute, by code outside the class that declares it."""
    file = Path(typing.cast("str", __import__(kind.__module__, fromlist=["_"]).__file__))
    readers = list((PACKAGE / "training").glob("*.py")) if is_of_training(kind) else []
    if not readers:  # the packages of simulation and model read theirs
        readers = list((PACKAGE / file.relative_to(PACKAGE).parts[0]).rglob("*.py"))
    read = attributes_read(readers, without=kind)
    if not is_of_training(kind):  # properties of the class itself hand fields on
        read |= attributes_read([file], without=type("None", (), {}))
        read |= {field.name for field in dataclasses.fields(kind)} if goes_through_its_fields(file, kind) else set()
    unread = [field.name for field in dataclasses.fields(kind) if field.name not in read]
    assert not unread, f"nothing reads {TREE[kind]}: {unread}"


def test_each_key_of_the_training_is_read_in_a_run(settings, validation, corpus, tiny_speech, tmp_path, monkeypatch):
    """As above, but observed in a run: a name of several parts (`every_steps`) must be read from each part."""
    read: set[tuple[str, str]] = set()
    own_files = {training_config.__file__, data_config.__file__, config_module.__file__}

    def watch(kind: type) -> None:
        def look_up(self: object, name: str) -> object:
            if sys._getframe(1).f_code.co_filename not in own_files:
                read.add((kind.__name__, name))
            return object.__getattribute__(self, name)

        monkeypatch.setattr(kind, "__getattribute__", look_up, raising=False)

    kinds = [kind for kind in TREE if is_of_training(kind)]
    for kind in kinds:
        watch(kind)
    train(
        settings(
            validation=validation, train__steps=1, data__noise=[str(tiny_speech / "anna")],
            data__packed=str(tmp_path / "packed"),
        )
    )  # fmt: skip
    every_step = {**validation, "every_steps": 1}
    group = {"match": "backbone.*"}
    # The encoder's statistics stay fixed: no validation is better than the first, and `patience` is read.
    still = {"match": "encoder.*", "freeze_steps": None}
    train(
        settings(
            experiment=str(tmp_path / "more"), init={"checkpoint": str(tmp_path / "exp")}, train__steps=2,
            validation=every_step, optim__lr=1e-30, optim__groups=[group, still], schedule={"name": "plateau"},
        )
    )  # fmt: skip
    train(
        settings(
            experiment=str(tmp_path / "third"), train__steps=1, schedule={"name": "triangular"},
            self_enrollment={"loss_on": "both"},
        )
    )  # fmt: skip
    shards = tmp_path / "shards"
    write_shards(read_speech(["train.jsonl"], corpus), shards, root=corpus)
    for index in shards.glob("*.json*"):
        index.unlink()
    train(
        settings(
            experiment=str(tmp_path / "streamed"), train__steps=1, data__root=str(shards), data__train=["*.tar"],
            data__stream={"min_speakers": 2},
        )
    )  # fmt: skip
    listed = {"duration_s": 1.0, "enrollment": {"duration_s": [0.5, 1.0]}}
    train(
        settings(
            experiment=str(tmp_path / "listed"), train__steps=1, simulation=listed,
            data__mixtures={"lists": ["trials.csv"]},
        )
    )  # fmt: skip
    declared = {(kind.__name__, field.name) for kind in kinds for field in dataclasses.fields(kind)}
    assert declared - read == set()


def test_an_unread_key_is_found():
    @dataclasses.dataclass
    class Stray:
        never_read_by_anything: int = 0

    read = attributes_read(list((PACKAGE / "training").glob("*.py")), without=Stray)
    assert "never_read_by_anything" not in read and "batch_size" in read


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train__batch_size", 0, r"train: batch_size is 0; it must be at least 1"),
        ("optim__lr", 0.0, r"optim: lr is 0.0; it must be above 0"),
        ("optim__betas", [0.9, 1.0], r"optim: betas"),
        ("schedule__final_lr_ratio", 0, r"final_lr_ratio is 0.0; it must be above 0"),
        ("checkpoint__average", 9, r"checkpoint: keep is 3; it must be at least 9 .*checkpoint.average"),
        ("data__train", [], r"data: train is 0; it must be at least 1 \(name at least one manifest\)"),
        ("optim__name", "adamm", r"optim: name is 'adamm'; did you mean 'adam'"),
        ("optim__ema_decay", 1.0, r"optim: ema_decay is 1.0; it must be above 0 and below 1"),
        ("optim__groups", [{"match": "a", "lr_ratio": 0}], r"optim.groups\[0\]: lr_ratio is 0.0"),
        ("optim__groups", [{"match": "a", "freeze_steps": -1}], r"optim.groups\[0\]: freeze_steps is -1"),
        ("schedule__plateau_factor", 1.0, r"plateau_factor is 1.0; it must be above 0 and below 1"),
        ("schedule__cycles", 0, r"cycles is 0; it must be at least 1"),
        ("schedule__name", "plateau", r"schedule.name: is 'plateau', which needs a validation, and there is none"),
        ("train__patience", 3, r"train.patience: is 3, which needs a validation, and there is none"),
        ("log__to", ["tensorbord"], r"log.to\[0\]: is 'tensorbord'; did you mean 'tensorboard'"),
        ("train__precision", "fp16", r"train.precision: is 'fp16'"),
        ("train__max_minutes", -1, r"max_minutes is -1"),
        ("experiment", " ", r"experiment is empty"),
        ("seed", -1, r"seed is -1"),
        ("validation__trial", "x", r"validation.trial: unknown key; did you mean 'trials'"),
        ("simulation__sir", [0, 1], r"simulation.sir: unknown key; did you mean 'sir_db'"),
        ("log__every", 3, r"log.every: unknown key; did you mean 'every_steps'"),
    ],
)
def test_impossible_values_are_one_line_errors(settings, key: str, value: object, message: str):
    with pytest.raises(ConfigError, match=message) as refused:
        load_config(settings(**{key: value}))
    assert "\n" not in str(refused.value)


def test_a_missing_user_value_is_named(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("experiment: x\nmodel: {}\ndata:\n  root: ???\n  train: [a.csv]\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: data\.root has no value yet; give one, as data\.root="):
        load_config(tmp_path / "a.yaml")


def test_a_mapping_takes_no_overrides(settings):
    with pytest.raises(ConfigError, match="overrides are for a YAML file"):
        load_config(settings(), ["seed=2"])


def test_the_shipped_recipes_are_valid():
    root = PACKAGE.parent
    for recipe in sorted((root / "recipes").glob("*/*.yaml")):
        values = load_yaml(recipe)
        if "experiment" not in values:
            continue
        changes = ["data.root=data"]
        if ((values.get("model") or {}).get("speaker") or {}).get("checkpoint") == "dvector":  # not installed here
            changes.append("model.speaker={mode: joint, checkpoint: null, network: {name: dvector}}")
        config = load_config(recipe, changes)
        assert config.data.root == "data" and config.train.steps > 0


@pytest.mark.parametrize("changed", [{"train__threads": 100_000}, {"data__workers": 100_000}])
def test_more_workers_than_the_machine_allows_are_refused(settings, changed: dict):
    with pytest.raises(ConfigError, match=r"is 100000; at most \d+ are allowed on this machine"):
        train(settings(**changed))
