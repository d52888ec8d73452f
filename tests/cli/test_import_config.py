"""`wesep import-config`: from the YAML of another toolkit to a run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tests.cli.test_convert_import import extractor_config, extractor_weights
from tests.data.public_layouts import make_embeddings, make_espnet, make_voxceleb, make_wesep
from tests.interop.public_configs import BSRNN_FEATS, ESPNET, LIBRIMIX, WESEP
from wesep_py import checkpoint
from wesep_py.training.training_config import load_config


def write(path: Path, content: dict) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_comments_say_what_each_key_became(tmp_path: Path, wesep: Callable):
    source = write(tmp_path / "bsrnn.yaml", WESEP["librimix/v2/bsrnn"] | {"new_key": 3})
    ran = wesep("import-config", source, "-o", tmp_path / "train.yaml")
    assert ran.status == 0, ran.err
    assert ran.out.splitlines() == [
        f"{tmp_path}/train.yaml: WeSep's BSRNN",
        "no counterpart: new_key: is no key of WeSep's recipes that is known here",
        "to be given: data.mixtures.lists",
    ]
    text = (tmp_path / "train.yaml").read_text()
    assert "# clip_grad: 5.0 -> optim.clip_norm (over all" in text and "#   new_key: is no key" in text
    assert "exists" in wesep("import-config", source, "-o", tmp_path / "train.yaml").message


def test_data_of_wesep_is_entered(tmp_path: Path, wesep: Callable, monkeypatch: pytest.MonkeyPatch):
    data = make_wesep(tmp_path / "recipe")
    for subset in ("train-100", "dev"):
        make_embeddings(tmp_path / "recipe", data / subset)
    monkeypatch.chdir(tmp_path / "recipe")
    source = write(tmp_path / "bsrnn.yaml", WESEP["librimix/v1/bsrnn"])
    arguments = ("--data", "data/clean/train-100", "--validation", "data/clean/dev", "--epoch-size", 32, "--json")
    ran = wesep("import-config", source, *arguments, "-o", tmp_path / "train.yaml")
    assert ran.status == 0 and json.loads(ran.out)["open"] == []
    config = load_config(tmp_path / "train.yaml")
    assert config.data.mixtures.lists == ["data/clean/train-100"]
    assert config.data.embeddings == "data/clean/train-100/embed.scp"
    assert config.validation.embeddings == "data/clean/dev/embed.scp"
    assert (config.train.epoch_size, config.train.steps, config.validation.every_steps) == (32, 150, 1)
    changes = ["model.backbone.feature_dim=8", "model.backbone.num_blocks=1", "simulation.duration_s=1"]
    changes += ["train.steps=1", "train.batch_size=1", "data.workers=0", "validation.limit=1", "log.to=[]"]
    ran = wesep("train", tmp_path / "train.yaml", *changes, f"experiment={tmp_path}/exp", "train.device=cpu")
    assert ran.status == 0, ran.err
    assert (tmp_path / "exp/checkpoints/best").is_dir()


def test_an_epoch_has_the_mixtures_of_the_data(tmp_path: Path, wesep: Callable):
    data = make_wesep(tmp_path / "recipe") / "train-100"
    num_mixtures = len((data / "wav.scp").read_text().splitlines())
    content = copy.deepcopy(WESEP["librimix/v2/bsrnn"])
    content["dataset_args"].pop("sample_num_per_epoch", None)
    cases = {"folder": (content, data, num_mixtures), "list": (content, data / "shard.list", num_mixtures)}
    stated = content | {"dataset_args": content["dataset_args"] | {"sample_num_per_epoch": 7}}
    vox = make_voxceleb(tmp_path / "vox")
    num_utterances = len((vox / "wav.scp").read_text().splitlines())
    online = copy.deepcopy(WESEP["voxceleb1/v2/bsrnn_online"])
    online["dataset_args"].pop("sample_num_per_epoch", None)
    cases |= {"stated": (stated, data, 7), "online": (online, vox, num_utterances // 2)}
    for name, (values, where, size) in cases.items():
        source, output = write(tmp_path / f"{name}.yaml", values), tmp_path / f"{name}_train.yaml"
        ran = wesep("import-config", source, "--data", where, "-o", output)
        assert ran.status == 0, ran.err
        assert yaml.safe_load(output.read_text())["train"]["epoch_size"] == size
    data = make_espnet(tmp_path / "espnet") / "train"
    source = write(tmp_path / "tse.yaml", ESPNET["librimix/train_enh_tse_td_speakerbeam_16k"])
    options = ("--data", data, "--sample-rate", 16000, "-o", tmp_path / "tse_train.yaml")
    assert wesep("import-config", source, *options).status == 0
    size = len((data / "wav.scp").read_text().splitlines())
    assert yaml.safe_load((tmp_path / "tse_train.yaml").read_text())["train"]["epoch_size"] == size


def test_data_of_another_kind_is_refused(tmp_path: Path, wesep: Callable):
    vox = make_voxceleb(tmp_path / "recipe")
    source = write(tmp_path / "a.yaml", WESEP["librimix/v2/bsrnn"])
    ran = wesep("import-config", source, "--data", vox, "-o", tmp_path / "train.yaml")
    assert ran.status == 2 and "is for mixtures with their sources" in ran.message
    source = write(tmp_path / "b.yaml", WESEP["voxceleb1/v2/bsrnn_online"])
    assert wesep("import-config", source, "--data", vox, "-o", tmp_path / "train.yaml").status == 0
    assert load_config(tmp_path / "train.yaml").data.train == [str(vox / "shard_online.list")]


@pytest.mark.parametrize("name", ["train-100", "train-100/shard.list"])
def test_noisy_mixtures_are_trained_and_validated_noisy(tmp_path: Path, wesep: Callable, name: str):
    data = make_wesep(tmp_path / "recipe", "both")
    source = write(tmp_path / "bsrnn.yaml", WESEP["librimix/v2/bsrnn"])
    output = tmp_path / "train.yaml"
    ran = wesep("import-config", source, "--data", data / name, "--validation", data / "dev", "-o", output)
    assert ran.status == 0, ran.err
    config = load_config(output)
    assert (config.data.mixtures.condition, config.validation.condition) == ("noisy", "noisy")


@pytest.mark.parametrize("name, message", [("", "has no wav.scp"), ("train-100/wav.scp", "name its folder")])
def test_data_that_cannot_be_read_is_refused(tmp_path: Path, wesep: Callable, name: str, message: str):
    data = make_wesep(tmp_path / "recipe") / name
    source = write(tmp_path / "bsrnn.yaml", WESEP["librimix/v2/bsrnn"])
    ran = wesep("import-config", source, "--data", data, "-o", tmp_path / "train.yaml")
    assert ran.status == 2 and message in ran.message
    assert not (tmp_path / "train.yaml").exists()


def test_espnet_needs_a_sample_rate(tmp_path: Path, wesep: Callable):
    data = make_espnet(tmp_path / "recipe")
    source = write(tmp_path / "tse.yaml", ESPNET["librimix/train_enh_tse_td_speakerbeam_16k"])
    ran = wesep("import-config", source, "-o", tmp_path / "train.yaml")
    assert ran.status == 2 and "sample-rate" in ran.err and not (tmp_path / "train.yaml").exists()
    data_options = ("--data", data / "train", "--validation", data / "dev", "--sample-rate", 16000)
    assert wesep("import-config", source, *data_options, "-o", tmp_path / "train.yaml").status == 0
    config = load_config(tmp_path / "train.yaml")
    assert config.schedule.name == "plateau" and config.optim.arguments == {"eps": 1e-8}
    assert config.simulation.enrollment.duration_s == (3.0, 3.0) and config.loss == {"name": "snr"}


def test_a_network_without_counterpart_writes_nothing(tmp_path: Path, wesep: Callable):
    source = write(tmp_path / "feats.yaml", BSRNN_FEATS)
    ran = wesep("import-config", source, "-o", tmp_path / "train.yaml")
    assert ran.status == 2 and "BSRNN_Feats" in ran.err and not (tmp_path / "train.yaml").exists()


@pytest.mark.parametrize(
    "content", ["a: 1", "- 1", "model: {tse_model: BSRNN}", "model: {tse_model: [1]}\nmodel_args: 3"]
)
def test_other_files_are_one_line(tmp_path: Path, wesep: Callable, content: str):
    (tmp_path / "x.yaml").write_text(content)
    ran = wesep("import-config", tmp_path / "x.yaml", "-o", tmp_path / "train.yaml")
    assert ran.status == 2 and ran.message.startswith(f"wesep import-config: {tmp_path}/x.yaml")


def test_training_continues_from_an_imported_checkpoint(tmp_path: Path, wesep: Callable):
    """The weights of a public network are fine-tuned with the public configuration: nothing of either is lost."""
    torch.manual_seed(0)
    content = copy.deepcopy(LIBRIMIX)
    content["dataset_args"]["chunk_len"] = 8000
    for key, value in extractor_config().items():
        content[key] = content[key] | value if isinstance(value, dict) and key in content else value
    content["model_init"] = {"tse_model": "models/avg_model.pt"}
    content["loss"], content["loss_args"] = ["SISDR", "CE"], {"loss_posi": [[0], [1]], "loss_weight": [[1.0], [0.5]]}
    source = write(tmp_path / "config.yaml", content)
    torch.save({"models": [extractor_weights()]}, tmp_path / "avg_model.pt")
    assert wesep("import-checkpoint", tmp_path / "avg_model.pt", "-o", tmp_path / "model").status == 0
    data = make_wesep(tmp_path / "recipe") / "train-100"
    ran = wesep("import-config", source, "--data", data, "-o", tmp_path / "train.yaml")
    assert ran.status == 0 and ran.out.splitlines()[-1] == "to be given: init.checkpoint"
    changes = [f"init.checkpoint={tmp_path}/model", f"experiment={tmp_path}/exp", "train.steps=1", "train.batch_size=1"]
    changes += ["data.workers=0", "train.device=cpu", "log.to=[]", "optim.weight_decay=0"]
    ran = wesep("train", tmp_path / "train.yaml", *changes)
    assert ran.status == 0, ran.err
    before, after = (
        checkpoint.load(folder).state_dict for folder in (tmp_path / "model", tmp_path / "exp/checkpoints/last")
    )
    assert before.keys() == after.keys()
    weights = [name for name, value in before.items() if value.is_floating_point() and "running" not in name]
    change = max(float((after[name] - before[name]).abs().max()) for name in weights)
    assert 1e-5 < change < 1.1e-3  # a step of Adam moves a weight by the learning rate at most
