"""ESPnet's configuration files: layout, sample rate, options of training."""

from __future__ import annotations

import pytest

from tests.interop.espnet_reference import espnet_config
from wesep_py.common.errors import ConfigError
from wesep_py.interop.espnet_config import TRAINING_KEYS, espnet_sample_rate, is_espnet, parse_espnet_config


def without_rate(**changes):
    return {key: value for key, value in espnet_config().items() if key != "fs"} | changes


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (espnet_config(), True),
        ({"model": "espnet_tse"}, True),
        ({"encoder": "conv", "separator": "tcn"}, True),
        ({"encoder_conf": {}, "decoder_conf": {}}, True),
        ({"model": {"tse_model": "BSRNN"}, "model_args": {"tse_model": {}}}, False),
        ({"model": "XVEC", "args": {}, "encoder": {"model": "X", "args": {}}}, False),
        ({}, False),
    ],
)
def test_layout_is_recognised(content, expected):
    assert is_espnet(content) is expected


@pytest.mark.parametrize(
    ("content", "rate"),
    [
        ({"fs": "16k"}, 16000),
        ({"fs": 8000}, 8000),
        ({"fs": "22.05k"}, 22050),
        ({"sample_rate": 16000}, 16000),
        ({"sample_rate": 8000}, None),  # ESPnet writes its default into configurations of any rate
        ({"preprocessor_conf": {"sample_rate": 48000}}, 48000),
        ({"sample_rate": 8000, "train_shape_file": ["exp/enh_stats_16k/train/speech_mix_shape"]}, 16000),
        ({"train_data_path_and_name_and_type": [["dump/raw/tr_min_8k/wav.scp", "speech_mix", "sound"]]}, 8000),
        ({"train_data_path_and_name_and_type": [["dump/raw/tr_8k_16k/wav.scp", "speech_mix", "sound"]]}, None),
        ({"train_data_path_and_name_and_type": [["dump/raw/train_360k8kids/wav.scp", "speech_mix", "sound"]]}, None),
        ({}, None),
    ],
)
def test_sample_rate_is_found(content, rate):
    assert espnet_sample_rate(content) == rate


def test_sample_rate_that_is_none_is_an_error():
    with pytest.raises(ConfigError, match="fs: is 'fast'; a sample rate such as 16000 or 16k"):
        espnet_sample_rate({"fs": "fast"})


def test_missing_sample_rate_has_to_be_given():
    (problem,) = parse_espnet_config(without_rate()).problems
    assert problem.startswith("sample_rate: the configuration does not say") and "--sample-rate 16000" in problem
    public = parse_espnet_config(without_rate(), 16000)
    assert public.problems == [] and public.sample_rate == public.args["sample_rate"] == 16000


def test_contradicting_sample_rates_are_refused():
    (problem,) = parse_espnet_config(espnet_config(), 16000).problems
    assert problem == "sample_rate: 16000 Hz is asked for, but the configuration is of a model at 8000 Hz"


def test_options_of_training_change_nothing():
    options = dict.fromkeys(TRAINING_KEYS, 1) | {"preprocessor_conf": {"num_spk": 2, "rir_scp": "rirs.scp"}}
    options |= {"dist_backend": "nccl", "optim2_conf": {}, "wandb_id": None, "noise_db_range": "13_15", "version": "1"}
    config = espnet_config()
    assert parse_espnet_config({**config, **options}).problems == []
    assert parse_espnet_config({**config, **options}).args == parse_espnet_config(config).args


def test_unknown_options_are_named_everywhere():
    problems = parse_espnet_config(
        {**espnet_config(), "mask_module": 1, "model_conf": {"masks": 1}, "preprocessor_conf": {"gain": 2}}
    ).problems
    assert [problem.partition(":")[0] for problem in problems] == [
        "mask_module",
        "model_conf.masks",
        "preprocessor_conf.gain",
    ]


def test_embeddings_are_loaded_if_and_only_if_the_network_takes_them():
    config = espnet_config(use_spk_emb=True, spk_emb_dim=5)
    assert parse_espnet_config({**config, "load_spk_embedding": True}).problems == []
    (problem,) = parse_espnet_config({**config, "preprocessor_conf": {"load_spk_embedding": False}}).problems
    assert "load_spk_embedding: is false, but extractor_conf.use_spk_emb is true" in problem
