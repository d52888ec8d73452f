"""Exported graphs compute what the network does, offline and streamed; the description is complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.export.exportable_networks import (
    OFFLINE,
    STREAMING,
    difference,
    random_network,
    sound,
    stream_in_torch,
)
from wesep_py.common.errors import ConfigError, InputError, OutputExistsError
from wesep_py.export import DESCRIPTION, export, read_description
from wesep_py.inference import Extractor
from wesep_py.network.streaming_network import StreamingNetwork

FORMATS = ("onnx", "torchscript")


@pytest.mark.parametrize("name", OFFLINE)
def test_whole_recordings(name: str, runner_of: Callable):
    network, runner = random_network(OFFLINE[name]), runner_of(name)
    for num_samples, enrollment_samples in [(1, 5000), (37, 20000), (16000, 8001), (31999, 24000)]:
        mixture, enrollment = sound(num_samples), sound(enrollment_samples, seed=1)
        _compare(network, runner, mixture, enrollment)


@pytest.mark.parametrize("name", ["as bundled", "td_speakerbeam"])
def test_silence_constants_and_loud_recordings(name: str, runner_of: Callable):
    network, runner = random_network(OFFLINE[name]), runner_of(name)
    quiet = sound(9000)
    for mixture in (torch.zeros(1, 9000), quiet + 0.5, 1000 * quiet, 1e12 * quiet, 1e-6 * quiet):
        _compare(network, runner, mixture, sound(12000, seed=1))


def _compare(network, runner, mixture, enrollment):
    runner.enroll(enrollment[0].numpy())
    outputs = runner.run("extract", {"mixture": mixture.numpy(), **runner.prepared})
    with torch.inference_mode():
        prepared = network.prepare(enrollment)
        expected = network.extract(mixture, prepared)
    assert {f"cue.{key}" for key in prepared} == set(runner.prepared)
    for key, tensor in prepared.items():
        assert difference(tensor, runner.prepared[f"cue.{key}"]) < 1e-4
    assert difference(expected.waveforms[0], outputs["estimate"]) < 1e-4
    if expected.presence_logits is not None:
        assert difference(expected.presence_logits, outputs["presence_logits"]) < 1e-3
    assert ("presence_logits" in outputs) is (expected.presence_logits is not None)


@pytest.mark.parametrize("name", STREAMING)
def test_a_thousand_hops(name: str, runner_of: Callable):
    network, runner = random_network(STREAMING[name]), runner_of(name)
    about = runner.description
    first, stride = about["first_block"], about["stride"]
    samples, enrollment = sound(first + 1000 * stride) + 0.3, sound(9000, seed=1)
    runner.enroll(enrollment[0].numpy())
    with torch.inference_mode():
        expected = stream_in_torch(network, samples, network.prepare(enrollment))
    for hops in (1, 7, 1000):
        state, finished, logits = runner.initial_state(float(samples[0, 0])), [], []
        for start in (0, *range(first, samples.shape[1], hops * stride)):
            stop = first if start == 0 else start + hops * stride
            feed = {"samples": samples[:, start:stop].numpy(), **state, **runner.prepared}
            outputs = runner.run("stream", feed)
            state = {spec["input"]: outputs[spec["output"]] for spec in about["graphs"]["stream"]["state"]}
            finished.append(outputs["estimate"])
            logits.append(outputs.get("presence_logits"))
        assert difference(expected.waveform, np.concatenate(finished, axis=1)) < 1e-4
        if expected.presence_logits is not None:
            assert difference(expected.presence_logits, np.concatenate(logits, axis=1)) < 1e-3


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e12])
def test_streams_of_silence_and_of_loud_samples(scale: float, runner_of: Callable):
    network, runner = random_network(STREAMING["live"]), runner_of("live")
    first, stride = runner.description["first_block"], runner.description["stride"]
    samples = scale * sound(first + 20 * stride)
    runner.enroll(sound(9000, seed=1)[0].numpy())
    with torch.inference_mode():
        expected = stream_in_torch(network, samples, network.prepare(sound(9000, seed=1))).waveform[0]
    state = runner.initial_state(float(samples[0, 0]))
    block, state = runner.step(samples[0, :first].numpy(), state)
    rest, _ = runner.step(samples[0, first:].numpy(), state)
    assert difference(expected, np.concatenate([block, rest])) < 1e-4


@pytest.mark.parametrize("format", FORMATS)
def test_description(format: str, runner_of: Callable):
    network, folder = random_network(STREAMING["live"]), runner_of("live", format=format).folder
    about = read_description(folder)
    streaming = StreamingNetwork(network)
    assert (about["model"], about["model_hash"]) == ("model", Extractor(network).model_hash)
    assert (about["sample_rate"], about["window"], about["stride"]) == (16000, 512, 256)
    assert about["num_frames"] == {"kind": "centred", "stride": 256}
    assert (about["first_block"], about["num_leading"]) == (streaming.first_block, streaming.num_leading)
    assert (about["max_delay"], about["latency"]) == (streaming.max_delay, 510)
    assert (about["opset"], about["precision"]) == (17 if format == "onnx" else None, "float32")
    assert about["presence"]["threshold"] == 0.5 and about["level"] == "fitted"
    assert set(about["graphs"]) == {"enroll", "extract", "stream"}
    assert {path.name for path in folder.iterdir()} == {
        DESCRIPTION,
        *(graph["file"] for graph in about["graphs"].values()),
    }
    for graph in about["graphs"].values():
        assert hashlib.sha256((folder / graph["file"]).read_bytes()).hexdigest() == graph["sha256"]
    stream = about["graphs"]["stream"]
    assert [spec["input"] for spec in stream["state"]] == [
        spec["name"] for spec in stream["inputs"] if spec["name"].startswith("state.")
    ]
    assert [spec["output"] for spec in stream["state"]] == [
        spec["name"] for spec in stream["outputs"] if spec["name"].startswith("next.")
    ]
    initial = {spec["input"]: spec["initial"] for spec in stream["state"]}
    assert initial.pop("state.high_pass.first") == "first_sample" and initial.pop("state.level") == "ones"
    assert set(initial.values()) == {"zeros"}


def test_onnx_files_have_the_names_of_the_description(runner_of: Callable):
    import onnx

    folder = runner_of("live", format="onnx").folder
    for graph in read_description(folder)["graphs"].values():
        model = onnx.load(str(folder / graph["file"]))
        onnx.checker.check_model(model)
        for specs, values in ((graph["inputs"], model.graph.input), (graph["outputs"], model.graph.output)):
            assert [spec["name"] for spec in specs] == [value.name for value in values]
        operations = {node.op_type for node in model.graph.node}
        assert operations.isdisjoint({"DFT", "STFT", "Col2Im", "Loop", "Scan", "If"})


def test_torchscript_computes_the_same(runner_of: Callable):
    network, runner = random_network(STREAMING["live"]), runner_of("live", format="torchscript")
    _compare(network, runner, sound(12345), sound(9000, seed=1))
    first = runner.description["first_block"]
    samples = sound(first + 4 * 256)
    state = runner.initial_state(float(samples[0, 0]))
    block, state = runner.step(samples[0, :first].numpy(), state)
    rest, _ = runner.step(samples[0, first:].numpy(), state)
    with torch.inference_mode():
        expected = stream_in_torch(network, samples, network.prepare(sound(9000, seed=1))).waveform[0]
    assert difference(expected, np.concatenate([block, rest])) < 1e-4


@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 0.3), ("fp16", 0.02)])
@pytest.mark.parametrize("name", ["live", "td_speakerbeam causal"])
def test_smaller_weights_still_run(name: str, precision: str, tolerance: float, runner_of: Callable):
    plain, small = runner_of(name), runner_of(name, precision=precision)
    assert small.description["precision"] == precision
    mixture = sound(20000)[0].numpy()
    for runner in (plain, small):
        runner.enroll(sound(9000, seed=1)[0].numpy())
    expected = plain.extract(mixture)
    assert np.abs(small.extract(mixture) - expected).max() < tolerance * np.abs(expected).max()
    first = small.description["first_block"]
    small.step(mixture[:first], small.initial_state(float(mixture[0])))


def test_weights_of_16_bits_take_half_the_space(tmp_path: Path):
    config = {
        **OFFLINE["bsrnn"],
        "backbone": {**OFFLINE["bsrnn"]["backbone"], "feature_dim": 64, "window_ms": 20, "hop_ms": 10},
    }
    network = random_network(config)
    sizes = []
    for precision in ("float32", "fp16"):
        folder = export(Extractor(network), tmp_path / precision, precision=precision).folder
        sizes.append((folder / "extract.onnx").stat().st_size)
    assert sizes[1] < 0.65 * sizes[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"backbone": {"name": "tf_gridnet", "num_blocks": 1}}, "its backbone TFGridNet is not supported"),
        ({"cues": [{"name": "listen_first"}]}, "its cue ListenFirstCue is not supported"),
        ({"cues": [{"name": "embedding", "embedding_dim": 4}]}, "its cue embedding with embeddings computed elsewhere"),
        (
            {"speaker": {"network": {"name": "dvector"}, "front_end": "mel"}, "cues": [{"name": "embedding"}]},
            "its speaker front end 'mel' is not supported; supported: filterbank, backbone",
        ),
    ],
)
def test_unsupported_parts_are_named(config: dict, message: str, tmp_path: Path):
    network = random_network({**OFFLINE["bsrnn"], **config})
    with pytest.raises(ConfigError, match=message):
        export(Extractor(network), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_models_of_whole_recordings_have_no_stream(tmp_path: Path):
    with pytest.raises(ConfigError, match="works on whole recordings only"):
        export(Extractor(random_network(OFFLINE["bsrnn"])), tmp_path / "exported", stream=True)
    assert not (tmp_path / "exported").exists()


def test_folders_are_replaced_only_if_asked(tmp_path: Path):
    extractor = Extractor(random_network(OFFLINE["bsrnn"]))
    folder = export(extractor, tmp_path / "exported").folder
    before = (folder / DESCRIPTION).read_bytes()
    with pytest.raises(OutputExistsError):
        export(extractor, folder)
    assert (folder / DESCRIPTION).read_bytes() == before
    export(extractor, folder, "torchscript", overwrite=True)
    assert {path.name for path in folder.iterdir()} == {"enroll.pt", "extract.pt", DESCRIPTION}
    (folder / "notes.txt").touch()
    with pytest.raises(InputError, match="other things than an exported model"):
        export(extractor, folder, overwrite=True)


@pytest.mark.parametrize(
    "options", [{"format": "onxx"}, {"precision": "int4"}, {"format": "torchscript", "precision": "int8"}]
)
def test_wrong_options(options: dict, tmp_path: Path):
    with pytest.raises(InputError):
        export(Extractor(random_network(OFFLINE["bsrnn"])), tmp_path / "exported", **options)


@pytest.mark.parametrize("content", ["", "[1]", '{"format": "other"}', json.dumps({"format": "wesep-export"})])
def test_damaged_descriptions(content: str, tmp_path: Path):
    with pytest.raises(InputError, match="is no exported model"):
        read_description(tmp_path)
    (tmp_path / DESCRIPTION).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="again"):
        read_description(tmp_path)
