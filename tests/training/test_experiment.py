"""The experiment folder: what may change on resuming, whose files are replaced, and the trained models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.config import dump_yaml, load_yaml
from wesep_py.common.errors import ConfigError
from wesep_py.data import Utterance
from wesep_py.training.experiment import CorpusSummary, Experiment, TrainedModels
from wesep_py.training.state import Progress, TrainingState, save_state
from wesep_py.training.training_config import load_config
from wesep_py.training.validation import ExtractionValidator


@pytest.fixture
def started_experiment(settings) -> Experiment:
    """Return an experiment with a state."""
    config = load_config(settings())
    experiment = Experiment(config.experiment)
    experiment.write_config(config)
    save_state(experiment.state, TrainingState(Progress(1), {}, {}))
    return experiment


def test_the_same_configuration_is_continued(started_experiment: Experiment, settings):
    started_experiment.check(load_config(settings()))


@pytest.mark.parametrize(
    "changed",
    [
        {"train__steps": 99}, {"train__max_minutes": 3}, {"data__workers": 5}, {"train__threads": 2},
        {"log__every_steps": 7}, {"checkpoint__every_steps": 9}, {"data__packed": "elsewhere"},
        {"validation": {"trials": "a.csv", "enrollment": "a.map"}}, {"train__gradient_checkpointing": True},
        {"model__shifts": 2},
    ],
)  # fmt: skip
def test_keys_that_change_no_step_may_change(started_experiment: Experiment, settings, changed: dict):
    started_experiment.check(load_config(settings(**changed)))


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
def test_keys_that_change_a_step_may_not(started_experiment: Experiment, settings, changed: dict, named: str):
    with pytest.raises(ConfigError, match=named):
        started_experiment.check(load_config(settings(**changed)))


def test_a_run_without_a_state_may_have_any_configuration(started_experiment: Experiment, settings):
    for file in started_experiment.state.glob("*.pt"):
        file.unlink()
    started_experiment.check(load_config(settings(seed=5)))


def test_other_files_in_the_folder_are_allowed(tmp_path: Path, settings):
    Experiment(tmp_path).check(load_config(settings()))


def test_keys_added_since_have_their_defaults(started_experiment: Experiment, settings):
    plain = load_yaml(started_experiment.config_file)
    del plain["optim"]["ema_decay"], plain["train"]["compile"], plain["init"]
    started_experiment.config_file.write_text(dump_yaml(plain))
    started_experiment.check(load_config(settings()))
    with pytest.raises(ConfigError, match=r"train\.compile \(was False, is True\)"):
        started_experiment.check(load_config(settings(train__compile=True)))
    plain["a_key_of_another_version"] = 1
    started_experiment.config_file.write_text(dump_yaml(plain))
    with pytest.raises(ConfigError, match="a_key_of_another_version"):
        started_experiment.check(load_config(settings()))


def write_source(folder: Path, settings, **changed) -> Path:
    """Write the YAML file of a run into its own folder."""
    folder.mkdir(exist_ok=True)
    source = folder / "config.yaml"
    source.write_text("# mine\n" + dump_yaml(settings(experiment=str(folder), **changed)))
    return source


def test_the_source_configuration_is_not_replaced(settings, tmp_path: Path, monkeypatch):
    source = write_source(tmp_path / "own", settings)
    config = load_config(source)
    monkeypatch.chdir(source.parent)
    for folder in (source.parent, Path(), source.parent / ".." / "own"):
        for given in (source, Path("config.yaml")):
            with pytest.raises(ConfigError, match=r"would replace .*config.yaml, the configuration that is read"):
                Experiment(folder).check(config, given)
    assert source.read_text().startswith("# mine")


def test_a_run_is_continued_by_its_own_configuration(started_experiment: Experiment):
    started_experiment.check(load_config(started_experiment.config_file), started_experiment.config_file)
    for file in started_experiment.state.glob("*.pt"):  # killed before the first state
        file.unlink()
    started_experiment.check(load_config(started_experiment.config_file), started_experiment.config_file)
    with pytest.raises(ConfigError, match="the configuration that is read"):
        started_experiment.check(
            load_config(started_experiment.config_file, ["seed=9"]), started_experiment.config_file
        )


@pytest.mark.parametrize("name", ["config.yaml", "log.jsonl", "provenance.json"])
def test_files_that_no_run_wrote_are_not_replaced(settings, tmp_path: Path, name: str):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("{}")
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=rf"mine holds {name}, which no run of wesep wrote"):
        Experiment(tmp_path / "mine").check(load_config(settings()))


def test_a_foreign_model_folder_is_not_replaced(settings, tmp_path: Path):
    best = tmp_path / "mine" / "checkpoints" / "best"
    best.mkdir(parents=True)
    (best / "model.safetensors").write_text("of another program")
    with pytest.raises(ConfigError, match="best is no checkpoint of wesep"):
        Experiment(tmp_path / "mine").check(load_config(settings()))


VALIDATION_NUMBERS = {"count": 2.0, "si_sdr": 3.0, "si_sdri": 4.25, "accuracy": 0.5, "confusion": 0.25}


def make_models(settings, validation) -> TrainedModels:
    config = load_config(settings(validation=validation))
    utterances = [Utterance(f"{speaker}-{i}", speaker, Path("x.wav"), 900.0) for speaker in "ab" for i in range(2)]
    task = SimpleNamespace(
        checkpoint_config={"backbone": {"name": "bsrnn"}, "sample_rate": 16000},
        title="Extraction",
        exported=dict,
        validator=ExtractionValidator(config.validation, config.data.root, 16000),
    )
    return TrainedModels(Experiment(config.experiment), config, task, CorpusSummary.of(utterances))


def test_provenance_and_card(settings, validation, tmp_path: Path):
    results = make_models(settings, validation)
    assert results.corpus == CorpusSummary(4, 2, 1.0)
    results.save("best", {"w": torch.ones(2)}, Progress(step=7, position=28, elapsed_s=1800.0), VALIDATION_NUMBERS)
    saved = checkpoint.load(tmp_path / "exp")
    provenance = saved.provenance
    assert (provenance["step"], provenance["mixtures"], provenance["hours_trained"]) == (7, 28, 0.5)
    assert provenance["validation"]["si_sdri"] == 4.25 and provenance["validation"]["trials"]["trials"] == "trials.csv"
    assert provenance["training"]["optim"]["lr"] == 0.01 and "model" not in provenance["training"]
    assert provenance["corpus"] == {"utterances": 4, "speakers": 2, "hours": 1.0}
    card = (tmp_path / "exp" / "checkpoints" / "best" / "card.md").read_text()
    assert "SI-SDRi 4.25 dB" in card and "7 steps (0.5 h)" in card and "2 speakers" in card


def test_a_run_is_final_only_at_the_step_of_its_average(settings, validation):
    results = make_models(settings, validation)
    assert not results.is_final(Progress(step=7))
    results.save("average", {"w": torch.ones(2)}, Progress(step=7), averaged=3)
    assert results.is_final(Progress(step=7)) and not results.is_final(Progress(step=8))
