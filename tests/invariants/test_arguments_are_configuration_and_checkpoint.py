"""Constructor arguments = configuration = checkpoint; nothing is ever unpickled."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import torch

import wesep_py
from wesep_py import checkpoint
from wesep_py.common.config import load_yaml
from wesep_py.network.backbones import backbones
from wesep_py.network.cues import cues
from wesep_py.network.extraction_network import build_network, load_network
from wesep_py.network.speaker import speaker_networks

CONFIG = {
    "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 1, "hop_ms": 16},
    "speaker": {"network": {"name": "ecapa_tdnn", "channels": 8, "frame_dim": 16, "embedding_dim": 4}},
    "cues": [{"name": "embedding", "fusion": "add"}],
    "presence": {"hidden": 4, "inputs": ["latent"], "smoothing": "none", "window_s": 1.0, "detach": "none"},
    "sample_rate": 8000,
    "normalise": "std",
    "level": "learned",
    "highpass_hz": 30.0,
    "live_presence": None,
    "shifts": 4,
}


def test_a_checkpoint_holds_the_configuration_of_its_network(tmp_path):
    network = build_network(CONFIG)
    checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    assert load_yaml(tmp_path / "model" / "config.yaml") == CONFIG
    assert load_network(tmp_path / "model").config == CONFIG


def test_every_key_is_an_argument_of_a_constructor():
    for registry, key in ((backbones, "backbone"), (speaker_networks, "speaker.network")):
        for name in registry.names():
            assert inspect.signature(registry.get(name)).parameters, (key, name)
    for name in cues.names():
        for parameter in inspect.signature(cues.get(name)).parameters.values():
            assert parameter.default is not parameter.empty, f"cue {name}: {parameter.name} has no default"


def test_nothing_is_unpickled():
    """No module imports pickle or joblib, loads pickled arrays, or calls torch.load without weights_only=True."""
    for path in Path(wesep_py.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "cPickle", "joblib", "dill", "shelve"}, path
            if isinstance(node, ast.Call):
                keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                assert keywords.get("allow_pickle") is not True, path
                if ast.unparse(node.func) == "torch.load":
                    assert keywords.get("weights_only") is True, f"{path}:{node.lineno}"


def test_a_pickled_checkpoint_is_refused(tmp_path):
    import pytest

    from wesep_py.common.errors import CheckpointError

    network = build_network(CONFIG)
    folder = checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    torch.save(network.state_dict(), folder / "model.safetensors")
    with pytest.raises(CheckpointError):
        checkpoint.load(folder)
