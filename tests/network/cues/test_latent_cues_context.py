"""The context cue: attention step by step, gradients, padding, causality and layouts of the latent."""

from __future__ import annotations

import pytest
import torch

from wesep_py.common.errors import ConfigError
from wesep_py.network.backbones import BSRNN
from wesep_py.network.cues.latent_cues import ContextCue
from wesep_py.network.extraction_network import build_network

MODEL = {
    "backbone": {"name": "bsrnn", "feature_dim": 8, "num_blocks": 2},
    "speaker": {"network": {"name": "ecapa_tdnn", "channels": 16, "frame_dim": 12, "embedding_dim": 8}},
    "normalise": "none",
}


def build(causal: bool = False, **cue):
    torch.manual_seed(0)
    backbone = {**MODEL["backbone"], "causal": causal}
    return build_network({**MODEL, "backbone": backbone, "cues": [{"name": "context", "dim": 8, **cue}]}).eval()


@pytest.mark.parametrize("projection", ["shared", "band"])
def test_attention_equals_its_formula(projection):
    """Softmax over enrollment frames of query · key / √d, for each head, without torch's attention."""
    cue = build(projection=projection).cues[0]
    latent, frames = torch.randn(1, 32, 5, 8), torch.randn(1, 7, 12)
    out = cue.attend(latent, {"frames": frames, "mask": torch.ones(1, 7, dtype=torch.bool)})
    for band in (0, 17, 31):
        if projection == "band":
            enrolled = frames[0] @ cue.frames.weight[band] + cue.frames.bias[band]
        else:
            enrolled = cue.frames(frames[0])
        query, key, value = cue.query(latent[0, band]), cue.key(enrolled), cue.value(enrolled)
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            weights = (query[:, head] @ key[:, head].T / 4**0.5).softmax(dim=1)
            heads.append(weights @ value[:, head])
        torch.testing.assert_close(out[0, band], cue.output(torch.cat(heads, dim=1)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["concat", "add", "multiply", "film"])
@pytest.mark.parametrize("points", ["first", "all", [1]])
def test_every_fusion_gives_every_parameter_a_gradient(fusion, points):
    network = build(fusion=fusion, points=points).train()
    for layer in network.cues[0].fusion.layers:
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter)  # FiLM starts at zero, where nothing reaches the attention
    network(torch.randn(2, 4000), torch.randn(2, 16000)).waveforms[0].square().sum().backward()
    parameters = dict(network.cues[0].named_parameters())
    without = [name for name, p in parameters.items() if p.grad is None or not p.grad.any()]
    # A key's bias shifts all scores of a query alike, which a softmax does not see.
    assert [name for name in without if name != "key.bias"] == []


def test_padding_of_an_enrollment_is_ignored():
    network, mixture, enrollment = build(), torch.randn(1, 4000), torch.randn(1, 16000)
    padded = torch.cat([enrollment, torch.zeros(1, 5000)], dim=1)
    out = network(mixture, padded, torch.tensor([16000])).waveforms[0]
    torch.testing.assert_close(out, network(mixture, enrollment).waveforms[0], atol=1e-4, rtol=1e-3)


def test_two_enrollments_are_joined_in_time():
    network, mixture = build(), torch.randn(1, 4000)
    first, second = network.prepare(torch.randn(1, 16000)), network.prepare(torch.randn(1, 9000))
    joined = network.combine([first, second])
    assert joined["0.frames"].shape[1] == first["0.frames"].shape[1] + second["0.frames"].shape[1]
    twice = network.extract(mixture, network.combine([first, first])).waveforms[0]
    torch.testing.assert_close(twice, network.extract(mixture, first).waveforms[0], atol=1e-5, rtol=1e-4)


def test_a_causal_network_stays_causal():
    network = build(causal=True)
    enrollment, mixture = torch.randn(1, 16000), torch.randn(1, 6000)
    changed = mixture.clone()
    changed[:, 4000:] = torch.randn(1, 2000)
    prepared = network.prepare(enrollment)
    same = 4000 - network.latency
    before, after = (network.extract(waveform, prepared).waveforms[0][:, :same] for waveform in (mixture, changed))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=1e-5)
    assert not torch.equal(mixture, changed)


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="multiple of num_heads"):
        ContextCue(dim=9, num_heads=2)
    with pytest.raises(ConfigError, match="needs a speaker encoder"):
        build_network({**MODEL, "speaker": None, "cues": [{"name": "context"}]})


def test_projection_band_needs_a_backbone_with_bands():
    backbone, encoder = BSRNN(feature_dim=8, num_blocks=1), build().encoder
    del backbone.num_bands
    with pytest.raises(ConfigError, match="BSRNN has no bands; use 'shared'"):
        ContextCue(projection="band").attach(backbone, encoder)


@pytest.mark.parametrize(("name", "frame_axis"), [("tf_gridnet", 1), ("dpccn", 2)])
@pytest.mark.parametrize("fuse_along", ["channels", "bins"])
def test_latents_of_any_layout_are_steered(name, frame_axis, fuse_along):
    """A query is one frame's features along the fused axis, whatever the other axes are."""
    sizes = {"tf_gridnet": {"feature_dim": 4, "num_blocks": 1, "hidden": 4, "num_heads": 2}, "dpccn": {"channels": 4}}
    backbone = {"name": name, "fuse_along": fuse_along, **sizes[name]}
    network = build_network({**MODEL, "backbone": backbone, "cues": [{"name": "context", "dim": 8}]}).eval()
    cue, shape = network.cues[0], [1, 3, 5, 7]
    shape[network.backbone.fusion_axis] = network.backbone.latent_dim
    latent, prepared = torch.randn(shape), {"frames": torch.randn(1, 9, 12), "mask": torch.ones(1, 9).bool()}
    out = cue.steer_latent(0, latent, prepared)
    assert out.shape == latent.shape
    assert network.backbone.frame_axis == frame_axis
    single = tuple(slice(None) if axis in (0, network.backbone.fusion_axis % 4) else slice(1, 2) for axis in range(4))
    torch.testing.assert_close(cue.steer_latent(0, latent[single], prepared), out[single])
