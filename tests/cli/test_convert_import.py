"""`wesep import-checkpoint`."""

from __future__ import annotations

import json

import pytest
import torch

import wesep_py
from tests.interop.public import XVECTOR, public_xvector
from tests.interop.test_wesep_conv_tasnet import ARGS, public_weights
from wesep_py import checkpoint
from wesep_py.common.config import dump_yaml
from wesep_py.interop import load_wesep
from wesep_py.network.extraction_network import load_network
from wesep_py.network.speaker import build_encoder

JOINT = {
    **ARGS,
    "spk_emb_dim": 6,
    "spk_fuse_type": "concatConv",
    "norm": "cLN",
    "skip_con": True,
    "joint_training": True,
    "spk_feat": True,
    "multi_task": True,
    "spksInTrain": 5,
    "spk_model": "XVEC",
    "spk_model_init": False,
    "spk_args": XVECTOR["args"],
}


def extractor_weights() -> dict[str, torch.Tensor]:
    """Random weights of a small extractor with a speaker network, under their public names."""
    weights = {
        key: value.squeeze(1) if value.shape[1:] == (1,) else value for key, value in public_weights(JOINT).items()
    }
    speaker = {f"spk_model.{key}": value for key, value in public_xvector()[1].items()}
    return {**weights, **speaker, "pred_linear.weight": torch.randn(5, 6), "pred_linear.bias": torch.randn(5)}


def extractor_config(**changes) -> dict:
    return {
        "exp_dir": "exp/x",
        "dataset_args": {"resample_rate": 8000, "fbank_args": {"num_mel_bins": 20, "frame_length": 25, "dither": 1.0}},
        "model": {"tse_model": "ConvTasNet"},
        "model_args": {"tse_model": {**JOINT, **changes}},
    }


@pytest.fixture
def public(tmp_path):
    """Write a public checkpoint and its configuration; returns their paths."""

    def write(weights: dict[str, torch.Tensor], config: dict):
        torch.save({"models": [weights], "optimizers": [{}]}, tmp_path / "avg_model.pt")
        (tmp_path / "train.yaml").write_text(dump_yaml(config))
        return tmp_path / "avg_model.pt", "--config", tmp_path / "train.yaml", "-o", tmp_path / "model"

    return write


def test_an_imported_extractor_computes_the_same(wesep, public, tmp_path):
    weights = extractor_weights()
    assert wesep("import-checkpoint", *public(weights, extractor_config())).status == 0
    network = load_network(tmp_path / "model")
    assert network.encoder.filterbank.num_mel_bins == 20 and network.encoder.filterbank.dither == 1.0
    adapter = load_wesep({"model": "ConvTasNet", "args": {**JOINT, "sr": 8000}}, weights)
    mixture, enrollment = torch.randn(2, 2000), torch.randn(2, 8000)
    with torch.no_grad():
        estimate, logits = adapter(mixture, network.encoder.filterbank(enrollment))
        out = network(mixture, enrollment)
    torch.testing.assert_close(out.waveforms[0], estimate[:, 0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out.speaker_logits, logits)
    extractor = wesep_py.load(tmp_path / "model", device="cpu")
    voice = extractor.enroll((torch.randn(16000).numpy(), 16000))
    result = extractor.extract((torch.randn(6000).numpy(), 16000), voice)
    assert extractor.sample_rate == 8000 and result.waveform.shape[-1] == 6000


def test_provenance_names_the_source(wesep, public, tmp_path):
    import hashlib

    assert "extractor ConvTasNet" in wesep("import-checkpoint", *public(extractor_weights(), extractor_config())).out
    digest = hashlib.sha256((tmp_path / "avg_model.pt").read_bytes()).hexdigest()
    source = json.loads((tmp_path / "model/provenance.json").read_text())["imported_from"]
    assert (source["sha256"], source["file"], source["toolkit"]) == (digest, "avg_model.pt", "WeSep")
    assert source["arguments"]["spk_model"] == "XVEC"
    assert digest in (tmp_path / "model/card.md").read_text()
    assert str(tmp_path) not in (tmp_path / "model/provenance.json").read_text()


@pytest.mark.parametrize("short", [False, True])
def test_an_imported_speaker_network_initialises_an_encoder(wesep, public, tmp_path, short):
    network, weights = public_xvector()
    config = {
        "model": XVECTOR["model"],
        "model_args": XVECTOR["args"],
        "projection_args": {"project_type": "arc_margin"},
    }
    config["dataset_args"] = {"fbank_args": {"num_mel_bins": 20, "frame_shift": 10, "frame_length": 25, "dither": 1.0}}
    arguments = public({**weights, "projection.weight": torch.ones(9, 6)}, XVECTOR if short else config)
    assert "speaker encoder XVEC" in wesep("import-checkpoint", *arguments).out
    saved = checkpoint.load(tmp_path / "model").config
    assert ("dither" in saved["filterbank"]) is not short
    encoder = build_encoder({**saved, "mode": "frozen", "checkpoint": str(tmp_path / "model")}, 16000)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in encoder.network.state_dict().items())


def test_unmapped_tensors_are_listed_and_nothing_is_written(wesep, public, tmp_path):
    weights = extractor_weights()
    del weights["separation.separation.0.dconv.weight"], weights["spk_model.seg_1.bias"], weights["decoder.bias"]
    weights |= {"surplus.weight": torch.ones(1), "BottleN_S.bias": torch.ones(9)}
    ran = wesep("import-checkpoint", *public(weights, extractor_config()))
    lines = ran.err.splitlines()
    assert ran.status == 2
    assert "not used: surplus.weight" in lines
    assert "missing: backbone.blocks.0.depthwise.weight" in lines
    assert "missing: encoder.network.linear.bias" in lines
    assert "missing: backbone.decoders.0.filters.bias" in lines
    assert "backbone.input.1.bias: has size [9]; [5] is needed" in lines
    assert "thing(s) could not be mapped" in lines[-1] and len(lines) == 6
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("config", "messages"),
    [
        (extractor_config(norm="LN", multi_fuse=False), ["norm: is 'LN'", "multi_fuse: false cannot run"]),
        (extractor_config(skipcon=1, kernel=2), ["skipcon: cannot be translated", "kernel: cannot be translated"]),
        (
            extractor_config(spk_args={**XVECTOR["args"], "feat_dim": 24}),
            ["num_mel_bins: is 20", "has size [8, 20, 5]"],
        ),
        (
            {"model": "XVEC", "model_args": {}, "dataset_args": {"frontend": "s3prl"}},
            ["dataset_args.frontend: 's3prl'"],
        ),
        ({"model": "RestNet34", "model_args": {}}, ["no network is called 'RestNet34'; did you mean 'ResNet34'"]),
        (
            {"model": {"tse_model": "BSRN"}, "model_args": {"tse_model": {}}},
            ["no network is called 'BSRN'; did you mean"],
        ),
        ({"network": "BSRNN"}, ["is no configuration of WeSep"]),
    ],
)
def test_unsupported_configuration_keys_are_listed(wesep, public, tmp_path, config, messages):
    ran = wesep("import-checkpoint", *public(extractor_weights(), config))
    assert ran.status == 2 and "Traceback" not in ran.err
    assert all(message in ran.err for message in messages), ran.err
    assert not (tmp_path / "model").exists()


def test_an_existing_folder_is_not_replaced(wesep, public, tmp_path):
    arguments = public(extractor_weights(), extractor_config())
    (tmp_path / "model").mkdir()
    (tmp_path / "model/thesis.txt").write_text("three years")
    ran = wesep("import-checkpoint", *arguments, "--overwrite")
    assert ran.status == 2 and "other things than a checkpoint" in ran.message
    (tmp_path / "model/thesis.txt").unlink()
    assert wesep("import-checkpoint", *arguments).status == 0
    assert "--overwrite" in wesep("import-checkpoint", *arguments).message
    assert wesep("import-checkpoint", *arguments, "--overwrite").status == 0


def test_missing_files_are_named(wesep, tmp_path):
    (tmp_path / "config.yaml").write_text(dump_yaml(extractor_config()))
    ran = wesep("import-checkpoint", tmp_path / "none.pt", "-o", tmp_path / "model")
    assert ran.status == 2 and "no such file" in ran.message
    ran = wesep("import-checkpoint", tmp_path / "none.pt", "--config", tmp_path / "none.yaml", "-o", tmp_path / "model")
    assert ran.status == 2 and "none.yaml" in ran.message


@pytest.mark.parametrize("weights", ["", ".", ".."])
def test_a_folder_instead_of_the_weights_is_refused(wesep, tmp_path, monkeypatch, weights: str):
    monkeypatch.chdir(tmp_path)
    ran = wesep("import-checkpoint", weights, "-o", tmp_path / "model")
    assert ran.status == 2 and "is a folder; give the checkpoint file" in ran.message


@pytest.mark.parametrize("prefixes", [("_orig_mod.", "module."), ("module._orig_mod.", ""), ("_orig_mod.module.",)])
def test_prefixes_of_wrappers_are_accepted_in_any_order(wesep, public, tmp_path, prefixes):
    weights = extractor_weights()
    named = {prefixes[i % len(prefixes)] + name: value for i, (name, value) in enumerate(weights.items())}
    ran = wesep("import-checkpoint", *public(named, extractor_config()))
    assert ran.status == 0, ran.err


@pytest.mark.parametrize(
    "changes",
    [
        {"R": 10**9},
        {"R": 900_000},
        {"X": 900_000, "R": 1000},
        {"N": 900_000},
        {"L": 10**12},
        {"R": "many"},
        {"R": None},
        {"R": [1]},
        {"R": -1},
        {"R": 0.5},
        {"spk_args": 3},
        {"spk_args": {"feat_dim": "x"}},
        {"spk_model": ["a"]},
        {"x" * 5000: 1},
        {"norm": "x" * 5000},
    ],
    ids=range(15),
)
def test_impossible_sizes_and_types_are_refused_quickly(wesep, public, tmp_path, changes):
    import resource
    import time

    arguments = public(extractor_weights(), extractor_config(**changes))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    ran = wesep("import-checkpoint", *arguments)
    assert ran.status == 2 and "Traceback" not in ran.err
    assert str(tmp_path) in ran.err.splitlines()[-1] and max(map(len, ran.err.splitlines())) < 1200  # with all names
    assert time.perf_counter() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "text",
    [
        "model: ${oc.env:NAME}\nmodel_args: {}",
        "model: {tse_model: '${oc.env:NAME}'}\nmodel_args: {tse_model: {R: '${oc.env:NAME}'}}",
        "include: secret.yaml",
        "model: ConvTasNet\nargs: {include: secret.yaml}",
        "model: {tse_model: ConvTasNet}\nmodel_args: {tse_model: {R: '${oc.env:NAME}'}}",
        "model: ConvTasNet\nargs: 3",
        "model: ConvTasNet\nargs: {}\ndataset_args: [1]",
        "model: ConvTasNet\nargs: {}\ndataset_args: {resample_rate: fast}",
        "model: ConvTasNet\nargs: {}\ndataset_args: {fbank_args: {frame_length: [1]}}",
        "model: ConvTasNet\nargs: {}\nencoder: 3",
        "model: [ConvTasNet]\nargs: {}",
        "!!python/object/apply:os.system [true]",
    ],
    ids=range(12),
)
def test_a_configuration_is_read_as_plain_data(wesep, tmp_path, monkeypatch, text):
    monkeypatch.setenv("NAME", "SECRET")
    (tmp_path / "secret.yaml").write_text("R: SECRET\nmodel: SECRET\n")
    torch.save({"a": torch.ones(1)}, tmp_path / "avg_model.pt")
    (tmp_path / "config.yaml").write_text(text)
    ran = wesep("import-checkpoint", tmp_path / "avg_model.pt", "-o", tmp_path / "model")
    assert ran.status == 2 and "SECRET" not in ran.err and "Traceback" not in ran.err
    assert str(tmp_path) in ran.err.splitlines()[-1] and max(map(len, ran.err.splitlines())) < 1200  # with all names


def test_a_checkpoint_folder_with_other_files_is_not_replaced(wesep, public, tmp_path):
    arguments = public(extractor_weights(), extractor_config())
    assert wesep("import-checkpoint", *arguments).status == 0
    (tmp_path / "model" / "results.csv").write_text("a month of listening")
    ran = wesep("import-checkpoint", *arguments, "--overwrite")
    assert ran.status == 2 and "other things than a checkpoint (results.csv)" in ran.message
    assert (tmp_path / "model" / "results.csv").read_text() == "a month of listening"


def test_the_input_weights_are_not_replaced(wesep, public, tmp_path):
    arguments = public(extractor_weights(), extractor_config())
    weights = arguments[0]
    (tmp_path / "model").mkdir()
    weights.rename(tmp_path / "model" / "model.safetensors")
    ran = wesep("import-checkpoint", tmp_path / "model" / "model.safetensors", *arguments[1:], "--overwrite")
    assert ran.status == 2 and "is the weights, which is read" in ran.message
    assert (tmp_path / "model" / "model.safetensors").exists()
