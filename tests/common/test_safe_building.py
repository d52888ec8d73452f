"""A model's configuration is plain data, and builds no network larger than its weights."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wesep_py import checkpoint
from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.common.errors import CheckpointError, ConfigError
from wesep_py.common.safe_building import _result_size, build_within, check_numbers
from wesep_py.network.extraction_network import build_network, load_network
from wesep_py.network.speaker.speaker_encoder import load_encoder

CONFIG: dict[str, Any] = {
    "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1},
    "speaker": {"network": {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 24, "embedding_dim": 6}},
    "cues": [{"name": "embedding"}],
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    torch.manual_seed(0)
    network = build_network(CONFIG)
    return checkpoint.load(
        checkpoint.save(tmp_path_factory.mktemp("model") / "m", network.config, network.state_dict())
    )


def _with(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    key, _, rest = path.partition(".")
    return {**config, key: _with(config.get(key) or {}, rest, value) if rest else value}


HUGE = [
    ("backbone.num_blocks", 1_000_000_000),
    ("backbone.num_blocks", 900_000),
    ("backbone.feature_dim", 900_000),
    ("backbone.window_ms", 1e9),
    ("backbone.window_ms", 900_000),
    ("backbone.bands", [[i + 1.0, 100_000] for i in range(9)]),
    ("sample_rate", 10**9),
    ("sample_rate", 10**400),
    ("speaker.network.embedding_dim", 800_000),
    ("speaker.network.channels", 800_000),
    ("speaker.filterbank", {"num_mel_bins": 500_000}),
    ("speaker.filterbank", {"frame_length_ms": 900_000.0}),
    ("presence", {"hidden": 900_000}),
]


@pytest.mark.parametrize(("path", "value"), HUGE, ids=range(len(HUGE)))
def test_a_network_larger_than_its_weights_is_refused(
    saved: checkpoint.Checkpoint, tmp_path: Path, path: str, value: Any
):
    config = _with(saved.config, path, value)
    if isinstance(value, int) and value > 2**63:
        checkpoint.save(tmp_path / "m", saved.config, saved.state_dict)
        text = (tmp_path / "m" / "config.yaml").read_text().replace("sample_rate: 16000", f"sample_rate: {value}")
        (tmp_path / "m" / "config.yaml").write_text(text)
    else:
        checkpoint.save(tmp_path / "m", config, saved.state_dict)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    loaders: list[Callable[[Path], Any]] = [load_network]
    if path.startswith("speaker") and not path.startswith("speaker.filterbank"):
        loaders.append(load_encoder)
    for load in loaders:
        with pytest.raises(CheckpointError) as refused:
            load(tmp_path / "m")
        assert str(tmp_path / "m") in str(refused.value) and len(str(refused.value)) < 500
    assert time.perf_counter() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


def test_configurations_in_conf_are_within_their_weights():
    for path in sorted((conf_folder() / "model").glob("*_small.yaml")):
        model = load_yaml(path)["model"]
        weights = build_network(model, initialise=False).state_dict()
        network = build_within(lambda model=model: build_network(model, initialise=False), weights)
        assert checkpoint.weight_mismatches(network.state_dict(), weights) == []


def test_building_stops_at_each_limit():
    weights = {"a": torch.ones(3)}
    with pytest.raises(ConfigError, match="numbers or more"):
        build_within(lambda: torch.nn.Linear(10**5, 10**5), weights)
    with pytest.raises(ConfigError, match="numbers or more"):
        build_within(lambda: torch.ones(10**5, 1) + torch.ones(1, 10**5), weights)
    large = [
        lambda: torch.eye(10**4),
        lambda: torch.ones(10**4).repeat(10**4),
        lambda: torch.outer(torch.ones(10**4), torch.ones(10**4)),
        lambda: torch.nn.functional.pad(torch.ones(1), (0, 10**8)),
        lambda: torch.arange(10**8),
        lambda: torch.hann_window(10**8),
        lambda: torch.full((10**4, 10**4), 1),
        lambda: torch.ones(10**4, 1) @ torch.ones(1, 10**4),
    ]
    for make in large:
        with pytest.raises(ConfigError, match="numbers or more"):
            build_within(make, weights)
    build_within(lambda: torch.tensor(10**9) + torch.full((2,), 10**9) * 10**9, weights)
    with pytest.raises(ConfigError, match="modules or more"):
        build_within(lambda: torch.nn.ModuleList(torch.nn.Identity() for _ in range(10**9)), weights)
    with pytest.raises(ConfigError, match="parameters or more"):
        build_within(lambda: torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(10**9)), weights)
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        build_within(lambda: 1 // 0, weights)
    torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(200))  # outside the block nothing is counted
    assert torch.ones(10**7).numel() == 10**7


def test_check_numbers_refuses_large_and_not_finite_numbers():
    check_numbers({"a": [1, 2.5, True, None, "text", {"b": -(10**6)}]})
    for value in (float("nan"), float("inf"), 10**7, -(10**400)):
        with pytest.raises(ConfigError, match=r"^a\[0\]: is .*at most 1000000 is allowed"):
            check_numbers({"a": [value]})


def _tampered(saved: checkpoint.Checkpoint, folder: Path, text: str) -> Path:
    """Save a checkpoint with the given text as its configuration, and a matching hash."""
    import json

    checkpoint.save(folder, saved.config, saved.state_dict)
    (folder / "config.yaml").write_text(text)
    provenance = json.loads((folder / "provenance.json").read_text())
    provenance["hash"] = checkpoint.fingerprint((folder / "model.safetensors").read_bytes(), text)
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def test_a_models_configuration_reads_no_files_or_environment(
    saved: checkpoint.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NAME", "SECRET")
    (tmp_path / "passwd").write_text("root:SECRET\n")
    (tmp_path / "block.yaml").write_text("backbone: {name: SECRET}\n")
    (tmp_path / "config.json").write_text('{"SECRET": 1}')
    texts = [
        "backbone: {name: '${oc.env:NAME}'}\ncues: [{name: tf_map}]",
        f"include: {tmp_path}/passwd\n",
        f"include: {tmp_path}/block.yaml\ncues: [{{name: tf_map}}]",
        f"backbone: {{include: {tmp_path}/block.yaml}}\ncues: [{{name: tf_map}}]",
        f"backbone: {{name: {tmp_path}/plugin.py:Net}}\ncues: [{{name: tf_map}}]",
        "backbone: {name: bsrnn}\ncues: [{name: embedding}]\nspeaker: {front_end: self_supervised, network: {name: "
        f"ecapa_tdnn}}, self_supervised: {{kind: wavlm, path: {tmp_path}}}}}",
        "backbone: [1]\ncues: 3",
        "backbone: {name: [a]}\ncues: [3]",
        "speaker: 3\nbackbone: {name: bsrnn}\ncues: [{name: embedding}]",
        "backbone: {name: bsrnn, " + "x" * 5000 + ": 1}\ncues: [{name: tf_map}]",
        "backbone: {name: " + "x" * 5000 + "}\ncues: [{name: tf_map}]",
        "{3: 4}",
    ]
    for number, text in enumerate(texts):
        folder = _tampered(saved, tmp_path / str(number), text)
        for load in (load_network, load_encoder):
            with pytest.raises(CheckpointError) as refused:
                load(folder)
            assert str(folder) in str(refused.value) and "SECRET" not in str(refused.value), text
            assert len(str(refused.value)) < 700, text


def test_errors_name_weights_with_nan_or_wrong_shapes(saved: checkpoint.Checkpoint, tmp_path: Path):
    name = next(iter(saved.state_dict))
    cases = {
        "holds NaN": {**saved.state_dict, name: saved.state_dict[name] * float("nan")},
        "missing": {key: value for key, value in saved.state_dict.items() if key != name},
        "not used": {**saved.state_dict, "other": torch.ones(1)},
        "has size": {**saved.state_dict, name: torch.ones(3, 1, 4)},
        "is complex64": {**saved.state_dict, name: torch.ones(3, dtype=torch.complex64)},
    }
    for number, (message, weights) in enumerate(cases.items()):
        checkpoint.save(tmp_path / str(number), saved.config, weights)
        with pytest.raises(CheckpointError, match=message) as refused:
            load_network(tmp_path / str(number))
        assert str(tmp_path / str(number)) in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize("content", ["[1]", "3", "null", "[" * 10000, '{"format_version": ' + "9" * 5000, "\ud800"])
def test_an_invalid_provenance_is_an_error_of_one_line(saved: checkpoint.Checkpoint, tmp_path: Path, content: str):
    folder = checkpoint.save(tmp_path / "m", saved.config, saved.state_dict)
    (folder / "provenance.json").write_bytes(content.encode("utf-8", errors="surrogatepass"))
    with pytest.raises(CheckpointError) as refused:
        checkpoint.load(folder)
    assert str(folder) in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize("padding", [0, 1, 7])
def test_the_size_of_a_convolution_is_bounded_by_its_output(padding: int):
    signal, weight, bias = torch.zeros(2, 12, 5), torch.zeros(48, 12, 3), torch.zeros(48)
    arguments = [signal, weight, bias, (1,), (padding,), (1,), 1]
    size = _result_size("conv1d", arguments, [signal, weight, bias])
    actual = torch.nn.functional.conv1d(signal, weight, bias, padding=padding).numel()
    assert actual <= size <= 10 * max(actual, 500)
    huge = [signal, weight, bias, (1,), (10**9,), (1,), 1]
    assert _result_size("conv1d", huge, [signal, weight, bias]) > 10**9
