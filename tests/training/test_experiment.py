"""What may change when a run is continued, and what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from wesep_py.common.config import dump_yaml, load_yaml
from wesep_py.common.errors import ConfigError
from wesep_py.training.experiment import Experiment
from wesep_py.training.state import Progress, TrainingState, save_state
from wesep_py.training.training_config import load_config


@pytest.fixture
def begun(settings) -> Experiment:
    """An experiment that has run."""
    config = load_config(settings())
    experiment = Experiment(config.experiment)
    experiment.write_config(config)
    save_state(experiment.state, TrainingState(Progress(1), {}, {}))
    return experiment


def test_the_same_configuration_is_continued(begun: Experiment, settings):
    begun.check(load_config(settings()))


@pytest.mark.parametrize(
    "changed",
    [
        {"train__steps": 99}, {"train__max_minutes": 3}, {"data__workers": 5}, {"train__threads": 2},
        {"log__every_steps": 7}, {"checkpoint__every_steps": 9}, {"data__packed": "elsewhere"},
        {"validation": {"trials": "a.csv", "enrollment": "a.map"}}, {"train__gradient_checkpointing": True},
    ],
)  # fmt: skip
def test_what_alters_no_step_may_change(begun: Experiment, settings, changed: dict):
    begun.check(load_config(settings(**changed)))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"optim__lr": 0.5}, r"optim\.lr \(was 0\.01, is 0\.5\)"),
        ({"seed": 2}, r"seed \(was 1, is 2\)"),
        ({"train__batch_size": 3}, r"train\.batch_size"),
        ({"data__train": ["train.jsonl", "more.jsonl"]}, r"data\.train\[1\] \(was not set, is more\.jsonl\)"),
        ({"simulation__num_speakers": {1: 1, 2: 1}}, r"simulation\.num_speakers\.2 \(was 3\.0, is 1\.0\)"),
        ({"model__cues": [{"name": "tf_map"}]}, r"model\.cues\[0\]\.name \(was embedding, is tf_map\)"),
    ],
)
def test_what_alters_a_step_may_not(begun: Experiment, settings, changed: dict, named: str):
    with pytest.raises(ConfigError, match=named):
        begun.check(load_config(settings(**changed)))


def test_a_run_without_a_state_begins_again_whatever_it_was(begun: Experiment, settings):
    for file in begun.state.glob("*.pt"):
        file.unlink()
    begun.check(load_config(settings(seed=5)))


def test_a_folder_of_something_else_is_no_obstacle(tmp_path: Path, settings):
    Experiment(tmp_path).check(load_config(settings()))


def test_a_run_of_before_a_key_was_there_is_continued_with_its_default(begun: Experiment, settings):
    plain = load_yaml(begun.config_file)
    del plain["optim"]["ema_decay"], plain["train"]["compile"], plain["init"]
    begun.config_file.write_text(dump_yaml(plain))
    begun.check(load_config(settings()))
    with pytest.raises(ConfigError, match=r"train\.compile \(was False, is True\)"):
        begun.check(load_config(settings(train__compile=True)))
    plain["a_key_of_another_version"] = 1
    begun.config_file.write_text(dump_yaml(plain))
    with pytest.raises(ConfigError, match="a_key_of_another_version"):
        begun.check(load_config(settings()))


def write_source(folder: Path, settings, **changed) -> Path:
    """The YAML that a user wrote for a run in its own folder."""
    folder.mkdir(exist_ok=True)
    source = folder / "config.yaml"
    source.write_text("# mine\n" + dump_yaml(settings(experiment=str(folder), **changed)))
    return source


def test_the_configuration_that_is_read_is_not_replaced(settings, tmp_path: Path, monkeypatch):
    source = write_source(tmp_path / "own", settings)
    config = load_config(source)
    monkeypatch.chdir(source.parent)
    for folder in (source.parent, Path(), source.parent / ".." / "own"):
        for given in (source, Path("config.yaml")):
            with pytest.raises(ConfigError, match=r"would replace .*config.yaml, the configuration that is read"):
                Experiment(folder).check(config, given)
    assert source.read_text().startswith("# mine")


def test_a_run_is_continued_by_its_own_configuration(begun: Experiment):
    begun.check(load_config(begun.config_file), begun.config_file)
    for file in begun.state.glob("*.pt"):  # killed before the first state
        file.unlink()
    begun.check(load_config(begun.config_file), begun.config_file)
    with pytest.raises(ConfigError, match="the configuration that is read"):
        begun.check(load_config(begun.config_file, ["seed=9"]), begun.config_file)


@pytest.mark.parametrize("name", ["config.yaml", "log.jsonl", "provenance.json"])
def test_files_of_somebody_else_are_not_replaced(settings, tmp_path: Path, name: str):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("{}")
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=rf"mine holds {name}, which no run of wesep wrote"):
        Experiment(tmp_path / "mine").check(load_config(settings()))


def test_a_model_in_the_place_of_a_checkpoint_is_not_replaced(settings, tmp_path: Path):
    best = tmp_path / "mine" / "checkpoints" / "best"
    best.mkdir(parents=True)
    (best / "model.safetensors").write_text("of another program")
    with pytest.raises(ConfigError, match="best is no checkpoint of wesep"):
        Experiment(tmp_path / "mine").check(load_config(settings()))
