"""Training configurations of WeSep and ESPnet, translated: each of the published ones builds and trains a step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.public_layouts import make_embeddings, make_espnet, make_voxceleb, make_wesep
from tests.interop.public_configs import BSRNN_FEATS, ESPNET, WESEP
from wesep_py.common.errors import ConfigError
from wesep_py.common.yamlfiles import parse_yaml
from wesep_py.interop.espnet_training import translate_espnet_training
from wesep_py.interop.public_checkpoints import UntranslatableError
from wesep_py.interop.training_notes import UNKNOWN
from wesep_py.interop.wesep_training import translate_wesep_training
from wesep_py.network.extraction_network import build_network
from wesep_py.training import train
from wesep_py.training.training_config import load_config

SMALL: dict[str, dict[str, Any]] = {
    "bsrnn": {"feature_dim": 8, "num_blocks": 1},
    "dpccn": {"tcn_blocks": 1, "tcn_repeats": 1},
    "tf_gridnet": {"feature_dim": 8, "num_blocks": 1, "hidden": 8, "query_size": 16, "num_heads": 2},
    "conv_tasnet": {"bottleneck": 16, "hidden": 16, "blocks_per_stack": 1, "num_stacks": 1},
}


def translated(name: str) -> Any:
    if name in ESPNET:
        return translate_espnet_training(copy.deepcopy(ESPNET[name]), sample_rate=16000)
    return translate_wesep_training(copy.deepcopy(WESEP[name]))


@pytest.mark.parametrize("name", [*WESEP, *ESPNET])
def test_every_key_is_accounted_for(name: str):
    out = translated(name)
    unknown = [key for key, reason in out.missing.items() if "is no key" in reason]
    assert not unknown
    assert set(out.missing) <= {key for key in out.missing if "discriminator" in key}
    assert parse_yaml(out.as_yaml("x.yaml"), "x.yaml") == out.config


def test_values_of_the_bsrnn_recipe():
    config = translated("librimix/v2/bsrnn").config
    assert config["train"] == {
        "batch_size": 8,
        "targets_per_mixture": "all",
        "epoch_size": 13900,
        "steps": 150 * (13900 // 2 // 8),
        "precision": "32-true",
    }
    assert config["optim"] == {"name": "adam", "lr": 0.001, "weight_decay": 0.0001, "clip_norm": 5.0}
    assert config["schedule"] == {"name": "exponential", "final_lr_ratio": 0.025, "warmup_steps": 0}
    assert config["simulation"]["duration_s"] == 3.0 and config["loss"] == {"name": "si_sdr"}
    assert config["model"]["cues"] == [{"name": "embedding", "fusion": "multiply", "points": "first"}]


def test_losses_of_spex_plus_and_of_two_passes():
    assert translated("librimix/v2/spexplus").config["loss"] == [
        {"name": "si_sdr", "weights": [0.8, 0.1, 0.1]},
        {"name": "speaker_cross_entropy", "weight": 0.5},
    ]
    multi = translated("librimix/v2/bsrnn_multi_optim").config
    assert multi["self_enrollment"] == {
        "probability": 1.0,
        "use": "instead",
        "loss_on": "both",
        "weights": [0.4, 0.6],
    }
    assert multi["loss"] == {"name": "si_sdr", "weight": 1.0}
    content = copy.deepcopy(WESEP["librimix/v2/bsrnn_multi_optim"])
    content["loss"] = ["SISDR", "CE"]
    content["loss_args"] = {"loss_posi": [[0, 1], [2, 3]], "loss_weight": [[0.36, 0.54], [0.04, 0.06]]}
    content["model_args"]["tse_model"]["multi_task"] = True
    out = translate_wesep_training(content).config
    assert [round(loss["weight"], 6) for loss in out["loss"]] == [0.9, 0.1]
    assert out["self_enrollment"]["weights"] == [0.4, 0.6]


def test_pretrained_speaker_network_is_frozen_or_finetuned():
    for name, mode in (("", "frozen"), ("JointTrain", "finetune")):
        speaker = translated(f"voxceleb1/v2/bsrnn_online_PretrainedResNet34{name}").config["model"]["speaker"]
        assert (speaker["mode"], Path(speaker["checkpoint"]).name) == (mode, "avg_model.pt")


def test_augmentation_of_drawn_mixtures_and_enrollments():
    content = copy.deepcopy(WESEP["voxceleb1/v2/bsrnn_online"])
    content["dataset_args"] |= {"noise_prob": 0.5, "reverb_prob": 0.3, "noise_enroll_prob": 0.2}
    content["dataset_args"] |= {"reverb_enroll_prob": 0.1, "specaug_enroll_prob": 1}
    out = translate_wesep_training(content)
    simulation = out.config["simulation"]
    assert simulation["noise"]["probability"] == 0.5 and simulation["noise"]["snr_db"] == [-5.0, 25.0]
    assert simulation["room"]["probability"] == 0.3 and simulation["enrollment"]["room"]["probability"] == 0.1
    assert simulation["enrollment"]["noise"]["snr_db"] == [0.0, 25.0]
    assert out.config["data"]["noise"] == ["./data/musan/lmdb"]
    assert out.config["model"]["speaker"]["spec_augment"]["max_time_frames"] == 10
    load_config({**out.config, "data": {**out.config["data"], "train": ["x"]}})


def test_noise_on_fixed_mixtures_has_no_counterpart():
    content = copy.deepcopy(WESEP["librimix/v2/bsrnn"])
    content["dataset_args"]["noise_prob"] = 0.5
    assert list(translate_wesep_training(content).missing) == ["dataset_args.noise_prob"]


def test_unknown_keys_are_named():
    content = copy.deepcopy(WESEP["librimix/v2/bsrnn"])
    content |= {"new_key": {"a": 1}}
    out = translate_wesep_training(content)
    assert list(out.missing) == ["new_key.a"] and "new_key.a" in out.as_yaml("x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "PIT"}, "loss: 'PIT' has no counterpart"),
        ({"scheduler": {"tse_model": "Other"}}, "scheduler.tse_model: 'Other'"),
        ({"model": {"tse_model": "CARNN"}}, "'CARNN' has no counterpart"),
        ({"loss_args": {"loss_posi": [[0, 1]], "loss_weight": [[1.0]]}}, "of one length"),
    ],
)
def test_what_cannot_be_translated_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        translate_wesep_training({**copy.deepcopy(WESEP["librimix/v2/bsrnn"]), **change})


def test_network_without_counterpart_is_refused():
    with pytest.raises(UntranslatableError, match="BSRNN_Feats"):
        translate_wesep_training(BSRNN_FEATS)


def shrink(config: dict[str, Any]) -> None:
    """Make the network small, and the run one step of one mixture of a second."""
    backbone = config["model"]["backbone"]
    backbone |= SMALL[backbone["name"]]
    if backbone.get("fusion_blocks"):
        backbone |= {"fusion_blocks": [0]}
    speaker = config["model"].get("speaker")
    if speaker and speaker["network"]["name"] == "resnet":
        speaker["network"] |= {"num_blocks": [1, 1, 1, 1], "channels": 4}
        speaker |= {"checkpoint": None, "mode": "joint"}
    elif speaker and speaker["network"]["name"] == "tcn":
        speaker["network"] |= {"bottleneck": 16, "hidden": 16, "num_blocks": 1, "embedding_dim": 32}
    config["simulation"] |= {"duration_s": 1.0, "enrollment": {"duration_s": [1.0, 1.0]}}
    config["train"] |= {"steps": 1, "batch_size": 1, "device": "cpu", "precision": "32-true"}
    config["data"]["workers"] = 0
    config["log"] = {"to": []}
    config["checkpoint"] |= {"every_steps": 1}


def fill(config: dict[str, Any], name: str, recipe: Path) -> None:
    """Name the miniature data of a configuration."""
    if name in ESPNET:
        data = make_espnet(recipe)
        config["data"] |= {"train": [str(data / "train/spk2enroll.json")]}
        config["data"]["mixtures"]["lists"] = [str(data / "train")]
        config["validation"] |= {"trials": str(data / "dev"), "enrollment": str(data / "dev"), "limit": 1}
    elif name.startswith("vox"):
        config["data"]["train"] = [str(make_voxceleb(recipe) / "shard_online.list")]
        config["data"]["stream"] = {"min_speakers": 3}
    else:
        data = make_wesep(recipe) / "train-100"
        config["data"]["mixtures"]["lists"] = [str(data)]
        if config["data"].get("embeddings") == UNKNOWN:
            config["data"]["embeddings"] = str(make_embeddings(recipe, data))


SLOW = ("librimix/v1/dpccn", "librimix/v1/dpcc_init_gan", "librimix/v2/dpcc_init_gan")
"""A step of DPCCN takes long: one of its configurations is tested every time."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in (*WESEP, *ESPNET)],
)
def test_published_configurations_train_a_step(name: str, tmp_path: Path):
    config = translated(name).config
    fill(config, name, tmp_path / "recipe")
    shrink(config)
    config.pop("init", None)
    if isinstance(config["loss"], list):
        config["loss"] = [{**loss, "workers": 0} if loss["name"] == "metric_gan" else loss for loss in config["loss"]]
    config["experiment"] = str(tmp_path / "exp")
    train(load_config(config))
    assert (tmp_path / "exp/checkpoints/last/model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WESEP, *ESPNET])
def test_published_networks_build_at_their_size(name: str):
    with torch.no_grad():
        network = build_network(translated(name).config["model"], initialise=False)
    assert sum(parameter.numel() for parameter in network.parameters()) > 1e6
