"""The grid: each cue, and several at once, on each backbone: a result of its length, and a gradient for every layer."""

from __future__ import annotations

import pytest
import torch

from wesep_py.config import conf_folder, load_yaml
from wesep_py.extractor import build_network

BACKBONES = ["bsrnn_small", "convtasnet_small", "dpccn_small", "tfgridnet_small"]
SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}}
EMBEDDING, TF_MAP = {"name": "embedding", "fusion": "multiply"}, {"name": "tf_map", "temperatures": [1, 20]}
CONTEXT, USEF = {"name": "context", "dim": 8}, {"name": "usef", "channels": 4, "num_heads": 2}
CUES = {
    "embedding": [EMBEDDING],
    "tf_map": [TF_MAP],
    "context": [CONTEXT],
    "usef": [USEF],
    "listen_first": [{"name": "listen_first"}],
    "multilevel": [TF_MAP, CONTEXT, EMBEDDING],
    "all": [TF_MAP, CONTEXT, EMBEDDING, {**USEF, "keep_features": True}, {"name": "listen_first"}],
}


@pytest.mark.parametrize("cues", CUES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_builds_and_trains(backbone, cues):
    torch.manual_seed(0)
    model = load_yaml(conf_folder() / "model" / f"{backbone}.yaml")["model"]
    hears = any(cue["name"] in ("embedding", "context") for cue in CUES[cues])
    network = build_network({**model, "cues": CUES[cues], "speaker": SPEAKER if hears else None}).train()
    mixture, enrollment = torch.randn(2, 1501), torch.randn(2, 4000)
    out = network(mixture, enrollment, torch.tensor([4000, 2500])).waveforms[0]
    assert out.shape == mixture.shape
    out.square().sum().backward()
    for name, parameter in network.cues.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    network.eval()
    prepared = network.prepare(enrollment)
    both = network.combine([prepared, prepared])
    assert torch.isfinite(network.extract(mixture, both).waveforms[0]).all()
