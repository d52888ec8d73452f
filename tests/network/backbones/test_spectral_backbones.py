"""TF-GridNet and DPCCN with cues: as shipped, with every fusion, silence and half precision."""

from __future__ import annotations

import pytest
import torch

import wesep_py.network.backbones.dpccn
import wesep_py.network.backbones.tf_gridnet
import wesep_py.network.cues.input_cues
from wesep_py import checkpoint
from wesep_py.common.config import conf_folder, load_yaml
from wesep_py.network.extraction_network import TargetSpeakerExtractor, build_network, load_network

CLASSES = {
    "tfgridnet": wesep_py.network.backbones.tf_gridnet.TFGridNet,
    "usef_tfgridnet": wesep_py.network.backbones.tf_gridnet.TFGridNet,
    "dpccn": wesep_py.network.backbones.dpccn.DPCCN,
}
TINY = {
    "tf_gridnet": {"feature_dim": 4, "num_blocks": 2, "hidden": 4, "num_heads": 2, "query_size": 64},
    "dpccn": {"channels": 4, "dense_channels": [4], "deep_channels": [8], "dense_layers": 2, "tcn_blocks": 2},
}
SPEAKER = {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 32, "embedding_dim": 8}}


def shipped(name: str, **backbone) -> TargetSpeakerExtractor:
    torch.manual_seed(0)
    model = load_yaml(conf_folder() / "model" / f"{name}.yaml")["model"]
    return build_network({**model, "backbone": {**model["backbone"], **backbone}})


def tiny(backbone: str, cues: list, **changes) -> TargetSpeakerExtractor:
    torch.manual_seed(0)
    arguments = {**TINY[backbone], **changes}
    config = {"backbone": {"name": backbone, **arguments}, "speaker": SPEAKER, "cues": cues, "presence": {"hidden": 4}}
    return build_network({**config, "normalise": "none" if arguments.get("causal") else "std"})


@pytest.mark.parametrize("name", CLASSES)
def test_the_shipped_model_has_the_right_backbone(name):
    network = shipped(name).eval()
    assert type(network.backbone) is CLASSES[name]
    assert network.backbone.latency is None


@pytest.mark.parametrize("name", CLASSES)
def test_the_small_model_trains_saves_and_loads(name, tmp_path):
    network = shipped(f"{name}_small").train()
    mixture, enrollment = torch.randn(2, 6000), torch.randn(2, 16000)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = (network(mixture, enrollment).waveforms[0] - 0.5 * mixture).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    network.eval()
    checkpoint.save(tmp_path / "model", network.config, network.state_dict())
    again = load_network(tmp_path / "model")
    prepared = network.prepare(enrollment)
    assert torch.equal(again.extract(mixture, prepared).waveforms[0], network.extract(mixture, prepared).waveforms[0])


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("fusion", ["concat", "add", "multiply", "film"])
@pytest.mark.parametrize("fuse_along", ["channels", "bins"])
def test_every_fusion_along_both_axes_gives_every_parameter_a_gradient(backbone, fusion, fuse_along):
    network = tiny(backbone, [{"name": "embedding", "fusion": fusion}], fuse_along=fuse_along).train()
    for module in network.modules():
        if hasattr(module, "scale") and isinstance(module.scale, torch.nn.Linear):
            torch.nn.init.normal_(module.scale.weight)  # FiLM starts at zero, where nothing reaches the encoder
    out = network(torch.randn(2, 4000), torch.randn(2, 16000))
    (out.waveforms[0].square().sum() + out.presence_logits.sum()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before a normalisation over the same axis, or a softmax over time, has no gradient by its nature.
    assert all(name.endswith("bias") for name in without), without


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("causal", [False, True])
def test_several_cues_and_a_presence_head_work_together(backbone, causal):
    cues = [{"name": "embedding"}, {"name": "tf_map", "temperatures": [1, 20], "power": 0.5}]
    network = tiny(backbone, cues, causal=causal).eval()
    out = network(torch.randn(2, 3001), torch.randn(2, 16000))
    assert out.waveforms[0].shape == (2, 3001)
    assert out.presence_logits.shape == (2, 3001 // network.backbone.stride + 1)
    assert (out.state is not None) == causal


@pytest.mark.parametrize("backbone", TINY)
def test_silence_gives_silence(backbone):
    network = tiny(backbone, [{"name": "embedding"}]).eval()
    assert (network(torch.zeros(1, 4000), torch.randn(1, 16000)).waveforms[0] == 0).all()


@pytest.mark.processor
@pytest.mark.parametrize("backbone", TINY)
def test_half_precision_gives_nearly_the_same_estimate(backbone, request: pytest.FixtureRequest):
    network = tiny(backbone, [{"name": "embedding"}]).eval()
    if any(isinstance(part, torch.nn.LSTM) for part in network.modules()):
        request.getfixturevalue("bfloat16_lstm")
    mixture, enrollment = torch.randn(1, 4000), torch.randn(1, 16000)
    full = network(mixture, enrollment).waveforms[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = network(mixture, enrollment).waveforms[0]
    assert half.dtype == torch.float32
    assert (half - full).norm() / full.norm() < 0.05
